//! Every metric there is: its name, kind, labels and meaning, and how to count with it.
//!
//! What is counted or measured outside the data path, but for histograms, goes through the `metrics`
//! facade to a [`recorder`]. What belongs to a mapping is counted on the data path ([`MappingStats`]) and
//! written from the table in force. The documentation's table is made of these definitions.
//!
//! [`recorder`]: super::recorder
//! [`MappingStats`]: super::MappingStats

use std::time::Duration;

use super::{Buckets, recorder};
use Kind::{Counter, Gauge, Histogram};
use metrics::{IntoF64, Key, Label, Level, Metadata, Recorder, with_recorder};

/// What the values of a metric mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Kind {
    /// Only goes up while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations counted by the smallest of these bounds that is not exceeded, their sum and count.
    Histogram(&'static [Duration]),
}

impl Kind {
    /// The kind as the exposition formats call it.
    pub fn word(self) -> &'static str {
        self.into()
    }
}

/// The definition of a metric.
#[derive(Debug)]
pub struct Metric {
    /// Its name; counters end in `_total`.
    pub name: &'static str,
    /// What its values mean.
    pub kind: Kind,
    /// Its labels, in the order in which values are given.
    pub labels: &'static [&'static str],
    /// One line for people.
    pub help: &'static str,
}

impl Metric {
    /// Its labels with their values.
    pub(crate) fn labelled<'a>(
        &self,
        values: &'a [&'a str],
    ) -> impl Iterator<Item = (&'static str, &'a str)> {
        self.labels.iter().copied().zip(values.iter().copied())
    }
}

static METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

// Values of labels are given in the order of `labels`. They are words of the program or checked names.
impl Metric {
    /// Counts `more` events.
    pub fn add(&self, values: &[&str], more: u64) {
        self.record(values, |recorder, key| {
            recorder.register_counter(key, &METADATA).increment(more);
        });
    }

    /// Tells what is counted elsewhere.
    pub fn set_total(&self, values: &[&str], total: u64) {
        self.record(values, |recorder, key| {
            recorder.register_counter(key, &METADATA).absolute(total);
        });
    }

    /// Tells the value of a gauge.
    pub fn set(&self, values: &[&str], value: impl IntoF64) {
        self.record(values, |recorder, key| {
            recorder.register_gauge(key, &METADATA).set(value);
        });
    }

    fn record(&self, values: &[&str], act: impl FnOnce(&dyn Recorder, &Key)) {
        debug_assert_eq!(values.len(), self.labels.len(), "{}", self.name);
        recorder::of_process();
        let labels = self.labelled(values);
        let labels: Vec<Label> = labels
            .map(|(label, value)| Label::new(label, value.to_owned()))
            .collect();
        let key = Key::from_parts(self.name, labels);
        with_recorder(|recorder| act(recorder, &key));
    }
}

/// Bounds in seconds, as the label `le` has them, to the microsecond.
const fn seconds<const N: usize>(numbers: [f64; N]) -> [Duration; N] {
    let mut bounds = [Duration::ZERO; N];
    let mut at = 0;
    while at < N {
        bounds[at] = Duration::from_micros((numbers[at] * 1e6 + 0.5) as u64);
        at += 1;
    }
    bounds
}

/// Bounds of the time from accepting a client to its target's answer: a target nearby takes less
/// than a millisecond, one that lost its first packet a second more than usual.
pub(crate) const CONNECT_BOUNDS: [Duration; 12] = seconds([
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
]);

/// Bounds of the length of a session: from a scanner's second to the week of a forgotten terminal.
pub(crate) const LENGTH_BOUNDS: [Duration; 8] = seconds([
    1.0,
    10.0,
    60.0,
    600.0,
    3600.0,
    6.0 * 3600.0,
    24.0 * 3600.0,
    168.0 * 3600.0,
]);

/// Bounds of the time until something is known: from a notice and one request, to a poll, to a
/// switchboard that was away.
pub(crate) const LATENCY_BOUNDS: [Duration; 12] = seconds([
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0,
]);

/// From an answer of the switchboard to an open port: a flush of the disk and a few system calls.
pub(crate) const REACHABLE_BOUNDS: [Duration; 8] =
    seconds([0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0]);

/// For the histograms of mappings.
pub(crate) static CONNECT_BUCKETS: Buckets = Buckets::new(&CONNECT_BOUNDS);
pub(crate) static LENGTH_BUCKETS: Buckets = Buckets::new(&LENGTH_BOUNDS);
/// For what is told of a switchboard.
pub(crate) static LATENCY_BUCKETS: Buckets = Buckets::new(&LATENCY_BOUNDS);
pub(crate) static REACHABLE_BUCKETS: Buckets = Buckets::new(&REACHABLE_BOUNDS);

/// Defines each metric, and the list of all.
macro_rules! metrics {
    ($($constant:ident: $kind:expr, $name:literal, [$($label:literal),*], $help:literal;)+) => {
        $(
            #[doc = concat!("`", $name, "`")]
            pub(crate) static $constant: Metric = Metric {
                name: $name,
                kind: $kind,
                labels: &[$($label),*],
                help: $help,
            };
        )+

        /// Every metric.
        pub static ALL: &[&Metric] = &[$(&$constant),+];
    };
}

metrics! {
    SESSIONS_OPEN: Gauge, "tml_proxy_sessions_open", ["mapping"], "Sessions open now";
    SESSIONS_OPENED: Counter, "tml_proxy_sessions_opened_total", ["mapping"], "Sessions opened";
    SESSIONS_ENDED: Counter, "tml_proxy_sessions_ended_total", ["mapping", "reason"], "Sessions that ended or were refused, by reason; a reason appears when it first occurs";
    REFUSALS: Counter, "tml_proxy_refusals_total", ["mapping", "cause"], "Clients that got no session, by cause; they are in sessions_ended too";
    BYTES: Counter, "tml_proxy_bytes_total", ["mapping", "direction"], "Bytes passed on: up to the target, down to the client";
    UNDELIVERED: Counter, "tml_proxy_undelivered_bytes_total", ["mapping", "direction"], "Bytes of those that were not acknowledged when their session was cut; appears with the first";
    BANDWIDTH_PAUSES: Counter, "tml_proxy_bandwidth_pauses_total", ["mapping"], "Times a session had bytes to move and waited for its limit of bandwidth; appears with the first";
    CONNECT_FAILURES: Counter, "tml_proxy_connect_failures_total", ["mapping", "cause"], "Connections to the target that did not come about, by cause";
    CONNECT_LATENCY: Histogram(&CONNECT_BOUNDS), "tml_proxy_connect_latency_seconds", ["mapping"], "Time from accepting a client to its target's answer; appears with the first answer";
    SESSION_LENGTH: Histogram(&LENGTH_BOUNDS), "tml_proxy_session_length_seconds", ["mapping"], "Time from accepting a client to the end of its session; appears with the first end";
    TARGET_RTT: Gauge, "tml_proxy_target_rtt_seconds", ["mapping"], "Smoothed round trip time to the target, mean over the live sessions last sampled: where little is sent it is mostly how long targets wait before they acknowledge";
    TARGET_RTT_MIN: Gauge, "tml_proxy_target_rtt_min_seconds", ["mapping"], "Least round trip time to the target of the last five minutes (net.ipv4.tcp_min_rtt_wlen), over the live sessions last sampled: how far away it is";
    TARGET_RETRANSMITS: Gauge, "tml_proxy_target_retransmit_ratio", ["mapping"], "Share of the segments to the target that were sent again, over the live sessions last sampled";
    TARGET_DELIVERY: Gauge, "tml_proxy_target_delivery_rate_bytes_per_second", ["mapping"], "Fastest delivery rate to the target among the live sessions last sampled";
    TARGET_SAMPLED: Gauge, "tml_proxy_target_sampled_sessions", ["mapping"], "Live sessions in the last sample of the way to the target";
    TARGET_SESSIONS: Gauge, "tml_proxy_target_sessions", ["mapping", "target"], "Sessions at each of several targets, those included that are being connected; this and the next two are there where a mapping has a choice, for 256 of its targets at most";
    TARGET_OPENED: Counter, "tml_proxy_target_sessions_opened_total", ["mapping", "target"], "Sessions led to each of several targets";
    TARGET_FAILURES: Counter, "tml_proxy_target_connect_failures_total", ["mapping", "target"], "Connections to each of several targets that did not come about";
    TARGET_UP: Gauge, "tml_proxy_target_up", ["mapping", "target"], "Whether sessions are led to a target: 0 while its checks fail; there like those before";
    TARGET_CHECK_FAILURES: Counter, "tml_proxy_target_check_failures_total", ["mapping", "target"], "Checks of a target that failed; there for targets that are checked, 256 of a mapping at most";
    TARGETS_UP: Gauge, "tml_proxy_mapping_targets_up", ["mapping"], "Targets that sessions are led to: those not found down, none while names lead nowhere; there where a mapping has a choice or a name";
    NAMES_FAILING: Gauge, "tml_proxy_mapping_names_failing", ["mapping"], "Names among the targets whose last lookup failed, which leaves what they led to; there where a mapping has names";
    QUEUED: Gauge, "tml_proxy_queued_clients", ["mapping"], "Clients that wait until one of several targets has room; there where a mapping has a queue";
    MAPPING_HELD: Gauge, "tml_proxy_mapping_held", ["mapping", "state"], "1 while an operator holds the mapping: paused or drained";
    BUILD_INFO: Gauge, "tml_proxy_build_info", ["version"], "The version that runs";
    ACCEPT_ERRORS: Counter, "tml_proxy_accept_errors_total", ["cause"], "Errors of accept(2): retry for lost connections, pause for want of resources or after many in a row, fatal for lost listeners";
    TASK_FAILURES: Counter, "tml_proxy_task_failures_total", ["task"], "Times a task of the control plane panicked, ended though it must not, or lost a part to a panic; it goes on or is started again";
    RELOADS: Counter, "tml_proxy_config_reloads_total", ["result"], "Reloads, by result";
    RELOAD_SUCCESS: Gauge, "tml_proxy_config_reload_success", [], "Whether the last reload, or the start, succeeded";
    RELOAD_TIME: Gauge, "tml_proxy_config_last_reload_success_timestamp_seconds", [], "When a configuration last came into force, in seconds since 1970";
    RELOAD_DURATION: Gauge, "tml_proxy_config_last_reload_duration_seconds", [], "How long the last reload took, whatever came of it";
    UPGRADES: Counter, "tml_proxy_upgrades_total", ["result"], "Upgrades to another version or build, by result; one that fails changes nothing";
    UPGRADE_PAUSE: Gauge, "tml_proxy_upgrade_pause_seconds", [], "How long sessions stood still in the last upgrade";
    MAPPINGS: Gauge, "tml_proxy_mappings", [], "Mappings in force";
    LISTENERS: Gauge, "tml_proxy_listeners", [], "Listening sockets open";
    LISTENERS_CLOSED: Gauge, "tml_proxy_listeners_closed", [], "Listening sockets that were lost to an error, or closed because they would loop, and are not open again yet";
    SESSIONS_LIMIT: Gauge, "tml_proxy_sessions_limit", [], "Sessions the process may have open";
    SOURCES_TRACKED: Gauge, "tml_proxy_sources_tracked", [], "Entries of the table in which limits per source are counted";
    SOURCES_EVICTED: Counter, "tml_proxy_sources_evicted_total", [], "Entries without a session that were forgotten to make room for others";
    CLIENTS_BANNED: Counter, "tml_proxy_clients_banned_total", [], "Times a source was banned because it kept running into its limits";
    PIPES_IN_USE: Gauge, "tml_proxy_pipes_in_use", [], "Pipes lent to sessions";
    PIPES_FREE: Gauge, "tml_proxy_pipes_free", [], "Pipes kept for the next session";
    PIPES_LIMIT: Gauge, "tml_proxy_pipes_limit", [], "Pipes there may be";
    PIPES_DENIED: Counter, "tml_proxy_pipes_denied_total", [], "Times a session asked for a pipe and copied for want of one";
    SPLICED: Counter, "tml_proxy_spliced_bytes_total", [], "Bytes of ended sessions that were spliced";
    COPIED: Counter, "tml_proxy_copied_bytes_total", [], "Bytes of ended sessions that were copied";
    SYSLOG_LOST: Counter, "tml_proxy_syslog_lost_total", [], "Lines of the log that did not reach the syslog daemon of log.syslog, as far as that is known";
    LOG_DROPPED: Counter, "tml_proxy_log_dropped_total", [], "Lines of the log lost because whoever reads it is too slow, or could not be written";
    LOG_SAMPLED: Counter, "tml_proxy_session_log_sampled_total", [], "Refusals without a log line of their own because there were too many at once";
    SWITCHBOARD_CONTACT: Gauge, "tml_proxy_switchboard_contact", ["state"], "1 for how the switchboard is doing: starting, following, elsewhere (another proxy of the region follows it), troubled or away; this and the gauges that follow are there with [switchboard] only, and what was counted stays";
    SWITCHBOARD_HEARD: Gauge, "tml_proxy_switchboard_heard_age_seconds", [], "Time since anything was last heard of the switchboard; appears with the first time";
    SWITCHBOARD_AGE: Gauge, "tml_proxy_switchboard_knowledge_age_seconds", [], "Time since all jobs were last heard of; appears with the first time";
    SWITCHBOARD_RIGHTS: Gauge, "tml_proxy_switchboard_rights", ["jobs"], "1 for the jobs that the account of the token may read: all, some or unknown";
    SWITCHBOARD_HELD_BACK: Gauge, "tml_proxy_switchboard_jobs_held_back", [], "Jobs missing from a listing, too many at once to be believed before another says the same";
    SWITCHBOARD_TOKEN: Gauge, "tml_proxy_switchboard_token_expiration_timestamp_seconds", [], "When the token for the switchboard expires, in seconds since 1970; absent where the switchboard does not say";
    SWITCHBOARD_REQUESTS: Counter, "tml_proxy_switchboard_requests_total", ["request", "result"], "Requests to the switchboard, by what was asked for and what came of it";
    SWITCHBOARD_FAILING: Gauge, "tml_proxy_switchboard_failing", ["result"], "Kinds of requests that fail so right now; 0 is left out";
    SWITCHBOARD_WATCHES: Gauge, "tml_proxy_switchboard_watches", ["purpose"], "Watches open";
    SWITCHBOARD_WATCH_CONNECTIONS: Gauge, "tml_proxy_switchboard_watch_connections", [], "Connections that watches are on";
    SWITCHBOARD_WATCH_ENDS: Counter, "tml_proxy_switchboard_watch_ends_total", ["cause"], "Watches that ended, by cause";
    SWITCHBOARD_NOTICES: Counter, "tml_proxy_switchboard_notices_total", [], "Changes that watches gave notice of";
    SWITCHBOARD_LEFT_OUT: Counter, "tml_proxy_switchboard_left_out_total", ["what"], "What could not be read or was too much: rows, particulars, jobs";
    SWITCHBOARD_OVERWRITTEN: Counter, "tml_proxy_switchboard_annotations_overwritten_total", [], "Annotations of this proxy that somebody else changed";
    SWITCHBOARD_NEW_JOB: Histogram(&LATENCY_BOUNDS), "tml_proxy_switchboard_new_job_seconds", [], "From a new job's first row in a listing to its being known";
    SWITCHBOARD_CHANGE: Histogram(&LATENCY_BOUNDS), "tml_proxy_switchboard_change_seconds", [], "From a watch's notice to the change being known";
    SWITCHBOARD_REACHABLE: Histogram(&REACHABLE_BOUNDS), "tml_proxy_switchboard_reachable_seconds", [], "From a job being known to its port being open";
    SWITCHBOARD_JOBS: Gauge, "tml_proxy_switchboard_jobs", [], "Jobs known that have not ended";
    SWITCHBOARD_ENDPOINTS: Gauge, "tml_proxy_switchboard_endpoints", [], "Ports of jobs that are open";
    SWITCHBOARD_UNCONFIRMED: Gauge, "tml_proxy_switchboard_unconfirmed_endpoints", [], "Endpoints from before the start that nobody has confirmed since";
    SWITCHBOARD_NOT_EXPOSED: Gauge, "tml_proxy_switchboard_not_exposed", ["reason"], "Jobs and endpoints that are not exposed, by reason; 0 is left out";
    SWITCHBOARD_REFUSALS: Counter, "tml_proxy_switchboard_refusals_total", ["reason"], "Times a job or an endpoint began not to be exposed, by reason";
    SWITCHBOARD_CLOSINGS: Counter, "tml_proxy_switchboard_closings_total", ["reason"], "Endpoints that were open and no longer are, by reason: ended, rule_removed, rule_unfit, or why they are not exposed";
    SWITCHBOARD_PORTS: Gauge, "tml_proxy_switchboard_ports", ["state"], "Ports to allocate, by state: used, free, cooling, blocked or reserved";
    SWITCHBOARD_WAITING: Gauge, "tml_proxy_switchboard_waiting", [], "Endpoints that wait for a port";
    SWITCHBOARD_KEPT: Counter, "tml_proxy_switchboard_state_writes_total", ["result"], "Times the allocations were kept on disk, by result";
    FLEET_CONTACT: Gauge, "tml_proxy_fleet_contact", ["state"], "1 for how it stands with the fleet's database: starting, connected, away or refused; this and the next three are there with [fleet] only";
    FLEET_HEARD: Gauge, "tml_proxy_fleet_heard_age_seconds", [], "Time since the fleet's database last answered; appears with the first time";
    FLEET_FAILURES: Counter, "tml_proxy_fleet_failures_total", [], "Times the fleet's database could not be asked, or would not have this proxy";
    FLEET_PROXIES: Gauge, "tml_proxy_fleet_proxies", ["state"], "Proxies of the fleet, this one too: up, silent, stopped or removed";
    FLEET_ROLE: Gauge, "tml_proxy_fleet_role", ["role"], "1 for what this proxy is in its region: unknown, serving, leading, alone or expired; this and the next two are there where ports are shared only";
    FLEET_LED: Gauge, "tml_proxy_fleet_region_led", [], "1 if a proxy leads the region of this one, as far as this one knows; otherwise no job gets a port";
    FLEET_GENERATION: Gauge, "tml_proxy_fleet_ports_generation", ["at"], "Generation of the region's ports, which goes up with every change: known here, and applied here";
    WORKER_CPU: Counter, "tml_proxy_worker_cpu_seconds_total", ["worker"], "Processor time of each data path thread; its rate is the share of time the thread is busy";
    WORKER_SESSIONS: Gauge, "tml_proxy_worker_sessions", ["worker"], "Sessions of each data path thread";
    PROCESS_CPU: Counter, "process_cpu_seconds_total", [], "Processor time of the process";
    PROCESS_OPEN_FDS: Gauge, "process_open_fds", [], "File descriptors open";
    PROCESS_MAX_FDS: Gauge, "process_max_fds", [], "File descriptors that may be open";
    PROCESS_RESIDENT: Gauge, "process_resident_memory_bytes", [], "Memory in use";
    PROCESS_VIRTUAL: Gauge, "process_virtual_memory_bytes", [], "Address space";
    PROCESS_THREADS: Gauge, "process_threads", [], "Threads";
    PROCESS_START: Gauge, "process_start_time_seconds", [], "When the process started, in seconds since 1970";
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/prometheus/METRICS.md");

    fn document() -> String {
        let mut text = "# Series\n\n\
            Every series of `/metrics`. This table is generated from the descriptions in\n\
            `src/telemetry/metric.rs`; a test compares them, and with `UPDATE=1` in its\n\
            environment writes the file.\n\n\
            | Series | Kind | Labels | Meaning |\n| --- | --- | --- | --- |\n"
            .to_owned();
        for metric in ALL {
            let labels: Vec<String> = metric.labels.iter().map(|l| format!("`{l}`")).collect();
            text.push_str(&format!(
                "| `{}` | {} | {} | {} |\n",
                metric.name,
                metric.kind.word(),
                labels.join(", "),
                metric.help
            ));
        }
        text.push_str(
            "\nThe values of `reason`, and of `cause` in `tml_proxy_refusals_total`, are the words of \
             the session log. A histogram has the series\n`_bucket` (with the label `le`), `_sum` and `_count`.\n",
        );
        text
    }

    #[test]
    fn the_documented_series_are_those_that_exist() {
        let expected = document();
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(DOCUMENT, &expected).expect("the document can be written");
        }
        let actual = std::fs::read_to_string(DOCUMENT).expect("the document exists");
        assert!(
            actual == expected,
            "{DOCUMENT} is out of date; UPDATE=1 renews it"
        );
    }

    #[test]
    fn names_follow_the_conventions() {
        for metric in ALL {
            let is_total = metric.name.ends_with("_total");
            assert_eq!(is_total, metric.kind == Kind::Counter, "{}", metric.name);
            assert!(!metric.help.ends_with('.'), "{}", metric.name);
            // The names of counters are told from it.
            assert!(!metric.help.contains("_total "), "{}", metric.name);
        }
    }
}
