//! Tasks that run as long as the proxy does. When one ends by itself, whatever the reason, whoever
//! started it hears of that and can start it again.

use std::{
    any::Any,
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use crate::{telemetry::Task, text::of_panic, units::millis};

/// The first wait before what ended is started again, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// What runs for this long is well again.
const WELL_AFTER: Duration = Duration::from_secs(120);

/// Starts tasks. The other end hears whenever one is over.
#[derive(Debug, Clone)]
pub(super) struct Tasks {
    over: mpsc::UnboundedSender<()>,
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
    /// None runs yet.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<()>) {
        let (over, heard) = mpsc::unbounded_channel();
        (Self { over }, heard)
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

/// Has a task end, and waits for that, so that what it held is free.
pub(super) async fn end<T>(task: JoinHandle<T>) {
    const WITHIN: Duration = Duration::from_secs(5);
    task.abort();
    let _ = timeout(WITHIN, task).await;
}

/// What has ended and is to be started again, each after a pause of its own.
#[derive(Debug, Default)]
pub(super) struct Restarts([Restart; Task::ALL.len()]);

#[derive(Debug, Default)]
struct Restart {
    /// When to start it again.
    at: Option<Instant>,
    /// The last pause, and when it began.
    last: Option<(Duration, Instant)>,
}

impl Restarts {
    /// Notes that something ended, or could not be started again.
    pub fn after(&mut self, task: Task, what: &str, why: &str) {
        let now = Instant::now();
        let restart = &mut self.0[task as usize];
        let lately = |(pause, at): (Duration, Instant)| {
            (now.duration_since(at) < WELL_AFTER).then_some((pause * 2).min(PAUSE.1))
        };
        let pause = restart.last.and_then(lately).unwrap_or(PAUSE.0);
        restart.last = Some((pause, now));
        restart.at = Some(now + pause);
        let again_in_ms = millis(pause);
        tracing::error!(
            what,
            why,
            again_in_ms,
            "a part of the proxy ended; it will be started again"
        );
    }

    /// When to start the next again.
    pub fn next(&self) -> Option<Instant> {
        self.0.iter().filter_map(|restart| restart.at).min()
    }

    /// Those to start again now.
    pub fn take_due(&mut self, now: Instant) -> Vec<Task> {
        let each = Task::ALL.iter().zip(&mut self.0);
        let due =
            each.filter_map(|(task, restart)| restart.at.take_if(|at| *at <= now).map(|_| *task));
        due.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_or_ends_is_noticed_and_says_why() {
        let (tasks, mut heard) = Tasks::new();
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
        let mut restarts = Restarts::default();
        let pauses = [500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000];
        for pause in pauses {
            restarts.after(Task::Following, "it", "no reason");
            let at = restarts.next().expect("it has to wait");
            let (last, began) = restarts.0[Task::Following as usize].last.expect("it ended");
            assert_eq!(last, Duration::from_millis(pause));
            assert_eq!(at, began + last);
            assert_eq!(restarts.take_due(began), []);
            assert_eq!(restarts.take_due(at), [Task::Following]);
            assert_eq!(restarts.next(), None);
        }
    }

    #[test]
    fn a_part_that_ends_again_and_again_holds_up_no_other() {
        let mut restarts = Restarts::default();
        for _ in 0..5 {
            restarts.after(Task::Exposing, "it", "no reason");
        }
        restarts.after(Task::Admin, "the other", "no reason");
        let soon = Instant::now() + PAUSE.0;
        assert_eq!(restarts.take_due(soon), [Task::Admin]);
        assert!(restarts.next().is_some_and(|at| at > soon));
    }
}
