//! Which addresses are this machine's own, asked of the kernel now and then.

use std::{
    cell::RefCell,
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::provider::is_local;

/// How long an answer of the kernel is good for: asking takes several system calls a job.
const GOOD_FOR: Duration = Duration::from_secs(30);

/// The kernel's answers.
#[derive(Debug, Default)]
pub(super) struct OwnAddresses(RefCell<HashMap<IpAddr, (bool, Instant)>>);

impl OwnAddresses {
    /// Whether `ip` is ours.
    pub fn contains(&self, ip: IpAddr, now: Instant) -> bool {
        let mut answers = self.0.borrow_mut();
        let (own, _) = answers.entry(ip).or_insert_with(|| (is_local(ip), now));
        *own
    }

    /// Lets go of answers that are too old.
    pub fn forget(&mut self, now: Instant) {
        let fresh = |at: &Instant| now.duration_since(*at) < GOOD_FOR;
        self.0.get_mut().retain(|_, (_, at)| fresh(at));
    }
}
