//! Live sessions, and which of them to list or to end.

use serde::{Deserialize, Serialize};

documents! {
    /// Live sessions.
    Sessions {
        /// How many there are of those asked for.
        total: u64,
        /// The first of them in the order asked for.
        sessions: Vec<Session>,
    }

    /// Which sessions to list, and in which order.
    #[serde(deny_unknown_fields)]
    SessionQuery {
        /// Only the one with this number.
        session: Option<u64>,
        /// Only those of this mapping.
        mapping: Option<String>,
        /// Only those of the job with this id.
        job: Option<String>,
        /// Only those whose client has this address or is in this prefix.
        source: Option<String>,
        /// What comes first.
        #[serde(default)]
        sort: Sort,
        /// How many to list; 1000 unless given.
        limit: Option<usize>,
    }

    /// A live session.
    Session {
        /// Its number in this run of the proxy.
        session: u64,
        /// Its mapping.
        mapping: String,
        /// Who connected.
        client: String,
        /// The trusted front that passed the client on, if one did.
        front: Option<String>,
        /// Where.
        listen: String,
        /// Where its bytes go; empty while none of several targets is chosen.
        target: String,
        /// Attempts to connect so far.
        #[serde(default)]
        attempts: u64,
        /// The local address towards the target, as the target's own log has it.
        local: Option<String>,
        /// `awaiting_header` of a trusted front, `queued` for a target, `connecting`, `open`, `half_closed`, `leaving` or
        /// `ending`.
        stage: String,
        /// Bytes delivered to the target.
        bytes_up: u64,
        /// Bytes delivered to the client.
        bytes_down: u64,
        /// Since it was accepted.
        duration_ms: u64,
        /// From accept to the target's answer.
        connect_ms: Option<u64>,
        /// Since a byte last moved.
        quiet_ms: u64,
        /// Whether it moves bulk through a pipe.
        splices: bool,
        /// Through how many upgrades of the proxy it went.
        upgrades: u64,
    }

    /// Which sessions to end. At least one condition, or all of them.
    #[serde(deny_unknown_fields)]
    Kill {
        /// The one with this number.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<u64>,
        /// Those of this mapping.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mapping: Option<String>,
        /// Those of the job with this id.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        job: Option<String>,
        /// Those whose client has this address or is in this prefix.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<String>,
        /// Every session there is.
        #[serde(default)]
        all: bool,
    }

    /// Sessions that were told to end.
    Killed {
        /// How many.
        sessions: u64,
    }
}

/// An order of sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, clap::ValueEnum)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Sort {
    /// The oldest.
    #[default]
    Age,
    /// Those that moved most bytes.
    Bytes,
    /// Those that have been silent for longest.
    Quiet,
    /// By address of the client.
    Client,
    /// By name of the mapping.
    Mapping,
}
