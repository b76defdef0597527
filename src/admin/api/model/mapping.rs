//! Mappings, their targets, and what an operator does to them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{end_reason::EndReason, units::duration_ms};

documents! {
    /// Every mapping in force.
    Mappings {
        /// The mappings, in the order of the configuration.
        mappings: Vec<Mapping>,
    }

    /// Which mappings to list.
    #[serde(deny_unknown_fields)]
    MappingQuery {
        /// Only the one of this name.
        mapping: Option<String>,
    }

    /// A mapping and what was counted for it.
    Mapping {
        /// Its name.
        mapping: String,
        /// `accepting`, or what an operator did to it: `paused` or `drained`.
        state: String,
        /// If it is drained: in how long the sessions that are left then are ended, if they are.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sessions_end_in_ms: Option<u64>,
        /// Why its clients get no session, as far as is known: none of its targets is up, or the last
        /// connection to one failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failing: Option<String>,
        /// What was counted lately.
        #[serde(default)]
        rates: Rates,
        /// Its public addresses with the targets behind them, ranges of ports as ranges.
        routes: Vec<Route>,
        /// Its targets, where it has a choice; 256 at most.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        targets: Vec<Target>,
        /// Clients that wait until a target has room.
        #[serde(default)]
        queued: u64,
        /// Sessions open.
        sessions: u64,
        /// Sessions there may be, if that is limited.
        sessions_limit: Option<u64>,
        /// Sessions opened since the mapping exists.
        opened: u64,
        /// Bytes delivered to the target.
        bytes_up: u64,
        /// Bytes delivered to clients.
        bytes_down: u64,
        /// Ends and refusals so far, by reason.
        ended: BTreeMap<String, u64>,
        /// Connections to the target that failed, by cause.
        connect_failures: BTreeMap<String, u64>,
        /// What the kernel last said when a connection to the target failed.
        connect_error: Option<String>,
        /// Mean time a target took to answer.
        connect_mean_ms: Option<f64>,
        /// The network towards the target as sampled on live sessions.
        path: Option<Path>,
    }

    /// What a mapping counted per second, over the last five seconds.
    Rates {
        /// Sessions opened.
        opened_per_second: f64,
        /// Bytes delivered to the target.
        bytes_up_per_second: f64,
        /// Bytes delivered to clients.
        bytes_down_per_second: f64,
    }

    /// One of several targets of a mapping.
    Target {
        /// Its address.
        target: String,
        /// `up` or `down` as its checks find it, `unknown` without any: it is taken to be up.
        state: String,
        /// Whether it is for when no other is up.
        backup: bool,
        /// Its share of the sessions, compared to that of the others.
        weight: u64,
        /// Sessions open, those included that are being connected.
        sessions: u64,
        /// Sessions there may be, if that is limited.
        sessions_limit: Option<u64>,
        /// Sessions that were led to it.
        opened: u64,
        /// Connections to it that failed.
        connect_failures: u64,
        /// Since when its state is what it is, if it was ever another.
        #[serde(default)]
        state_since: Option<String>,
        /// Checks that failed.
        #[serde(default)]
        check_failures: u64,
        /// The last check that failed, whatever the state is now.
        #[serde(default)]
        check_failure: Option<CheckFailure>,
    }

    /// A check that failed.
    CheckFailure {
        /// When.
        at: String,
        /// Why.
        error: String,
    }

    /// Public addresses and the targets behind them.
    Route {
        /// The public address; a range of ports ends in `-` and its last one.
        listen: String,
        /// The target.
        target: String,
    }

    /// The network towards a target.
    Path {
        /// Sessions looked at.
        sessions: u64,
        /// Mean smoothed round trip time: where little is sent, mostly how long targets wait before they
        /// acknowledge.
        rtt_ms: f64,
        /// Least round trip time of the last minutes: how far away the target is.
        #[serde(default)]
        rtt_min_ms: Option<f64>,
        /// Share of segments sent again, 0 to 1.
        retransmit_ratio: f64,
        /// The fastest delivery rate seen.
        delivery_bytes_per_second: u64,
    }

    /// A mapping to pause, to drain or to resume.
    #[serde(deny_unknown_fields)]
    MappingChange {
        /// Its name.
        mapping: String,
        /// For a drain: how long live sessions may go on, such as `30s`; without it, for ever.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        within: Option<String>,
    }

    /// The state of a mapping.
    MappingState {
        /// Its name.
        mapping: String,
        /// `accepting`, `paused` or `drained`.
        state: String,
        /// Its sessions that are open.
        #[serde(default)]
        sessions: u64,
        /// If it is drained: in how long those that are left then are ended, if they are.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sessions_end_in_ms: Option<u64>,
    }
}

/// How a mapping does, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// Its clients get no session.
    Failing,
    /// One of its targets is down.
    Impaired,
    /// An operator keeps it from taking new sessions.
    Held,
    /// It serves.
    Serving,
}

impl Mapping {
    pub(crate) fn standing(&self) -> Standing {
        match (self.state.as_str(), &self.failing) {
            ("accepting", Some(_)) => Standing::Failing,
            ("accepting", None) if self.targets_down() > 0 => Standing::Impaired,
            ("accepting", None) => Standing::Serving,
            _ => Standing::Held,
        }
    }

    /// How it does, with why or for how long.
    pub(crate) fn state_in_words(&self) -> String {
        let Self {
            state,
            failing,
            sessions,
            sessions_end_in_ms,
            ..
        } = self;
        match (state.as_str(), failing, sessions_end_in_ms) {
            ("drained", _, Some(time)) if *sessions > 0 => {
                format!("drained, {sessions} left for {}", duration_ms(*time))
            }
            ("drained", _, _) => format!("drained, {sessions} left"),
            ("accepting", Some(why), _) => format!("failing: {why}"),
            ("accepting", None, _) if self.targets_down() > 0 => {
                let (down, all) = (self.targets_down(), self.targets.len());
                format!("accepting, {down} of {all} targets down")
            }
            _ => state.clone(),
        }
    }

    fn targets_down(&self) -> usize {
        let down = self.targets.iter().filter(|target| target.state == "down");
        down.count()
    }

    /// Its first public addresses, and how many others there are.
    pub(crate) fn listen(&self) -> String {
        self.first(|route| &route.listen)
    }

    /// The first of its targets, and how many others there are.
    pub(crate) fn target(&self) -> String {
        self.first(|route| &route.target)
    }

    fn first(&self, part: fn(&Route) -> &str) -> String {
        match &self.routes[..] {
            [] => String::new(),
            [only] => part(only).to_owned(),
            [first, others @ ..] => format!("{} +{}", part(first), others.len()),
        }
    }

    /// Clients that got no session.
    pub(crate) fn refused(&self) -> u64 {
        let refusals = EndReason::ALL.iter().filter(|reason| reason.is_refusal());
        refusals
            .filter_map(|reason| self.ended.get(reason.word()))
            .sum()
    }

    /// Connections to the target that failed.
    pub(crate) fn failed(&self) -> u64 {
        self.connect_failures.values().sum()
    }
}
