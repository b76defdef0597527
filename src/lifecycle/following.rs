//! Has a switchboard followed, from settings that may turn out to be of no use.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinHandle, time::sleep};

use crate::{
    config::Switchboard,
    provider::switchboard::{
        Board, Knowledge,
        client::{Client, ClientSettings, Patience},
        follow::{FollowSettings, follow},
    },
};

/// Until a token or certificates that could not be read are looked for again.
const AGAIN: Duration = Duration::from_secs(5);

/// What of the settings makes another follower.
pub(super) fn settings(switchboard: &Switchboard) -> (ClientSettings, FollowSettings) {
    let client = ClientSettings {
        url: switchboard.url.to_string(),
        token_file: switchboard.token_file.clone(),
        ca_file: switchboard.ca_file.clone(),
    };
    let follow = FollowSettings {
        refresh: switchboard.refresh,
        poll: switchboard.poll,
        ..FollowSettings::default()
    };
    (client, follow)
}

/// Follows until the task is ended. What `knowledge` holds is taken for what is known.
pub(super) fn spawn(
    switchboard: &Switchboard,
    knowledge: watch::Sender<Arc<Knowledge>>,
    board: Arc<Board>,
) -> JoinHandle<()> {
    let (client, settings) = settings(switchboard);
    tokio::spawn(async move {
        let client = client_of(&client, &board).await;
        follow(settings, client, knowledge, Arc::clone(&board.stats)).await;
    })
}

/// A client, as soon as the files of its settings can be read: forwarding does not wait for it.
async fn client_of(settings: &ClientSettings, board: &Board) -> Client {
    let mut said = String::new();
    loop {
        match Client::new(settings, Patience::default()) {
            Ok(client) => {
                board.set_unusable(None);
                return client;
            }
            Err(error) => {
                let error = error.to_string();
                if error != said {
                    tracing::error!(error, "the switchboard cannot be asked");
                    board.set_unusable(Some(error.clone()));
                    said = error;
                }
            }
        }
        sleep(AGAIN).await;
    }
}
