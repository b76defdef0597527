//! What only some sessions have, kept apart so that the others do not pay for it in memory.

use std::time::Instant;

use super::{Choice, retry::Retry, user_timeout::UserTimeout};
use crate::{
    limit::{Admission, Dialling, Throttle},
    listen::Front,
};

#[derive(Debug, Default)]
pub struct Extras {
    /// Its place among those that are counted.
    pub admission: Admission,
    /// Its place among those that wait for their target; given back when that answers.
    pub dialling: Dialling,
    /// Both directions under the limits of bandwidth.
    pub up: Throttle,
    pub down: Throttle,
    /// When a direction that has spent what it may move goes on.
    pub wake: Option<Instant>,
    /// Until when it may go on while an operator drains its mapping.
    pub drained: Option<Instant>,
    /// Which of several targets it was led to.
    pub(super) choice: Option<Box<Choice>>,
    /// Who brought the client here, if it did not come by itself.
    pub front: Option<Box<Front>>,
    /// Whether both hosts answer, where `user_timeout` wants to know.
    pub(super) user_timeout: Option<Box<UserTimeout>>,
    /// Since when this machine has refused to move its bytes.
    pub(super) retry: Option<Box<Retry>>,
}

impl Extras {
    pub fn counted(admission: Admission, dialling: Dialling) -> Box<Self> {
        Box::new(Self {
            admission,
            dialling,
            ..Self::default()
        })
    }
}
