//! The documents of the API: what the endpoint writes and the command line reads.
//!
//! Durations are whole milliseconds under names in `_ms`, bytes and counts whole numbers, times
//! RFC 3339. Names are those of the session log wherever both have a thing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use crate::table::Summary as Reloaded;
use crate::{
    end_reason::EndReason,
    units::{count, duration_ms},
};

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

    /// How it stands with the fleet that the proxy is a member of.
    FleetMembership {
        /// The name of this proxy.
        name: String,
        /// Where it is.
        region: String,
        /// `connected`; `starting` before the database was asked, `away` while it cannot be, `refused`
        /// if it will not have this proxy.
        state: String,
        /// What goes wrong.
        error: Option<String>,
        /// The server of the database that is asked.
        server: Option<String>,
        /// How long ago the database last answered.
        heard_ms: Option<u64>,
        /// Proxies that the database knows, this one too.
        proxies: u64,
        /// Those of them that were heard of lately.
        up: u64,
        /// The ports that the proxies of the region share; none if they do not.
        ports: Option<RegionPorts>,
    }

    /// The ports that the proxies of a region share, and this proxy's part in that.
    RegionPorts {
        /// `leading` if it follows the switchboard and decides, `serving` if another one does; `alone` while
        /// the database is not heard of, `expired` after fleet.lease without it; `unknown` before it was.
        role: String,
        /// The proxy that leads, if one is known to.
        leader: Option<String>,
        /// The generation of the region's ports that is known here: goes up with every change.
        generation: u64,
        /// The generation that is in force here.
        applied: u64,
    }

    /// The proxies that share a database, and the mappings of their files.
    Fleet {
        /// How it stands with this proxy; none without a fleet in the configuration.
        membership: Option<FleetMembership>,
        /// The proxies, this one too, by name.
        proxies: Vec<FleetProxy>,
        /// The regions whose proxies share the ports of jobs, by name.
        regions: Vec<FleetRegion>,
        /// What the mappings of their files lead to, but for those that listen on a loopback address.
        mappings: Vec<FleetMapping>,
    }

    /// A proxy of the fleet.
    FleetProxy {
        /// Its name.
        proxy: String,
        /// Where it is.
        region: String,
        /// `up`, `silent` if it was not heard of for 30 seconds, `stopped`, or `removed` by an operator.
        state: String,
        /// The version that runs there.
        version: String,
        /// When it was last heard of.
        seen: String,
        /// How long ago that is.
        age_ms: u64,
        /// Its sessions then.
        sessions: u64,
        /// The generation of what it tells of itself: goes up with every change.
        generation: u64,
        /// The generation that this proxy has read.
        generation_read: u64,
        /// Endpoints of jobs among that.
        endpoints: u64,
        /// What it is in the region of this proxy: `leading` or `serving`, and of this proxy everything that
        /// it can be.
        role: Option<String>,
        /// The generation of its region's ports that is in force there, if it shares them.
        ports_applied: Option<u64>,
    }

    /// A region whose proxies share the ports of jobs, as it was last heard of.
    FleetRegion {
        /// Its name.
        region: String,
        /// The proxy that leads, if one does.
        leader: Option<String>,
        /// The generation of its ports: goes up with every change.
        generation: u64,
        /// Whether its proxies have told what they serve since the database lost changes for the last time.
        /// Until then no job gets a port.
        settled: bool,
        /// Ports belonging to a job, as the leader has told.
        used: Option<u64>,
        /// Given to nobody else yet after their job.
        cooling: Option<u64>,
        /// Left alone because a proxy could not bind them.
        blocked: Option<u64>,
        /// Had by its proxies beforehand, for jobs that come while the database is away.
        reserved: Option<u64>,
        /// To be had.
        free: Option<u64>,
    }

    /// A mapping of a proxy's file.
    FleetMapping {
        /// Its name.
        mapping: String,
        /// The proxy.
        proxy: String,
        /// Where that is.
        region: String,
        /// The name to connect to.
        host: String,
        /// The port to connect to.
        port: u16,
        /// The last port, if it is a range of them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last_port: Option<u16>,
        /// Where its sessions go.
        target: String,
        /// `open`, or `paused` or `drained` by an operator.
        state: String,
        /// How long ago the proxy was heard of.
        age_ms: u64,
    }

    /// Which endpoints to list: those of all jobs, or of some.
    #[serde(deny_unknown_fields)]
    EndpointQuery {
        /// Only those of the job with this id.
        job: Option<String>,
        /// Only those of the jobs with these ids, at most 64, with commas between them.
        jobs: Option<String>,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As an operator wanted it, and worth remembering.
    Note,
    /// It will get worse, or somebody is already served less well.
    Warning,
    /// Somebody is not served.
    Error,
}

impl Severity {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
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

/// Why nothing is known of a job that is asked for by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    pub const fn word(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Unknown => "unknown",
            Self::NotHeardOf => "not_heard_of",
        }
    }
}

impl Endpoint {
    /// Why nothing is known of its job, if nothing is.
    pub(crate) fn absence(&self) -> Option<Absence> {
        let reason = self.reason.as_deref()?;
        let all = [Absence::Finished, Absence::Unknown, Absence::NotHeardOf];
        all.into_iter().find(|absence| absence.word() == reason)
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

impl FleetMembership {
    /// It in a line.
    pub(crate) fn in_words(&self) -> String {
        let Self {
            name,
            region,
            state,
            error,
            server,
            heard_ms,
            proxies,
            up,
            ports,
        } = self;
        let mut text = format!("{name} in {region}: {state}");
        match error {
            Some(error) => text.push_str(&format!(" ({error})")),
            None => text.extend(server.iter().map(|server| format!(" to {server}"))),
        }
        let heard = heard_ms.map(|heard| format!(", heard {} ago", duration_ms(heard)));
        text.push_str(heard.as_deref().unwrap_or(", not heard yet"));
        text.push_str(&format!(", {up} of {proxies} proxies up"));
        if let Some(ports) = ports {
            text.push_str(&format!("; {}", ports.in_words()));
        }
        text
    }
}

impl RegionPorts {
    /// They in a line.
    pub(crate) fn in_words(&self) -> String {
        let Self {
            role,
            leader,
            generation,
            applied,
        } = self;
        let led = match leader.as_deref() {
            _ if role != "serving" => String::new(),
            leader => format!(", led by {}", leader.unwrap_or("nobody")),
        };
        let behind = match generation.saturating_sub(*applied) {
            0 => String::new(),
            behind => format!(", {behind} behind"),
        };
        format!("shared ports: {role}{led}, generation {generation}{behind}")
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
