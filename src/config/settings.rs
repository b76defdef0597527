//! The validated configuration, with the built-in value of every setting that a file may leave out.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};

use super::include::Pattern;
use crate::{
    client_mask::ShownBits,
    fleet::Fleet,
    limit::Limits,
    provider::switchboard::Switchboard,
    resolve::Asking,
    setting::{
        As, Auto, AutoOr, Count, FileMode, Found, Group, Json, Kind, List, Number, Off, OffIsZero,
        OwnName, PipeSize, Prefix, Refusal, SocketPath, Span, Word, Words,
    },
    table::{ListenAddr, ListenHost, MappingSpec, Origin, Policy},
};

/// Everything a configuration says.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The process as a whole.
    pub process: Process,
    /// The admin endpoint.
    pub admin: Admin,
    /// The log.
    pub log: Log,
    /// Which targets are fit at all.
    pub targets: Targets,
    /// How names are looked up.
    pub resolver: Asking,
    /// Limits of the process.
    pub limits: Limits,
    /// The policy of a mapping that says nothing else.
    pub defaults: Policy,
    /// The switchboard to take further mappings from, if there is one.
    pub switchboard: Option<Switchboard>,
    /// The proxies to tell what can be reached here, and to hear that from, if there are any.
    pub fleet: Option<Fleet>,
    /// What is written in a way of an earlier version: how it is called now, and where it stands.
    pub outdated: Vec<String>,
    /// The mappings, in the order they were asked for, ranges expanded and defaults applied.
    pub mappings: Vec<MappingSpec>,
}

/// What else belongs to a file.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub(super) struct Includes {
    /// Further files, as paths from the directory of this one; in the last part of each, * and ? stand
    /// for others. Mappings may be in all of them, a section in one.
    #[serde(with = "As::<List<Pattern>>")]
    pub include: Vec<Pattern>,
}

/// Settings of the process as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Process {
    /// Pairs of data path threads; "auto" is half the processors this process may run on.
    #[serde(with = "As::<Auto<Number<NonZeroU32, 1, 64>>>")]
    pub workers: AutoOr<NonZeroU32>,
    /// How far below the rest of the process bulk is scheduled: a nice value, 0 to 19.
    #[serde(with = "As::<Number<u8, 0, 19>>")]
    pub bulk_nice: u8,
    /// How long a stop waits for sessions; "off" is for ever.
    #[serde(with = "As::<Off<Span>>")]
    pub shutdown_timeout: Option<Duration>,
    /// Whether any session may splice.
    pub splice: bool,
    /// Bytes asked for per pipe; a power of two.
    #[serde(with = "As::<PipeSize>")]
    pub pipe_size: usize,
    /// Pipes in use or kept at most, "off" for none; "auto" follows the kernel's budget.
    #[serde(with = "As::<Auto<OffIsZero<Count<u32>>>>")]
    pub pipes: AutoOr<u32>,
}

impl Default for Process {
    fn default() -> Self {
        Self {
            workers: AutoOr::Auto,
            bulk_nice: 2,
            shutdown_timeout: Some(Duration::from_secs(30)),
            splice: true,
            pipe_size: 1 << 20,
            pipes: AutoOr::Auto,
        }
    }
}

/// Settings of the admin endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Admin {
    /// Where it listens for those who may only look, if it does.
    #[serde(with = "As::<Off<ListenAddr>>")]
    pub listen: Option<ListenAddr>,
    /// Who said so.
    #[serde(skip)]
    pub origin: Origin,
    /// The names it may be asked by, beside its addresses: in small letters, without a port.
    #[serde(with = "As::<List<OwnName>>")]
    pub hosts: Vec<String>,
    /// The unix socket for those who may change things, if there is one; "auto" is one in the
    /// directory that the service manager made for the process, if it did.
    #[serde(with = "As::<Auto<Off<SocketPath>>>")]
    pub socket: AutoOr<Option<PathBuf>>,
    /// Who may connect to it: permission bits.
    #[serde(with = "As::<FileMode>")]
    pub socket_mode: u32,
    /// The group it belongs to; "off" is that of the process.
    #[serde(with = "As::<Off<Group>>")]
    pub socket_group: Option<String>,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: Some(ListenAddr::new(ListenHost::V4(Ipv4Addr::LOCALHOST), 9422)),
            origin: Origin::BuiltIn,
            hosts: Vec::new(),
            socket: AutoOr::Auto,
            socket_mode: 0o660,
            socket_group: None,
        }
    }
}

/// Settings of the log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Log {
    /// How a line is written.
    #[serde(with = "As::<Word<LogFormat>>")]
    pub format: LogFormat,
    /// The least important lines still written.
    #[serde(with = "As::<Word<LogLevel>>")]
    pub level: LogLevel,
    /// Whether every ended session gets a line.
    pub sessions: bool,
    /// Whether a session gets a line when its target has answered, too.
    pub session_openings: bool,
    /// How often a session that goes on gets a line.
    #[serde(with = "As::<Off<Span<60_000>>>")]
    pub session_every: Option<Duration>,
    /// The syslog daemon that lines go to beside standard output: the path of its socket, or its UDP
    /// address as "udp://ADDRESS:PORT".
    #[serde(with = "As::<Off<Daemon>>")]
    pub syslog: Option<Daemon>,
    /// The facility it is told.
    #[serde(with = "As::<Word<Facility>>")]
    pub syslog_facility: Facility,
    /// The name of the program that it is told.
    #[serde(with = "As::<ProgramName>")]
    pub syslog_name: String,
    /// The bits of clients' addresses that lines show; "off" is all of them.
    #[serde(with = "As::<Off<ShownBits>>")]
    pub mask_clients: Option<ShownBits>,
    /// Refused clients that get a line of their own in each second; "off" is all of them.
    #[serde(with = "As::<Off<Number<NonZeroU32, 1, 100_000>>>")]
    pub refusals_per_second: Option<NonZeroU32>,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: LogLevel::Info,
            sessions: true,
            session_openings: false,
            session_every: None,
            syslog: None,
            syslog_facility: Facility(3),
            syslog_name: "tml-proxy".to_owned(),
            mask_clients: None,
            refusals_per_second: NonZeroU32::new(20),
        }
    }
}

/// Where a syslog daemon is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Daemon {
    /// At a unix socket.
    Socket(PathBuf),
    /// At a UDP port.
    Udp(SocketAddr),
}

impl Kind for Daemon {
    type Value = Self;

    fn read(found: Found<'_>) -> Result<Self, Refusal> {
        let addr = found.text().and_then(|text| text.strip_prefix("udp://"));
        match addr.map(str::parse) {
            Some(Ok(addr)) => Ok(Self::Udp(addr)),
            None if found.text().is_some_and(|text| text.starts_with('/')) => {
                SocketPath::read(found).map(Self::Socket)
            }
            _ => Err(Refusal::new("the path of a socket such as \"/dev/log\"")
                .or("an address such as \"udp://192.0.2.1:514\" or \"udp://[::1]:514\"")),
        }
    }

    fn write(value: &Self) -> Json {
        match value {
            Self::Socket(path) => path.display().to_string().into(),
            Self::Udp(addr) => format!("udp://{addr}").into(),
        }
    }

    #[cfg(test)]
    fn schema() -> Json {
        crate::setting::schema::text("^(/|udp://)")
    }
}

/// A facility of syslog, as RFC 5424 numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facility(pub u8);

impl Words for Facility {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("kern", Self(0)),
        ("user", Self(1)),
        ("mail", Self(2)),
        ("daemon", Self(3)),
        ("auth", Self(4)),
        ("syslog", Self(5)),
        ("lpr", Self(6)),
        ("news", Self(7)),
        ("uucp", Self(8)),
        ("cron", Self(9)),
        ("authpriv", Self(10)),
        ("ftp", Self(11)),
        ("local0", Self(16)),
        ("local1", Self(17)),
        ("local2", Self(18)),
        ("local3", Self(19)),
        ("local4", Self(20)),
        ("local5", Self(21)),
        ("local6", Self(22)),
        ("local7", Self(23)),
    ];
}

/// The name of a program, in a way that no syslog daemon takes apart.
struct ProgramName;

impl Kind for ProgramName {
    type Value = String;

    fn read(found: Found<'_>) -> Result<String, Refusal> {
        let fit = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        let name = found.text().filter(|name| (1..=32).contains(&name.len()));
        name.filter(|name| name.chars().all(fit))
            .map(str::to_owned)
            .ok_or_else(|| Refusal::new("1 to 32 letters, digits and any of - . _"))
    }

    fn write(value: &String) -> Json {
        value.as_str().into()
    }

    #[cfg(test)]
    fn schema() -> Json {
        crate::setting::schema::text("^[-A-Za-z0-9._]{1,32}$")
    }
}

/// A table of [`ShownBits`].
#[derive(Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct ShownBitsTable {
    /// Bits of an IPv4 address that are shown.
    #[serde(with = "As::<Number<u8, 0, 32>>")]
    ipv4: u8,
    /// Bits of an IPv6 address that are shown.
    #[serde(with = "As::<Number<u8, 0, 128>>")]
    ipv6: u8,
}

impl Kind for ShownBits {
    type Value = Self;

    const TABLES: bool = true;

    fn read(_: Found<'_>) -> Result<Self, Refusal> {
        Err(Refusal::new("a table such as { ipv4 = 24, ipv6 = 48 }"))
    }

    fn table<'de, D: Deserializer<'de>>(table: D) -> Result<Self, D::Error> {
        let ShownBitsTable { ipv4, ipv6 } = ShownBitsTable::deserialize(table)?;
        Ok(Self { ipv4, ipv6 })
    }

    fn write(value: &Self) -> Json {
        let Self { ipv4, ipv6 } = *value;
        serde_json::json!(ShownBitsTable { ipv4, ipv6 })
    }

    #[cfg(test)]
    fn schema() -> Json {
        crate::setting::schema::table::<ShownBitsTable>()
    }
}

/// What every target has to satisfy, whatever its mapping says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Targets {
    /// Prefixes of which one must contain a target; none means that any target is fit.
    #[serde(with = "As::<List<Prefix>>")]
    pub allow: Vec<IpNet>,
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Words for LogFormat {
    const WORDS: &'static [(&'static str, Self)] = &[("text", Self::Text), ("json", Self::Json)];
}

/// How important a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Something failed.
    Error,
    /// Something is about to.
    Warn,
    /// What an operator wants to know.
    Info,
    /// What a developer wants to know.
    Debug,
    /// Everything.
    Trace,
}

impl Words for LogLevel {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];
}

impl From<tracing::Level> for LogLevel {
    fn from(level: tracing::Level) -> Self {
        match level {
            tracing::Level::ERROR => Self::Error,
            tracing::Level::WARN => Self::Warn,
            tracing::Level::INFO => Self::Info,
            tracing::Level::DEBUG => Self::Debug,
            tracing::Level::TRACE => Self::Trace,
        }
    }
}

impl From<LogLevel> for tracing::Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

/// A word that is none of those allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("allowed: {0}")]
pub(crate) struct UnknownWord(String);

/// The value that a word of the command line or of a request means.
pub(crate) fn word<T: Words>(text: &str) -> Result<T, UnknownWord> {
    let words = || T::WORDS.iter().map(|(word, _)| *word);
    T::of_word(text).ok_or_else(|| UnknownWord(words().collect::<Vec<_>>().join(", ")))
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
