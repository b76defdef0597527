//! Directives without a counterpart, and what to say of them.

/// Why a directive has none, and what to do instead.
pub type Said = (&'static str, &'static str);

const PROCESS: Said = (
    "it concerns HAProxy's own process",
    "the unit and [process] have what there is to set",
);
const LOG: Said = (
    "every session is logged on standard output",
    "see [log], and journalctl -u tml-proxy",
);
const STATS: Said = ("there is a socket and a page of its own", "see [admin]");
const TLS: Said = ("bytes are passed on as they are, TLS too", "");
const HTTP: Said = ("it is for HTTP", "");
const SCRIPTS: Said = ("nothing is run from within", "");

/// Of `global`.
pub fn of_global(word: &str) -> Option<Said> {
    Some(match word {
        "daemon"
        | "master-worker"
        | "user"
        | "group"
        | "uid"
        | "gid"
        | "chroot"
        | "pidfile"
        | "nbthread"
        | "cpu-map"
        | "thread-groups"
        | "thread-group"
        | "node"
        | "localpeer"
        | "nbproc"
        | "numa-cpu-mapping"
        | "description"
        | "set-dumpable"
        | "mworker-max-reloads"
        | "unix-bind"
        | "busy-polling"
        | "zero-warning"
        | "quiet"
        | "strict-limits"
        | "fd-hard-limit"
        | "ulimit-n"
        | "cpu-policy"
        | "noepoll"
        | "nopoll"
        | "nokqueue"
        | "noevports"
        | "noreuseport"
        | "nogetaddrinfo"
        | "cluster-secret"
        | "close-spread-time"
        | "grace"
        | "default-path"
        | "expose-deprecated-directives"
        | "expose-experimental-directives"
        | "unsetenv"
        | "resetenv"
        | "max-spread-checks"
        | "spread-checks"
        | "server-state-base"
        | "server-state-file"
        | "limited-quic"
        | "no-quic"
        | "wurfl-data-file"
        | "51degrees-data-file"
        | "setcap"
        | "harden.reject-privileged-ports.tcp"
        | "harden.reject-privileged-ports.quic"
        | "prealloc-fd"
        | "warn-blocked-traffic-after"
        | "stress-level"
        | "shm-stats-file"
        | "anonkey"
        | "h1-case-adjust"
        | "h1-case-adjust-file" => PROCESS,
        "log" | "log-tag" | "log-send-hostname" | "profiling.tasks" | "debug" => LOG,
        "stats" => STATS,
        "ca-base" | "crt-base" | "key-base" | "issuers-chain-path" | "maxsslconn"
        | "maxsslrate" => TLS,
        "external-check"
        | "insecure-fork-wanted"
        | "insecure-setuid-wanted"
        | "lua-load"
        | "lua-load-per-thread"
        | "lua-prepend-path" => SCRIPTS,
        word if word.starts_with("ssl-") || word.starts_with("tune.ssl") => TLS,
        word if word.starts_with("tune.") || word.starts_with("maxcomp") => PROCESS,
        _ => return None,
    })
}

/// Of a proxy or of `defaults`. With nothing to say, it is so here without being asked for.
pub fn of_proxy(word: &str) -> Option<Option<Said>> {
    Some(Some(match word {
        "log" | "log-format" | "log-format-sd" | "log-tag" | "log-steps" | "unique-id-format"
        | "unique-id-header" | "declare" | "error-log-format" => LOG,
        "stats" => STATS,
        "email-alert" => ("nothing is mailed", "alert with config/prometheus"),
        "errorfile"
        | "errorfiles"
        | "errorloc"
        | "errorloc302"
        | "errorloc303"
        | "http-request"
        | "http-response"
        | "http-after-response"
        | "http-reuse"
        | "http-send-name-header"
        | "http-error"
        | "capture"
        | "cookie"
        | "compression"
        | "monitor-uri"
        | "redirect"
        | "rspadd"
        | "reqadd"
        | "force-persist"
        | "ignore-persist"
        | "max-keep-alive-queue"
        | "hash-balance-factor"
        | "dynamic-cookie-key" => HTTP,
        "external-check" => SCRIPTS,
        "fullconn" => (
            "it counts only with minconn, and max_sessions is maxconn here",
            "",
        ),
        "bind-process"
        | "grace"
        | "load-server-state-from-file"
        | "server-state-file-name"
        | "id"
        | "guid"
        | "persist"
        | "clitcpka" => PROCESS,
        "hash-type" | "hash-preserve-affinity" => (
            "balance = \"source\" has a hash of its own, by which few clients move when a target comes or goes",
            "",
        ),
        "enabled" => return Some(None),
        _ => return None,
    }))
}

/// Of `option WORD`.
pub fn of_option(word: &str) -> Option<Option<Said>> {
    Some(Some(match word {
        // What they ask for is so here.
        "tcplog"
        | "dontlognull"
        | "splice-auto"
        | "tcp-smart-accept"
        | "tcp-smart-connect"
        | "contstats"
        | "independent-streams"
        | "independant-streams"
        | "tcpka"
        | "clitcpka"
        | "srvtcpka"
        | "checkcache"
        | "socket-stats"
        | "log-health-checks"
        | "prefer-last-server"
        | "idle-close-on-response"
        | "dontlog-normal"
        | "log-separate-errors" => return Some(None),
        "logasap" => (
            "a session has a line when it ends",
            "set log.session_openings = true",
        ),
        "nolinger" => (
            "connections are closed, not reset, where both sides closed",
            "",
        ),
        "abortonclose" => ("a client that goes while it waits is let go", ""),
        "srvtimeout" => PROCESS,
        "httplog" => LOG,
        word if word.starts_with("http")
            || word.starts_with("forwardfor")
            || word.starts_with("accept-")
            || word.starts_with("h1-")
            || word.starts_with("restrict-")
            || word.starts_with("forwarded")
            || word == "originalto"
            || word == "disable-h2-upgrade" =>
        {
            HTTP
        }
        _ => return None,
    }))
}

/// Of a section as a whole.
pub fn of_section(kind: super::sections::SectionKind) -> Option<Said> {
    use super::sections::SectionKind as Kind;
    match kind {
        Kind::Peers => Some((
            "what is known of sources is not shared between machines",
            "",
        )),
        Kind::Mailers => Some(("nothing is mailed", "alert with config/prometheus")),
        Kind::Program => Some(("no other program is started", "give it a unit of its own")),
        Kind::Ring | Kind::LogProfile | Kind::Traces => Some(LOG),
        Kind::Cache | Kind::HttpErrors | Kind::FcgiApp | Kind::Userlist => Some(HTTP),
        Kind::CrtStore | Kind::Acme => Some(TLS),
        _ => None,
    }
}
