//! What comes from the switchboard, and where its jobs can be reached.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::units::{count, duration_ms};

documents! {
    /// What comes from the switchboard.
    Switchboard {
        /// `following`; `starting` until all jobs were heard of once; `elsewhere` if another proxy of the
        /// region follows it; `troubled` if some answers are of no use, `away` if it cannot be asked.
        state: String,
        /// The name of the proxy that follows it elsewhere, if it is known.
        followed_by: Option<String>,
        /// What goes wrong.
        error: Option<String>,
        /// How long it has not answered as it has to, if it does not.
        outage_ms: Option<u64>,
        /// How long ago anything was last heard of it.
        heard_ms: Option<u64>,
        /// When the token in use expires, if the switchboard says so.
        token_expires: Option<String>,
        /// For how long that is; nothing if it has expired.
        token_lasts_ms: Option<u64>,
        /// Why token_file gives no token, if it does not; an earlier one is in use.
        token_error: Option<String>,
        /// When the switchboard last told of all jobs.
        complete: Option<String>,
        /// How old that is.
        age_ms: Option<u64>,
        /// Jobs known that have not ended.
        jobs: u64,
        /// Endpoints that are open.
        endpoints: u64,
        /// Endpoints from before the start that nobody has confirmed since.
        unconfirmed: u64,
        /// Which jobs the account of the token may read: `all`, `some`, or `unknown`.
        rights: String,
        /// Jobs that are missing from a listing, too many at once to be believed before another says
        /// the same.
        held_back: u64,
        /// What is not exposed, by reason.
        not_exposed: BTreeMap<String, u64>,
        /// The ports there are to allocate.
        ports: Ports,
        /// Requests to the switchboard so far, by result.
        requests: BTreeMap<String, u64>,
        /// Why allocations cannot be kept on disk, if they cannot.
        not_kept: Option<String>,
    }

    /// The ports there are to allocate.
    Ports {
        /// Belonging to a job.
        used: u64,
        /// Given to nobody else yet after their job.
        cooling: u64,
        /// Left alone because they could not be bound.
        blocked: u64,
        /// Had by proxies of the region beforehand, for jobs that come while the database is away.
        reserved: u64,
        /// To be had.
        free: u64,
        /// Endpoints that wait for one.
        waiting: u64,
    }

    /// Where jobs of the switchboard can be reached.
    Endpoints {
        /// The endpoints, by job and rule.
        endpoints: Vec<Endpoint>,
    }

    /// Where a job can be reached, or why it cannot.
    Endpoint {
        /// The id of the job.
        job: String,
        /// The rule; none where the job as a whole is not exposed.
        rule: Option<String>,
        /// The name to connect to.
        host: String,
        /// The port to connect to, unless there is none.
        port: Option<u16>,
        /// Where its sessions go; not told on the lookup listener.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        target: Option<String>,
        /// `open`, `paused` or `drained` by an operator, `waiting` for a port, or `closed`.
        state: String,
        /// Why it is not open, in a word: one of those of the log, or `finished`, `unknown` and
        /// `not_heard_of` for a job that is asked for by its id.
        reason: Option<String>,
        /// The same for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
        /// The state of the job, where that is the reason.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        job_state: Option<String>,
        /// Since when it has its port.
        since: Option<String>,
        /// In a fleet: the region of the proxy it is at.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        region: Option<String>,
        /// In a fleet: the proxy it is at.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        proxy: Option<String>,
        /// In a fleet: how long ago that proxy was heard of.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        age_ms: Option<u64>,
    }

    /// Which endpoints to list: those of all jobs, or of some.
    #[serde(deny_unknown_fields)]
    EndpointQuery {
        /// Only those of the job with this id.
        job: Option<String>,
        /// Only those of the jobs with these ids, at most 64, with commas between them.
        jobs: Option<String>,
    }
}

/// Why nothing is known of a job that is asked for by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::EnumString, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum Absence {
    /// It has ended.
    Finished,
    /// All jobs are known that the account of the token may read, and it is none of them.
    Unknown,
    /// Not all jobs are known.
    NotHeardOf,
}

impl Absence {
    /// The reason of an endpoint that is not there.
    pub fn word(self) -> &'static str {
        self.into()
    }
}

impl Endpoint {
    /// Why nothing is known of its job, if nothing is.
    pub(crate) fn absence(&self) -> Option<Absence> {
        self.reason.as_deref()?.parse().ok()
    }
}

impl Switchboard {
    /// It and what is known of its jobs, in a line.
    pub(crate) fn in_words(&self) -> String {
        let jobs = count(self.jobs, "job");
        let endpoints = count(self.endpoints, "endpoint");
        if self.state == "elsewhere" {
            let leader = self.followed_by.as_deref();
            let leader = leader.unwrap_or("nobody");
            return format!("followed by {leader}, {jobs}, {endpoints} open");
        }
        let known = match (self.heard_ms, self.age_ms) {
            (_, None) => "not all jobs heard of yet".to_owned(),
            (Some(heard), Some(_)) => format!("heard {} ago", duration_ms(heard)),
            (None, Some(age)) => format!("last heard {} ago, before the start", duration_ms(age)),
        };
        let mut state = self.state.clone();
        if let Some(error) = &self.error {
            state.push_str(&format!(" ({error})"));
        }
        if let Some(outage) = self.outage_ms {
            state.push_str(&format!(" for {}", duration_ms(outage)));
        }
        format!("{state}, {known}, {jobs}, {endpoints} open")
    }

    /// How long its token lasts.
    pub(crate) fn token_in_words(&self) -> String {
        let lasts = match (&self.token_expires, self.token_lasts_ms) {
            (None, _) => "how long it lasts is not known".to_owned(),
            (Some(at), None) => format!("expired at {at}"),
            (Some(_), Some(left)) => format!("good for {}", duration_ms(left)),
        };
        match &self.token_error {
            None => lasts,
            Some(error) => format!("{lasts}; {error}"),
        }
    }
}

impl Ports {
    pub(crate) fn in_words(&self) -> String {
        let Self {
            used,
            free,
            cooling,
            blocked,
            reserved,
            waiting,
        } = self;
        let reserved = match reserved {
            0 => String::new(),
            reserved => format!(", {reserved} reserved"),
        };
        format!(
            "{used} used, {free} free, {cooling} cooling, {blocked} blocked{reserved}, {waiting} waiting"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_switchboard_is_told_in_a_line() {
        let following = Switchboard {
            state: "following".to_owned(),
            age_ms: Some(600_000),
            heard_ms: Some(2000),
            jobs: 1,
            endpoints: 1,
            ..Switchboard::default()
        };
        let away = Switchboard {
            state: "away".to_owned(),
            error: Some("connection refused".to_owned()),
            outage_ms: Some(12_000),
            age_ms: Some(600_000),
            heard_ms: Some(13_000),
            ..Switchboard::default()
        };
        let elsewhere = Switchboard {
            state: "elsewhere".to_owned(),
            followed_by: Some("us-1-a".to_owned()),
            jobs: 2,
            ..Switchboard::default()
        };
        for (switchboard, told) in [
            (elsewhere, "followed by us-1-a, 2 jobs, 0 endpoints open"),
            // One is no plural.
            (following, "following, heard 2s ago, 1 job, 1 endpoint open"),
            (
                away,
                "away (connection refused) for 12s, heard 13s ago, 0 jobs, 0 endpoints open",
            ),
        ] {
            assert_eq!(switchboard.in_words(), told);
        }
    }

    #[test]
    fn a_token_says_how_long_it_lasts() {
        let until = "2026-11-28T00:00:00Z";
        for (expires, lasts, error, told) in [
            (None, None, None, "how long it lasts is not known"),
            (Some(until), None, None, "expired at 2026-11-28T00:00:00Z"),
            (
                Some(until),
                Some(61_000),
                Some("token_file /t: is empty"),
                "good for 1m 01s; token_file /t: is empty",
            ),
        ] {
            let switchboard = Switchboard {
                token_expires: expires.map(str::to_owned),
                token_lasts_ms: lasts,
                token_error: error.map(str::to_owned),
                ..Switchboard::default()
            };
            assert_eq!(switchboard.token_in_words(), told);
        }
    }
}
