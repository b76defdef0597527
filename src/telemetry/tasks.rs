//! Tasks of the control plane that ended or panicked though they must not.

use std::{
    any::Any,
    array,
    collections::BTreeMap,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard},
    task::Poll,
    time::Instant,
};

use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantArray};

use crate::{
    handover::monotonic,
    mutex::lock,
    text::{clipped, of_panic},
};

/// Of why a task failed, so many bytes are kept.
const LONGEST: usize = 1024;

/// What runs for as long as the process, or as the configuration asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Task {
    /// Serves the admin endpoint over TCP.
    Admin,
    /// Serves it on the unix socket.
    AdminSocket,
    /// Serves the lookup listener.
    Lookup,
    /// Follows the switchboard, and publishes endpoints there.
    Following,
    /// Exposes its jobs.
    Exposing,
    /// Removes what was published, at a stop or a reload.
    Withdrawing,
    /// Looks names up.
    Resolving,
    /// Checks targets.
    Checking,
    /// Takes part in a fleet.
    Fleet,
    /// Counts for charts, samples the ways to targets.
    Ticker,
    /// The echo service of the built-in example.
    Echo,
    /// Writes the log.
    Log,
}

impl Task {
    /// Every task there is, in the order of their numbers.
    pub const ALL: &[Self] = Self::VARIANTS;

    /// Its name in the log and in metrics.
    pub fn word(self) -> &'static str {
        self.into()
    }
}

/// How one of them failed.
#[derive(Debug, Clone, Default)]
pub struct Failures {
    /// How often.
    pub count: u64,
    /// When it did last, and how.
    pub last: Option<(Instant, String)>,
    /// Whether it does not run for now.
    pub is_down: bool,
}

/// How tasks failed, by their names, as it is handed over. What did not run is started by the next
/// image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SavedTaskFailures(BTreeMap<String, SavedFailures>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SavedFailures {
    count: u64,
    #[serde(default, with = "monotonic::option")]
    at: Option<Instant>,
    #[serde(default)]
    why: String,
}

/// All of them.
#[derive(Debug, Default)]
pub struct TaskFailures([Mutex<Failures>; Task::ALL.len()]);

impl TaskFailures {
    /// Those there were.
    pub fn save(&self) -> SavedTaskFailures {
        let save = |task: Task| {
            let Failures {
                count,
                last,
                is_down: _,
            } = self.of(task);
            let (at, why) = last.unzip();
            let why = why.unwrap_or_default();
            (count > 0).then(|| (task.word().to_owned(), SavedFailures { count, at, why }))
        };
        SavedTaskFailures(Task::ALL.iter().copied().filter_map(save).collect())
    }

    /// Goes on counting.
    pub fn load(SavedTaskFailures(mut saved): SavedTaskFailures) -> Self {
        Self(array::from_fn(|number| {
            let failures = saved.remove(Task::ALL[number].word());
            let load = |SavedFailures { count, at, why }| Failures {
                count,
                last: at.map(|at| (at, why)),
                is_down: false,
            };
            Mutex::new(failures.map(load).unwrap_or_default())
        }))
    }

    /// Notes that a task failed and does not run until [`TaskFailures::runs`].
    pub fn stopped(&self, task: Task, why: &str) {
        let mut failures = self.lock(task);
        failures.note(why);
        failures.is_down = true;
    }

    /// Notes that a task runs.
    pub fn runs(&self, task: Task) {
        self.lock(task).is_down = false;
    }

    /// Notes and logs that one thing a task did failed; the task itself goes on.
    pub(super) fn failed_once(&self, task: Task, panic: &(dyn Any + Send)) {
        let why = panicked(panic);
        self.lock(task).note(&why);
        tracing::error!(
            task = task.word(),
            why,
            "a task of the control plane failed and goes on"
        );
    }

    /// Does one thing of a task's, a connection for example. A panic is noted and logged.
    pub async fn guard(self: Arc<Self>, task: Task, work: impl Future<Output = ()>) {
        if let Err(panic) = caught(work).await {
            self.failed_once(task, &*panic);
        }
    }

    /// What was noted of a task.
    pub fn of(&self, task: Task) -> Failures {
        self.lock(task).clone()
    }

    // Assignments one after the other, none of which can panic.
    fn lock(&self, task: Task) -> MutexGuard<'_, Failures> {
        lock(&self.0[task as usize])
    }
}

impl Failures {
    fn note(&mut self, why: &str) {
        self.count += 1;
        self.last = Some((Instant::now(), clipped(why.to_owned(), LONGEST)));
    }
}

/// How a panic is told.
fn panicked(panic: &(dyn Any + Send)) -> String {
    format!("it panicked: {}", of_panic(panic))
}

/// Runs `work` to its end or to a panic, after which nothing of it is touched any more, so that nobody
/// sees what it left half done.
///
/// # Errors
///
/// What it panicked with.
async fn caught<F: Future>(work: F) -> Result<F::Output, Box<dyn Any + Send>> {
    let mut work = pin!(work);
    poll_fn(
        |context| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => Poll::Ready(Err(panic)),
        },
    )
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_that_panics_is_counted_and_its_listener_goes_on() {
        let tasks = Arc::new(TaskFailures::default());
        let number = 7;
        let work = async { panic!("number {number} is not good") };
        Arc::clone(&tasks).guard(Task::Admin, work).await;
        Arc::clone(&tasks).guard(Task::Admin, async {}).await;
        let failures = tasks.of(Task::Admin);
        assert_eq!((failures.count, failures.is_down), (1, false));
        let (_, why) = failures.last.expect("it failed");
        assert_eq!(why, "it panicked: number 7 is not good");
        assert_eq!(tasks.of(Task::AdminSocket).count, 0);
    }
}
