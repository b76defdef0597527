//! Which addresses are this machine's own, asked of the kernel now and then.

use std::{
    cell::RefCell,
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::provider::LocalAddresses;

/// How long an answer of the kernel is good for, where it does not tell that it has changed.
pub(super) const GOOD_FOR: Duration = Duration::from_secs(30);

/// The kernel's answers.
#[derive(Debug, Default)]
pub(super) struct OwnAddresses {
    kernel: LocalAddresses,
    answers: RefCell<HashMap<IpAddr, (bool, Instant)>>,
}

impl OwnAddresses {
    pub fn contains(&self, ip: IpAddr, now: Instant) -> bool {
        let mut answers = self.answers.borrow_mut();
        let ask = || (self.kernel.contains(ip), now);
        answers.entry(ip).or_insert_with(ask).0
    }

    /// Lets go of answers that are too old.
    pub fn forget(&mut self, now: Instant) {
        let answers = self.answers.get_mut();
        answers.retain(|_, (_, at)| now.duration_since(*at) < GOOD_FOR);
    }

    /// Lets go of every answer: the machine's addresses have changed.
    pub fn forget_all(&mut self) {
        self.answers.get_mut().clear();
    }
}
