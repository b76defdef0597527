//! The thread that writes the log, and how lines get to it.
//!
//! One call writes what has gathered. What cannot be written is counted and forgotten: a log on a
//! full disk or without a reader is no reason to stop forwarding, nor to keep it for later. Lines are
//! lost whole: of one that was begun, the rest is kept and written first.

use std::{
    io::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};
use tracing_subscriber::fmt::MakeWriter;

use super::{
    line::{Line, LineFormat},
    queue::{Entry, LogQueue},
    syslog::Syslog,
    tasks::{Task, TaskFailures},
};

/// Written at the latest when this much has gathered.
const PAGE: usize = 64 * 1024;

/// How long a syslog daemon has to take the last lines.
const SYSLOG_GRACE: Duration = Duration::from_millis(500);

/// What is in the log besides its events: records, which are put into words as they are written.
pub struct Records<T> {
    /// Where they wait, with the lines of events.
    pub queue: Arc<LogQueue<T>>,
    /// Says what a record is about.
    pub say: fn(&T, &mut Line<'_>),
}

/// Starts the thread, which writes to `out` what waits in the queue until that is closed.
///
/// # Errors
///
/// There can be no further thread.
pub(super) fn start<T: Send + 'static>(
    records: Records<T>,
    tasks: Arc<TaskFailures>,
    syslog: Arc<Syslog>,
    format: impl Fn() -> LineFormat + Send + 'static,
    out: impl Write + Send + 'static,
) -> io::Result<()> {
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || {
            write_all(&records, &tasks, &syslog, format, out);
            syslog.close(SYSLOG_GRACE);
            records.queue.finish();
        })?;
    Ok(())
}

fn write_all<T>(
    Records { queue, say }: &Records<T>,
    tasks: &TaskFailures,
    syslog: &Syslog,
    format: impl Fn() -> LineFormat,
    mut out: impl Write,
) {
    let mut page = Page::default();
    while let Some(entries) = queue.take() {
        for entry in entries {
            match entry {
                Entry::Line(line) => {
                    syslog.send(&line);
                    page.text.extend_from_slice(&line);
                }
                Entry::Record(at, record) => {
                    let begin = page.text.len();
                    let written = catch_unwind(AssertUnwindSafe(|| {
                        let mut line = Line::begin(&mut page.text, format(), at);
                        say(&record, &mut line);
                        line.end();
                    }));
                    if let Err(panic) = written {
                        // One line is lost, and not the log.
                        page.text.truncate(begin);
                        queue.count_dropped(1);
                        tasks.failed_once(Task::Log, &*panic);
                        continue;
                    }
                    syslog.send(&page.text[begin..]);
                }
            }
            page.ends.push(page.text.len());
            if page.text.len() >= PAGE {
                queue.count_dropped(page.write(&mut out));
            }
        }
        queue.count_dropped(page.write(&mut out));
    }
}

/// What is written in one go.
#[derive(Default)]
struct Page {
    text: Vec<u8>,
    /// Where in it each line ends.
    ends: Vec<usize>,
    /// Whether it begins with the rest of a line whose beginning is written already.
    is_begun: bool,
}

impl Page {
    /// Writes it and begins another, with the rest of a line that could only be begun. Returns how
    /// many lines were lost.
    fn write(&mut self, out: &mut impl Write) -> usize {
        let mut written = 0;
        while written < self.text.len() {
            match out.write(&self.text[written..]) {
                Ok(0) => break,
                Ok(more) => written += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let whole = self.ends.partition_point(|end| *end <= written);
        let start = whole.checked_sub(1).map_or(0, |last| self.ends[last]);
        let mut lost = self.ends.len() - whole;
        let mut rest = written;
        if written > start || self.is_begun && whole == 0 {
            rest = self.ends[whole];
            lost -= 1;
        }
        self.ends.clear();
        self.text.truncate(rest);
        self.text.drain(..written);
        self.is_begun = !self.text.is_empty();
        if self.is_begun {
            self.ends.push(self.text.len());
        }
        lost
    }
}

/// Standard output, without a buffer. Where writing may not wait (whoever shares it can have set
/// `O_NONBLOCK`), it is waited for here.
pub(super) struct StandardOutput(pub(super) io::Stdout);

impl Write for StandardOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(&self.0, bytes) {
                Err(Errno::AGAIN) => {
                    poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None)?;
                }
                result => return Ok(result?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Gives every event's line to the queue.
pub(super) struct ToQueue<T>(pub(super) Arc<LogQueue<T>>);

/// One event's line on its way.
pub(super) struct EventLine<'a, T>(&'a LogQueue<T>);

impl<'a, T: 'a> MakeWriter<'a> for ToQueue<T> {
    type Writer = EventLine<'a, T>;

    fn make_writer(&'a self) -> Self::Writer {
        EventLine(&self.0)
    }
}

impl<T> Write for EventLine<'_, T> {
    /// Takes one whole line, which is how events are written.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push_line(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{io, io::Write, sync::Arc, time::Duration};

    use super::{LineFormat, LogQueue, Page, Records, Syslog, Task, TaskFailures, write_all};

    const TEXT: LineFormat = LineFormat::Text { colour: false };

    /// A closed log with two lines and a record between them.
    fn three() -> Records<&'static str> {
        let queue = Arc::new(LogQueue::new(3));
        queue.push_line(b"before\n".to_vec());
        queue.push("record");
        queue.push_line(b"after\n".to_vec());
        queue.close(Duration::ZERO);
        Records {
            queue,
            say: |record, line| {
                line.message(record);
            },
        }
    }

    #[test]
    fn lines_and_records_keep_their_order() {
        let mut out = Vec::new();
        write_all(
            &three(),
            &TaskFailures::default(),
            &Syslog::after(0),
            || TEXT,
            &mut out,
        );
        let text = String::from_utf8(out).expect("text");
        let words: Vec<_> = text.lines().map(|line| line.rsplit(' ').next()).collect();
        assert_eq!(words, ["before", "record", "after"].map(Some));
    }

    #[test]
    fn a_line_that_cannot_be_made_is_lost_and_the_log_goes_on() {
        let mut records = three();
        records.say = |record, line| {
            line.message("half of it");
            panic!("no words for {record}");
        };
        let (tasks, mut out) = (TaskFailures::default(), Vec::new());
        write_all(&records, &tasks, &Syslog::after(0), || TEXT, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), "before\nafter\n");
        assert_eq!(records.queue.dropped(), 1);
        let failures = tasks.of(Task::Log);
        assert_eq!((failures.count, failures.is_down), (1, false));
        let (_, why) = failures.last.expect("it failed");
        assert_eq!(why, "it panicked: no words for record");
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let records = three();
        write_all(
            &records,
            &TaskFailures::default(),
            &Syslog::after(0),
            || TEXT,
            Full,
        );
        assert_eq!(records.queue.dropped(), 3);
    }

    /// Takes so many bytes before it is full, and after that whatever comes.
    struct FullOnce {
        room: usize,
        was_full: bool,
        taken: Vec<u8>,
    }

    impl Write for FullOnce {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if !self.was_full && self.room == 0 {
                self.was_full = true;
                return Err(io::ErrorKind::StorageFull.into());
            }
            let room = if self.was_full { usize::MAX } else { self.room };
            let some = bytes.len().min(room);
            self.room -= some.min(self.room);
            self.taken.extend_from_slice(&bytes[..some]);
            Ok(some)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_lost_whole_and_never_torn() {
        let lines = ["one\n", "two\n", "three\n"];
        let later = "later\n";
        let length: usize = lines.iter().map(|line| line.len()).sum();
        for room in 0..=length {
            let mut out = FullOnce {
                room,
                was_full: false,
                taken: Vec::new(),
            };
            let mut page = Page::default();
            let add = |page: &mut Page, line: &str| {
                page.text.extend_from_slice(line.as_bytes());
                page.ends.push(page.text.len());
            };
            lines.iter().for_each(|line| add(&mut page, line));
            let lost = page.write(&mut out);
            out.was_full = true;
            add(&mut page, later);
            assert_eq!(page.write(&mut out), 0);
            let expected = [&lines[..lines.len() - lost], &[later]].concat().concat();
            assert_eq!(String::from_utf8_lossy(&out.taken), expected);
        }
    }

    #[test]
    fn a_line_that_was_begun_is_finished_however_long_the_disk_stays_full() {
        /// Takes as many bytes as there is room for.
        struct Disk {
            room: usize,
            taken: Vec<u8>,
        }
        impl Write for Disk {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let some = bytes.len().min(self.room);
                if some == 0 {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                self.room -= some;
                self.taken.extend_from_slice(&bytes[..some]);
                Ok(some)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut disk = Disk {
            room: 6,
            taken: Vec::new(),
        };
        let mut page = Page::default();
        let mut write = |disk: &mut Disk, line: &str| {
            page.text.extend_from_slice(line.as_bytes());
            page.ends.push(page.text.len());
            page.write(disk)
        };
        assert_eq!(write(&mut disk, "first\n"), 0);
        disk.room = 3;
        assert_eq!(write(&mut disk, "begun\n"), 0);
        assert_eq!(write(&mut disk, "lost\n"), 1);
        disk.room = 1;
        assert_eq!(write(&mut disk, "lost too\n"), 1);
        assert_eq!(write(&mut disk, "and this\n"), 1);
        disk.room = usize::MAX;
        assert_eq!(write(&mut disk, "last\n"), 0);
        assert_eq!(String::from_utf8_lossy(&disk.taken), "first\nbegun\nlast\n");
    }
}
