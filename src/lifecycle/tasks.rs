//! Tasks that run as long as the proxy does. When one ends by itself, whatever the reason, whoever
//! started it hears of that and can start it again.

use std::{
    any::Any,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, task::JoinHandle};

use crate::{
    telemetry::{Task, TaskFailures},
    text::of_panic,
    units::millis,
};

/// The first wait before what ended is started again, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// What runs for this long is well again.
const WELL_AFTER: Duration = Duration::from_secs(120);

/// Starts tasks. The other end hears whenever one is over.
#[derive(Debug, Clone)]
pub(super) struct Tasks {
    over: mpsc::UnboundedSender<()>,
    failures: Arc<TaskFailures>,
}

/// One that ended by itself.
#[derive(Debug)]
pub(super) struct Ended {
    pub task: Task,
    /// What it is for, with the address or path if it has one.
    pub what: String,
    pub why: String,
}

impl Tasks {
    /// None runs yet. What fails is counted in `failures`.
    pub fn new(failures: Arc<TaskFailures>) -> (Self, mpsc::UnboundedReceiver<()>) {
        let (over, heard) = mpsc::unbounded_channel();
        (Self { over, failures }, heard)
    }

    /// Does something once. A panic is logged and counted.
    pub fn once(
        &self,
        task: Task,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        tokio::spawn(Arc::clone(&self.failures).guard(task, work))
    }

    /// Starts a task, which says why it ended.
    pub fn spawn(&self, work: impl Future<Output = String> + Send + 'static) -> JoinHandle<String> {
        let over = Over(self.over.clone());
        tokio::spawn(async move {
            let _over = over;
            work.await
        })
    }
}

/// Dropped when a task is over, after a panic as well.
struct Over(mpsc::UnboundedSender<()>);

impl Drop for Over {
    fn drop(&mut self) {
        // Nobody listens any more when the process ends.
        let _ = self.0.send(());
    }
}

/// Why a task that is over ended.
pub(super) async fn why_ended(task: JoinHandle<String>) -> String {
    match task.await {
        Ok(why) => why,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => panicked(&*panic),
            Err(cancelled) => cancelled.to_string(),
        },
    }
}

fn panicked(panic: &(dyn Any + Send)) -> String {
    format!("it panicked: {}", of_panic(panic))
}

/// What has ended and is to be started again, and when.
#[derive(Debug, Default)]
pub(super) struct Restart {
    at: Option<Instant>,
    /// The last wait, and when it began.
    last: Option<(Duration, Instant)>,
}

impl Restart {
    /// Notes that something ended, or could not be started again.
    pub fn after(&mut self, what: &impl fmt::Display, why: &str) {
        let now = Instant::now();
        let lately = |(pause, at): (Duration, Instant)| {
            (now.duration_since(at) < WELL_AFTER).then_some((pause * 2).min(PAUSE.1))
        };
        let pause = self.last.and_then(lately).unwrap_or(PAUSE.0);
        self.last = Some((pause, now));
        self.at = Some(now + pause);
        let again_in_ms = millis(pause);
        tracing::error!(%what, why, again_in_ms, "a part of the proxy ended; it will be started again");
    }

    /// When to start again what ended.
    pub fn at(&self) -> Option<Instant> {
        self.at
    }

    /// Notes that it is being done.
    pub fn begin(&mut self) {
        self.at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_or_ends_is_noticed_and_says_why() {
        let (tasks, mut heard) = Tasks::new(Arc::default());
        let panics = tasks.spawn(async { panic!("as a test of what becomes of it") });
        assert_eq!(heard.recv().await, Some(()));
        let why = why_ended(panics).await;
        assert_eq!(why, "it panicked: as a test of what becomes of it");
        let ends = tasks.spawn(async { "the end".to_owned() });
        assert_eq!(heard.recv().await, Some(()));
        assert_eq!(why_ended(ends).await, "the end");
    }

    #[test]
    fn what_ends_again_and_again_is_started_less_and_less_often() {
        let mut restart = Restart::default();
        let pauses = [500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000];
        for pause in pauses {
            restart.after(&"it", "no reason");
            let (last, began) = restart.last.expect("it has to wait");
            assert_eq!(last, Duration::from_millis(pause));
            assert_eq!(restart.at(), Some(began + last));
            restart.begin();
            assert_eq!(restart.at(), None);
        }
    }
}
