//! Reading files whose names an operator gave, whatever is behind them.
//!
//! Behind a name may be a FIFO without a writer, a device without an end, or a file system that does
//! not answer, and open(2) and read(2) wait for such things as long as it takes. [`read`] takes
//! nothing but regular files, and no more of them than is allowed. [`start`] has work done by a
//! thread of its own, so that nobody has to wait for it longer than he wants to.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileTypeExt,
    panic::{self, AssertUnwindSafe},
    path::Path,
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::fs::{Mode, OFlags};
use tokio::{
    sync::{Semaphore, oneshot},
    time::timeout,
};

use crate::{os_error::in_words, units};

/// How long a file system may take before whoever asked goes on without an answer.
pub const WITHIN: Duration = Duration::from_secs(10);

/// Threads that may do such work at a time. One that waits for a file system that never answers
/// cannot be ended, so their number has to be.
const THREADS: usize = 16;

static FREE: Semaphore = Semaphore::const_new(THREADS);

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The kernel refused.
    #[error("{}", in_words(.0))]
    Refused(#[from] io::Error),
    /// It is something else than a file.
    #[error("found {found}, allowed: a regular file")]
    NotRegular { found: &'static str },
    /// There is too much in it.
    #[error("found {found} bytes, allowed: at most {allowed}")]
    TooLong {
        /// Its length, as far as it says so.
        found: String,
        allowed: u64,
    },
    /// Nobody could wait for it.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
}

/// Why there is no answer from a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// It is not done yet.
    #[error("the file system did not answer within {}", units::duration(*.0))]
    Late(Duration),
    /// There is none to ask.
    #[error("the file system has not answered {0} earlier questions yet")]
    Busy(usize),
    /// It ended without one.
    #[error("the thread that read it failed")]
    Failed,
}

/// All of a regular file, if that is at most `allowed` bytes.
pub fn read(path: &Path, allowed: u64) -> Result<Vec<u8>, FileError> {
    // Without O_NONBLOCK, a FIFO is not even opened before somebody writes to it.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let opened = rustix::fs::open(path, flags, Mode::empty());
    let file = File::from(opened.map_err(io::Error::from)?);
    let found = file.metadata()?;
    if !found.is_file() {
        let found = kind(found.file_type());
        return Err(FileError::NotRegular { found });
    }
    if found.len() > allowed {
        let found = found.len().to_string();
        return Err(FileError::TooLong { found, allowed });
    }
    let mut content = Vec::with_capacity(usize::try_from(found.len()).unwrap_or_default() + 1);
    // It may be longer than it says, as those in /proc are.
    file.take(allowed.saturating_add(1))
        .read_to_end(&mut content)?;
    match content.len() as u64 > allowed {
        true => Err(FileError::TooLong {
            found: format!("more than {allowed}"),
            allowed,
        }),
        false => Ok(content),
    }
}

fn kind(found: std::fs::FileType) -> &'static str {
    if found.is_dir() {
        "a directory"
    } else if found.is_fifo() {
        "a FIFO"
    } else if found.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

/// Work that a thread does.
#[derive(Debug)]
pub struct Answer<T>(oneshot::Receiver<T>);

/// Has a thread of its own do `work`.
pub fn start<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<Answer<T>, Unanswered> {
    let (work, answer) = answered(work)?;
    spawn("files", work)?;
    Ok(answer)
}

/// `work` for a thread, if there may be one more, and what comes of it.
fn answered<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<(impl FnOnce() + Send + 'static, Answer<T>), Unanswered> {
    let place = FREE.try_acquire();
    let place = place.map_err(|_| Unanswered::Busy(THREADS))?;
    let (done, answer) = oneshot::channel();
    let work = move || {
        let _place = place;
        // Whoever asked may have given up.
        let _ = done.send(work());
    };
    Ok((work, Answer(answer)))
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Unanswered> {
    let started = thread::Builder::new().name(name.to_owned()).spawn(work);
    started.map(drop).map_err(|_| Unanswered::Failed)
}

/// A thread that does one piece of work after the other, for whoever has some many times a second: to
/// start one takes longer than most of what it does. Work that panics ends alone. It ends with this.
#[derive(Debug)]
pub struct Worker {
    name: &'static str,
    /// What it is to do; nothing before the first.
    todo: Option<mpsc::Sender<Work>>,
}

type Work = Box<dyn FnOnce() + Send>;

/// Does `work`, and drops it with what waits for its answer if it panics: what comes after it was given
/// to the same thread already.
fn run(work: Work) {
    // Whoever asked hears of it, and the panic has been reported by its hook.
    let _ = panic::catch_unwind(AssertUnwindSafe(work));
}

impl Worker {
    /// One that is started when there is something to do.
    pub fn new(name: &'static str) -> Self {
        Self { name, todo: None }
    }

    /// Has it do `work` after what it was given before.
    pub fn start<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Answer<T>, Unanswered> {
        let (work, answer) = answered(work)?;
        let todo = match self.todo.take() {
            Some(todo) => todo,
            None => {
                let (todo, works) = mpsc::channel::<Work>();
                spawn(self.name, move || works.into_iter().for_each(run))?;
                todo
            }
        };
        todo.send(Box::new(work)).map_err(|_| Unanswered::Failed)?;
        self.todo = Some(todo);
        Ok(answer)
    }
}

impl<T> Answer<T> {
    /// Waits for what comes of it, and can be asked again if that was [`Unanswered::Late`].
    pub async fn within(&mut self, within: Duration) -> Result<T, Unanswered> {
        match timeout(within, &mut self.0).await {
            Ok(answer) => answer.map_err(|_| Unanswered::Failed),
            Err(_) => Err(Unanswered::Late(within)),
        }
    }

    /// Waits for what comes of it, however long that takes: for work that is bounded by itself.
    pub async fn wait(self) -> Result<T, Unanswered> {
        self.0.await.map_err(|_| Unanswered::Failed)
    }
}

/// Has a thread of its own do `work` with files, and has the caller wait for it no longer than
/// [`WITHIN`]: for threads that may wait.
pub fn off_this_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Unanswered> {
    let (done, answer) = mpsc::sync_channel(1);
    start(move || {
        // Whoever asked may have given up.
        let _ = done.send(work());
    })?;
    answer.recv_timeout(WITHIN).map_err(|error| match error {
        mpsc::RecvTimeoutError::Timeout => Unanswered::Late(WITHIN),
        mpsc::RecvTimeoutError::Disconnected => Unanswered::Failed,
    })
}

/// Has a thread of its own do `work` with a file, and waits for it no longer than [`WITHIN`].
pub async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Unanswered> {
    start(work)?.within(WITHIN).await
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_fifo_is_refused_and_not_waited_for() {
        let dir = tempfile::tempdir().expect("a directory for temporary files");
        let path = dir.path().join("fifo");
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).expect("a fresh name");
        let refused = read(&path, 100).expect_err("no file");
        assert_eq!(refused.to_string(), "found a FIFO, allowed: a regular file");
    }

    #[test]
    fn a_device_without_an_end_is_refused() {
        let refused = read(Path::new("/dev/zero"), 100).expect_err("no file");
        assert!(refused.to_string().contains("a device"), "{refused}");
    }

    #[test]
    fn a_file_may_have_as_many_bytes_as_allowed_and_not_one_more() {
        let dir = tempfile::tempdir().expect("a directory for temporary files");
        let path = dir.path().join("length");
        fs::write(&path, [b'a'; 10]).expect("own file");
        assert_eq!(read(&path, 10).expect("ten of ten").len(), 10);
        let refused = read(&path, 9).expect_err("ten of nine").to_string();
        assert_eq!(refused, "found 10 bytes, allowed: at most 9");
        // It says that it is empty.
        let refused = read(Path::new("/proc/self/status"), 9).expect_err("longer");
        assert_eq!(
            refused.to_string(),
            "found more than 9 bytes, allowed: at most 9"
        );
    }

    #[tokio::test]
    async fn what_does_not_answer_holds_up_nobody_and_may_answer_later() {
        let (release, released) = mpsc::channel::<()>();
        let hung = move || released.recv().is_err();
        let mut answer = start(hung).expect("a thread");
        let within = Duration::from_millis(1);
        assert_eq!(answer.within(within).await, Err(Unanswered::Late(within)));
        drop(release);
        assert_eq!(answer.within(WITHIN).await, Ok(true));
    }

    #[tokio::test]
    async fn one_thread_does_one_work_after_the_other_whatever_becomes_of_the_first() {
        let mut worker = Worker::new("works");
        let panics = || panic!("as a test of what becomes of it");
        let panicked = worker.start::<()>(panics).expect("a thread");
        let mut names = Vec::new();
        for _ in 0..2 {
            let answer = worker.start(|| thread::current().id()).expect("a thread");
            names.push(answer.wait().await.expect("an id"));
        }
        assert_eq!(panicked.wait().await, Err(Unanswered::Failed));
        assert_eq!(names[0], names[1]);
    }

    #[tokio::test]
    async fn a_thread_that_panics_is_an_error() {
        let work = || panic!("as a test of what becomes of it");
        let answer = start::<()>(work).expect("a thread").wait().await;
        assert_eq!(answer, Err(Unanswered::Failed));
    }
}
