//! What is valid and yet does not do what it says, because the kernel has a word in it.

use std::time::Duration;

use super::settings::Config;
use crate::{table::Policy, units};

/// The kernel gives a connection up by itself after this time at the earliest, with its own setting of
/// `net.ipv4.tcp_retries2`.
const KERNEL_GIVES_UP: Duration = Duration::from_secs(15 * 60);

/// Notes on mappings that are worth saying; more of them say the same.
const MOST: usize = 20;

/// What an operator should know of a configuration, a line each.
pub fn notes(config: &Config) -> Vec<String> {
    let defaults = too_long(&config.defaults).map(|why| format!("defaults.{why}"));
    let mappings = config.mappings.iter().filter_map(|spec| {
        let own = spec.policy.user_timeout != config.defaults.user_timeout;
        let why = too_long(&spec.policy).filter(|_| own)?;
        Some(format!("mapping {:?}: {why}", spec.name.as_str()))
    });
    defaults.into_iter().chain(mappings.take(MOST)).collect()
}

fn too_long(policy: &Policy) -> Option<String> {
    let timeout = policy.user_timeout.filter(|time| *time > KERNEL_GIVES_UP)?;
    Some(format!(
        "user_timeout = {}: the kernel gives up by itself a host that has acknowledged nothing for 15 \
         to 30 minutes (net.ipv4.tcp_retries2)",
        units::duration(timeout)
    ))
}
