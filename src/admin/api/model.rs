//! The documents of the API: what the endpoint writes and the command line reads.
//!
//! Durations are whole milliseconds under names in `_ms`, bytes and counts whole numbers, times
//! RFC 3339. Names are those of the session log wherever both have a thing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use crate::admin::health::{Problem, Severity};
use crate::end_reason::EndReason;

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
        /// The switchboard that jobs come from, if there is one.
        switchboard: Option<Switchboard>,
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

    /// Every mapping in force.
    Mappings {
        /// The mappings, in the order of the configuration.
        mappings: Vec<Mapping>,
    }

    /// A mapping and what was counted for it.
    Mapping {
        /// Its name.
        mapping: String,
        /// `accepting`, or what an operator did to it: `paused` or `drained`.
        state: String,
        /// Its public addresses with the targets behind them, ranges of ports as ranges.
        routes: Vec<Route>,
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
        /// Mean round trip time.
        rtt_ms: f64,
        /// Share of segments sent again, 0 to 1.
        retransmit_ratio: f64,
        /// The fastest delivery rate seen.
        delivery_bytes_per_second: u64,
    }

    /// Live sessions.
    Sessions {
        /// How many there are of those asked for.
        total: u64,
        /// The first of them in the order asked for.
        sessions: Vec<Session>,
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
        /// Where its bytes go.
        target: String,
        /// The local address towards the target, as the target's own log has it.
        local: Option<String>,
        /// `awaiting_header` of a trusted front, `connecting`, `open`, `half_closed`, `leaving` or
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
    }

    /// What comes from the switchboard.
    Switchboard {
        /// `following`; `starting` until all jobs were heard of once; `troubled` if some answers are
        /// of no use, `away` if it cannot be asked.
        state: String,
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
    }

    /// What happened lately.
    Events {
        /// The events, oldest first.
        events: Vec<Event>,
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

    /// A mapping to hold or to let go of.
    #[serde(deny_unknown_fields)]
    Hold {
        /// Its name.
        mapping: String,
        /// For a drain: how long live sessions may go on, such as `30s`; without it, for ever.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        within: Option<String>,
    }

    /// The state of a mapping.
    Held {
        /// Its name.
        mapping: String,
        /// `accepting`, `paused` or `drained`.
        state: String,
    }

    /// What a reload changed, in public addresses.
    Reloaded {
        /// Came.
        added: u64,
        /// Went.
        removed: u64,
        /// Lead elsewhere.
        retargeted: u64,
        /// Changed in policy or name only.
        repolicied: u64,
        /// Are as they were.
        unchanged: u64,
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

impl Mapping {
    /// Clients that got no session.
    pub fn refused(&self) -> u64 {
        let refusals = EndReason::ALL.iter().filter(|reason| reason.is_refusal());
        refusals
            .filter_map(|reason| self.ended.get(reason.word()))
            .sum()
    }

    /// Connections to the target that failed.
    pub fn failed(&self) -> u64 {
        self.connect_failures.values().sum()
    }
}
