//! Has a switchboard followed and its jobs annotated, from settings that may turn out to be of no use.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::timeout};
use tokio_util::task::TaskTracker;

use super::{
    KnownJobs, Switchboard, SwitchboardStatus,
    client::{Client, ClientSettings, Patience},
    follow::{FollowSettings, follow},
    publish::Publisher,
    token_file,
};
use crate::telemetry::{Task, TaskFailures};

/// How long it may take to remove what was written, at a stop above all.
const WITHDRAWN_WITHIN: Duration = Duration::from_secs(5);

/// Whether another follower is needed for `new` than for `old`.
pub(crate) fn differs(old: &Switchboard, new: &Switchboard) -> bool {
    old.client() != new.client()
        || follow_settings(old, 0) != follow_settings(new, 0)
        || old.annotation() != new.annotation()
        || old.public_host != new.public_host
}

fn follow_settings(switchboard: &Switchboard, max_watches: usize) -> FollowSettings {
    FollowSettings {
        refresh: switchboard.refresh,
        poll: switchboard.poll,
        needs_hosts: switchboard.host_gone.is_some() || !switchboard.addresses.is_empty(),
        max_watches,
        ..FollowSettings::default()
    }
}

/// Follows for ever with at most `max_watches` connections, unless something keeps it from that. What
/// `known_jobs` holds is taken for what is known.
pub(crate) async fn run(
    switchboard: Arc<Switchboard>,
    max_watches: usize,
    known_jobs: watch::Sender<Arc<KnownJobs>>,
    status: Arc<SwitchboardStatus>,
    withdrawals: Withdrawals,
) {
    let client = client_of(&switchboard.client(), &status).await;
    let stats = Arc::clone(&status.stats);
    let settings = follow_settings(&switchboard, max_watches);
    let following = follow(settings, client.clone(), known_jobs, Arc::clone(&stats));
    let keeping = token_file::keep(&client, &status.token);
    let host = switchboard.public_host.as_str();
    let publisher = switchboard
        .annotation()
        .map(|key| Publisher::new(client.clone(), key, host, stats));
    if let Some(publisher) = &publisher {
        publisher.go_on_from(std::mem::take(&mut *status.written()));
    }
    withdrawals.replace(&status, publisher.clone(), switchboard.withdraw);
    let writing = async {
        match publisher {
            Some(publisher) => publisher.run().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = following => {}
        () = keeping => {}
        () = writing => {}
    }
}

/// A client, as soon as the files of its settings can be read: forwarding does not wait for it.
async fn client_of(settings: &ClientSettings, status: &SwitchboardStatus) -> Client {
    let mut said = String::new();
    loop {
        let availability = Arc::clone(&status.availability);
        match Client::open(settings, Patience::default(), availability).await {
            Ok(client) => {
                status.set_unusable(None);
                return client;
            }
            Err(error) => {
                let error = error.to_string();
                if error != said {
                    tracing::error!(error, "the switchboard cannot be asked");
                    status.set_unusable(Some(error.clone()));
                    said = error;
                }
            }
        }
        status.token.time_to_look().await;
    }
}

/// Has what publishers wrote removed when they go.
#[derive(Debug, Clone, Default)]
pub(crate) struct Withdrawals {
    tasks: TaskTracker,
    failures: Arc<TaskFailures>,
}

impl Withdrawals {
    pub fn new(failures: Arc<TaskFailures>) -> Self {
        let tasks = TaskTracker::new();
        Self { tasks, failures }
    }

    /// Puts another publisher, or none, in the place of the one there is. What that one wrote under
    /// another key is removed, if that is wanted.
    pub fn replace(&self, status: &SwitchboardStatus, new: Option<Arc<Publisher>>, withdraw: bool) {
        let Some(old) = status.publisher.swap(new.clone()) else {
            return;
        };
        if withdraw && new.is_none_or(|new| new.key() != old.key()) {
            let withdrawing = async move {
                // Whoever has not answered by then is left as it is.
                let _ = timeout(WITHDRAWN_WITHIN, old.withdraw()).await;
            };
            let failures = Arc::clone(&self.failures);
            self.tasks
                .spawn(failures.guard(Task::Withdrawing, withdrawing));
        }
    }

    /// Waits until everything that is to be removed is.
    pub async fn done(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}
