//! Documents of the API in a line each, said alike by the status page and the command line.

use super::api::model::{Ports, Switchboard};
use crate::units::{count, duration_ms};

/// The switchboard and what is known of its jobs.
pub fn switchboard(switchboard: &Switchboard) -> String {
    let known = match switchboard.age_ms {
        Some(age) => format!("all jobs heard of {} ago", duration_ms(age)),
        None => "not all jobs heard of yet".to_owned(),
    };
    let jobs = count(switchboard.jobs, "job");
    let endpoints = count(switchboard.endpoints, "endpoint");
    format!("{}, {known}, {jobs}, {endpoints} open", switchboard.state)
}

/// The ports there are to allocate.
pub fn ports(ports: &Ports) -> String {
    let Ports {
        used,
        free,
        cooling,
        blocked,
        waiting,
    } = ports;
    format!("{used} used, {free} free, {cooling} cooling, {blocked} blocked, {waiting} waiting")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_job_is_no_plural() {
        let one = Switchboard {
            state: "following".to_owned(),
            age_ms: Some(2000),
            jobs: 1,
            endpoints: 1,
            ..Switchboard::default()
        };
        assert_eq!(
            switchboard(&one),
            "following, all jobs heard of 2s ago, 1 job, 1 endpoint open"
        );
    }
}
