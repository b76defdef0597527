//! Documents of the API in a line each, said alike by the status page and the command line.

use super::api::model::{Ports, Switchboard};
use crate::units::{count, duration_ms};

/// The switchboard and what is known of its jobs.
pub fn switchboard(switchboard: &Switchboard) -> String {
    let known = match (switchboard.heard_ms, switchboard.age_ms) {
        (_, None) => "not all jobs heard of yet".to_owned(),
        (Some(heard), Some(_)) => format!("heard {} ago", duration_ms(heard)),
        (None, Some(age)) => format!("last heard {} ago, before the start", duration_ms(age)),
    };
    let mut state = switchboard.state.clone();
    if let Some(error) = &switchboard.error {
        state.push_str(&format!(" ({error})"));
    }
    if let Some(outage) = switchboard.outage_ms {
        state.push_str(&format!(" for {}", duration_ms(outage)));
    }
    let jobs = count(switchboard.jobs, "job");
    let endpoints = count(switchboard.endpoints, "endpoint");
    format!("{state}, {known}, {jobs}, {endpoints} open")
}

/// The token for the switchboard.
pub fn token(switchboard: &Switchboard) -> String {
    let lasts = match (&switchboard.token_expires, switchboard.token_lasts_ms) {
        (None, _) => "how long it lasts is not known".to_owned(),
        (Some(at), None) => format!("expired at {at}"),
        (Some(_), Some(left)) => format!("good for {}", duration_ms(left)),
    };
    match &switchboard.token_error {
        None => lasts,
        Some(error) => format!("{lasts}; {error}"),
    }
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
            age_ms: Some(600_000),
            heard_ms: Some(2000),
            jobs: 1,
            endpoints: 1,
            ..Switchboard::default()
        };
        assert_eq!(
            switchboard(&one),
            "following, heard 2s ago, 1 job, 1 endpoint open"
        );
    }

    #[test]
    fn a_token_says_how_long_it_lasts() {
        let mut switchboard = Switchboard::default();
        assert_eq!(token(&switchboard), "how long it lasts is not known");
        switchboard.token_expires = Some("2026-11-28T00:00:00Z".to_owned());
        assert_eq!(token(&switchboard), "expired at 2026-11-28T00:00:00Z");
        switchboard.token_lasts_ms = Some(61_000);
        switchboard.token_error = Some("token_file /t: is empty".to_owned());
        assert_eq!(
            token(&switchboard),
            "good for 1m 01s; token_file /t: is empty"
        );
    }

    #[test]
    fn a_switchboard_that_is_away_says_why_and_for_how_long() {
        let away = Switchboard {
            state: "away".to_owned(),
            error: Some("connection refused".to_owned()),
            outage_ms: Some(12_000),
            age_ms: Some(600_000),
            heard_ms: Some(13_000),
            ..Switchboard::default()
        };
        assert_eq!(
            switchboard(&away),
            "away (connection refused) for 12s, heard 13s ago, 0 jobs, 0 endpoints open"
        );
    }
}
