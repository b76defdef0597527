//! Keeps the token in use that the file holds, and knows until when that is good.
//!
//! The file is read every few seconds, and at once when somebody asks for it: a file that was renamed
//! over, written over or linked elsewhere is noticed alike. One that gives no token leaves the token
//! in use as it is.

use std::{
    sync::Mutex,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};
use tracing::{info, warn};

use super::client::Client;
use crate::mutex::lock;

/// Between two looks at the file.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Between two questions until when the token is good.
const ASK_EVERY: Duration = Duration::from_secs(60 * 60);

/// The same if there was no answer.
const ASK_AGAIN: Duration = Duration::from_secs(15);

/// A token that lasts no longer has to be seen to.
pub const SOON: Duration = Duration::from_secs(2 * 24 * 60 * 60);

/// What is known of the token and its file.
#[derive(Debug, Default)]
pub struct TokenState {
    known: Mutex<Known>,
    look: Notify,
}

/// What is known of the token and its file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Known {
    /// When the token in use expires, if the switchboard says so.
    pub expires: Option<SystemTime>,
    /// Why the file gives no token, if it does not; an earlier one is still in use.
    pub unreadable: Option<String>,
}

impl TokenState {
    /// What is known.
    pub fn known(&self) -> Known {
        lock(&self.known).clone()
    }

    /// Goes on from what was known.
    pub(super) fn load(known: Known) -> Self {
        Self {
            known: Mutex::new(known),
            look: Notify::default(),
        }
    }

    /// Lets go of what is known: it is about another token, or none.
    pub(crate) fn forget(&self) {
        *lock(&self.known) = Known::default();
    }

    /// Has the file looked at now.
    pub fn look(&self) {
        self.look.notify_one();
    }

    /// Waits until it is time to look at the file.
    pub async fn time_to_look(&self) {
        tokio::select! {
            () = self.look.notified() => {}
            () = sleep(LOOK_EVERY) => {}
        }
    }
}

/// Keeps the token of `client` as its file has it, until dropped.
pub async fn keep(client: &Client, state: &TokenState) {
    let mut ask = Instant::now();
    let mut changes = client.token_changes();
    let mut failed_before = false;
    loop {
        if ask <= Instant::now() {
            let expires = client.token_expiry().await;
            let again = if expires.is_ok() {
                ASK_EVERY
            } else {
                ASK_AGAIN
            };
            ask = Instant::now() + again;
            if let Ok(expires) = expires {
                lock(&state.known).expires = expires;
            }
        }
        state.time_to_look().await;
        match client.renew_token().await {
            Ok(()) => {
                if lock(&state.known).unreadable.take().is_some() {
                    info!("token_file can be read again");
                }
                // A request that was refused may have been first to read the file.
                if client.token_changes() != changes {
                    changes = client.token_changes();
                    info!("the token of token_file has been replaced, the new one is in use");
                    lock(&state.known).expires = None;
                    ask = Instant::now();
                }
                failed_before = false;
            }
            Err(error) => {
                let error = error.to_string();
                // Once may be the moment in which it is written.
                let known = lock(&state.known).unreadable.clone();
                if failed_before && known.as_ref() != Some(&error) {
                    warn!(
                        error,
                        "no token can be read; the one known so far stays in use"
                    );
                    lock(&state.known).unreadable = Some(error);
                }
                failed_before = true;
            }
        }
    }
}
