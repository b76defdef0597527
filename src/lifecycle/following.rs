//! Has a switchboard followed, from settings that may turn out to be of no use.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinHandle, time::timeout};

use super::{limits, tasks::Tasks};
use crate::{
    provider::switchboard::{
        KnownJobs, Switchboard, SwitchboardStatus,
        client::{Client, ClientSettings, Patience},
        follow::{FollowSettings, follow},
        publish::Publisher,
        token_file,
    },
    telemetry::Task,
};

/// How long it may take to remove what was written, at a stop above all.
const WITHDRAWN_WITHIN: Duration = Duration::from_secs(5);

/// Whether another follower is needed for `new` than for `old`.
pub(super) fn differs(old: &Switchboard, new: &Switchboard) -> bool {
    old.client() != new.client()
        || follow_settings(old) != follow_settings(new)
        || old.annotation() != new.annotation()
        || old.public_host != new.public_host
}

fn follow_settings(switchboard: &Switchboard) -> FollowSettings {
    FollowSettings {
        refresh: switchboard.refresh,
        poll: switchboard.poll,
        needs_hosts: switchboard.host_gone.is_some() || !switchboard.addresses.is_empty(),
        max_watches: limits::watches(limits::descriptor_limit()),
        ..FollowSettings::default()
    }
}

/// Follows for ever, unless something keeps it from that, and then says what. What `known_jobs` holds is
/// taken for what is known.
pub(super) fn run(
    switchboard: &Switchboard,
    known_jobs: watch::Sender<Arc<KnownJobs>>,
    status: Arc<SwitchboardStatus>,
    tasks: Tasks,
) -> impl Future<Output = String> + Send + use<> {
    let key = switchboard.annotation();
    let (host, withdraw) = (switchboard.public_host.clone(), switchboard.withdraw);
    let (client, settings) = (switchboard.client(), follow_settings(switchboard));
    async move {
        const BY_ITSELF: &str = "it ended by itself";
        let client = client_of(&client, &status).await;
        let stats = Arc::clone(&status.stats);
        let following = follow(settings, client.clone(), known_jobs, Arc::clone(&stats));
        let keeping = token_file::keep(&client, &status.token);
        let Some(key) = key else {
            replace_publisher(&status, None, withdraw, &tasks);
            tokio::select! {
                () = following => {}
                () = keeping => {}
            }
            return BY_ITSELF.to_owned();
        };
        let (publisher, writer) = Publisher::new(client.clone(), key, host.as_str(), stats);
        replace_publisher(&status, Some(publisher), withdraw, &tasks);
        tokio::select! {
            () = following => {}
            () = keeping => {}
            () = writer.run() => {}
        }
        BY_ITSELF.to_owned()
    }
}

/// Puts another publisher, or none, in the place of the one there is. What that one wrote under another
/// key is removed, if that is wanted.
pub(super) fn replace_publisher(
    status: &SwitchboardStatus,
    new: Option<Publisher>,
    withdraw: bool,
    tasks: &Tasks,
) -> Option<JoinHandle<()>> {
    let new = new.map(Arc::new);
    let old = status.publisher.swap(new.clone())?;
    let goes = new.is_none_or(|new| new.key() != old.key());
    (withdraw && goes).then(|| {
        tasks.once(Task::Withdrawing, async move {
            // Whoever has not answered by then is left as it is.
            let _ = timeout(WITHDRAWN_WITHIN, old.withdraw()).await;
        })
    })
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
