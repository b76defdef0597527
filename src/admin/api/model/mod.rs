//! The documents of the API: what the endpoint writes and the command line reads.
//!
//! Durations are whole milliseconds under names in `_ms`, bytes and counts whole numbers, times
//! RFC 3339. Names are those of the session log wherever both have a thing.

/// Derives what every document needs.
macro_rules! documents {
    ($($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* })+) => {
        $(
            #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
            #[cfg_attr(test, derive(schemars::JsonSchema))]
            $(#[$meta])*
            pub struct $name {
                $($(#[$field_meta])* pub $field: $type,)*
            }
        )+
    };
}

mod fleet;
mod mapping;
mod session;
mod switchboard;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use crate::table::Summary as Reloaded;
pub use fleet::{Fleet, FleetMapping, FleetMembership, FleetProxy, FleetRegion, RegionPorts};
pub(crate) use mapping::Standing;
pub use mapping::{
    CheckFailure, Mapping, MappingChange, MappingQuery, MappingState, Mappings, Path, Rates, Route,
    Target,
};
pub use session::{Kill, Killed, Session, SessionQuery, Sessions, Sort};
pub(crate) use switchboard::Absence;
pub use switchboard::{Endpoint, EndpointQuery, Endpoints, Ports, Switchboard};

documents! {
    /// How the proxy does as a whole.
    Status {
        /// The version that runs.
        version: String,
        /// When it started.
        started: String,
        /// How long it has been running.
        uptime_ms: u64,
        /// Whether it takes new sessions, and if not, why.
        ready: Ready,
        /// What is wrong right now, worst first.
        problems: Vec<Problem>,
        /// Mappings in force.
        mappings: u64,
        /// Listening sockets open.
        listeners: u64,
        /// Sessions open.
        sessions: u64,
        /// Sessions there may be.
        sessions_limit: u64,
        /// Sessions opened since the start.
        sessions_opened: u64,
        /// Clients that got no session since the start, by reason.
        refused: BTreeMap<String, u64>,
        /// Times a source was banned because it kept running into its limits.
        clients_banned: u64,
        /// Bytes delivered to targets since the start.
        bytes_up: u64,
        /// Bytes delivered to clients since the start.
        bytes_down: u64,
        /// The pipes that bulk is spliced through.
        pipes: Pipes,
        /// How reloads went.
        reload: Reload,
        /// How upgrades went.
        #[serde(default)]
        upgrade: Upgrades,
        /// The switchboard that jobs come from, if there is one.
        switchboard: Option<Switchboard>,
        /// The fleet that the proxy is a member of, if there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fleet: Option<FleetMembership>,
        /// What the process uses of the machine.
        process: Process,
        /// The least important log lines written.
        log_level: String,
    }

    /// Whether new sessions are taken.
    Ready {
        /// Whether they are.
        ready: bool,
        /// Why not, if not.
        reasons: Vec<String>,
    }

    /// The pipes that bulk is spliced through.
    Pipes {
        /// Lent to sessions.
        in_use: u64,
        /// Kept for the next session.
        free: u64,
        /// There may be.
        limit: u64,
        /// Times a session asked for one and copied for want of it.
        denied: u64,
    }

    /// How reloads went.
    Reload {
        /// Reloads that came into force.
        succeeded: u64,
        /// Reloads that changed nothing because something was wrong.
        failed: u64,
        /// When a configuration last came into force.
        last_success: String,
        /// How long the last one took.
        last_took_ms: u64,
        /// What was wrong with the last one, if it failed.
        last_error: Option<String>,
    }

    /// How upgrades went.
    Upgrades {
        /// Upgrades after which the new version served.
        succeeded: u64,
        /// Upgrades that changed nothing because something was wrong.
        failed: u64,
        /// What came of the last one, if there was one.
        last: Option<Upgraded>,
        /// The path of the executable that takes over unless another is named.
        #[serde(default)]
        binary: String,
    }

    /// What came of an upgrade.
    Upgraded {
        /// Its number.
        upgrade: u64,
        /// When it was over.
        at: String,
        /// The version that was there before.
        from: String,
        /// The version that was to take its place, if it said which it is.
        to: Option<String>,
        /// Sessions that went on.
        sessions: u64,
        /// How long they stood still.
        pause_ms: f64,
        /// Why it failed, if it did; nothing has changed then.
        error: Option<String>,
    }

    /// Which build of the program is to take over.
    #[serde(deny_unknown_fields)]
    Upgrade {
        /// The path of its executable; without it, the path that the running one was started from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        binary: Option<String>,
    }

    /// An upgrade that is about to happen. All connections to the admin endpoint end with it; what
    /// came of it is in the status.
    UpgradeBegun {
        /// Its number.
        upgrade: u64,
        /// The version that runs.
        from: String,
        /// The one that takes over.
        to: String,
    }

    /// What the process uses of the machine.
    Process {
        /// Its number.
        pid: u32,
        /// Memory in use.
        resident_bytes: Option<u64>,
        /// Descriptors open.
        descriptors: Option<u64>,
        /// Descriptors that may be open.
        descriptors_limit: Option<u64>,
        /// Processor time used by all threads.
        cpu_ms: Option<u64>,
    }

    /// What happened lately.
    Events {
        /// The events, oldest first.
        events: Vec<Event>,
    }

    /// Which events to list, and whether to wait for one.
    #[serde(deny_unknown_fields)]
    EventQuery {
        /// Only those after this number.
        #[serde(default)]
        after: u64,
        /// If there is none, how many seconds to wait for one, at most 30.
        #[serde(default)]
        wait: u64,
    }

    /// Something that happened.
    Event {
        /// Its number; numbers go up by one.
        number: u64,
        /// When it happened.
        at: String,
        /// `error`, `warn` or `info`.
        level: String,
        /// What happened.
        message: String,
        /// The particulars.
        fields: BTreeMap<String, String>,
    }

    /// The level of the log.
    #[serde(deny_unknown_fields)]
    Level {
        /// `error`, `warn`, `info`, `debug` or `trace`.
        level: String,
    }

    /// Why a request was not carried out.
    Failure {
        /// In words.
        error: String,
    }
}

/// How bad something is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, strum::IntoStaticStr,
)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Severity {
    /// As an operator wanted it, and worth remembering.
    Note,
    /// It will get worse, or somebody is already served less well.
    Warning,
    /// Somebody is not served.
    Error,
}

impl Severity {
    pub(crate) fn word(self) -> &'static str {
        self.into()
    }
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// What it is, and what to do.
    pub text: String,
}
