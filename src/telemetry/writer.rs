//! The thread that writes the log, and how lines get to it.
//!
//! One call writes what has gathered. What cannot be written is counted and forgotten: a log on a
//! full disk or without a reader is no reason to stop forwarding, nor to keep it for later.

use std::{
    io::{self, Write},
    sync::Arc,
    thread,
};

use tracing_subscriber::fmt::MakeWriter;

use super::{
    line::{Line, LineFormat},
    queue::{Entry, LogQueue},
};

/// Written at the latest when this much has gathered.
const PAGE: usize = 64 * 1024;

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
    format: LineFormat,
    out: impl Write + Send + 'static,
) -> io::Result<()> {
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || {
            write_all(&records, format, out);
            records.queue.finish();
        })?;
    Ok(())
}

fn write_all<T>(Records { queue, say }: &Records<T>, format: LineFormat, mut out: impl Write) {
    let mut page = Page::default();
    while let Some(entries) = queue.take() {
        for entry in entries {
            match entry {
                Entry::Line(line) => page.text.extend_from_slice(&line),
                Entry::Record(at, record) => {
                    let mut line = Line::begin(&mut page.text, format, at);
                    say(&record, &mut line);
                    line.end();
                }
            }
            page.lines += 1;
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
    lines: usize,
}

impl Page {
    /// Writes it and begins another. Returns how many lines were lost.
    fn write(&mut self, out: &mut impl Write) -> usize {
        let written = out.write_all(&self.text).and_then(|()| out.flush());
        self.text.clear();
        let lines = std::mem::take(&mut self.lines);
        written.map_or(lines, |()| 0)
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

    use super::{LineFormat, LogQueue, Records, write_all};

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
        write_all(&three(), TEXT, &mut out);
        let text = String::from_utf8(out).expect("text");
        let words: Vec<_> = text.lines().map(|line| line.rsplit(' ').next()).collect();
        assert_eq!(words, ["before", "record", "after"].map(Some));
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
        write_all(&records, TEXT, Full);
        assert_eq!(records.queue.dropped(), 3);
    }
}
