//! The other way round: settings as the file would have them, for people and for JSON.
//!
//! Names are those of the file and in its order; whatever is off is called `off`.

use std::{collections::BTreeMap, fmt, num::NonZeroU32, time::Duration};

use serde::{Serialize, Serializer};

use super::{
    limits::ON_REFUSE,
    policy::PROXY_VERSIONS,
    settings::{Admin, Config, Log, Process, Targets},
    switchboard::state_word,
};
use crate::{
    auto_or::AutoOr,
    limit::{Ban, Limits, Rate, SessionLimits},
    provider::switchboard::{Condition, Rule, Switchboard},
    table::{Keepalive, Policy, RemovalPolicy},
    units,
};

/// Settings by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings(Vec<(&'static str, Setting)>);

/// The value of a setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Setting {
    /// `true` or `false`.
    Flag(bool),
    /// A number.
    Number(u64),
    /// A word, a duration, an address.
    Text(String),
    /// Any number of values.
    List(Vec<String>),
    /// Settings of their own.
    Table(Settings),
    /// Any number of such tables.
    Tables(Vec<Settings>),
    /// Values by names that the user chose.
    Named(BTreeMap<String, String>),
}

impl Settings {
    /// Each setting with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Setting)> {
        self.0.iter().map(|(name, value)| (*name, value))
    }

    /// The settings that are not the same in `other`.
    pub fn except(&self, other: &Self) -> Self {
        let same = |setting: &&(&str, Setting)| other.0.contains(setting);
        Self(self.0.iter().filter(|own| !same(own)).cloned().collect())
    }
}

impl Serialize for Settings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.iter().enumerate() {
            let before = if index == 0 { "" } else { ", " };
            write!(f, "{before}{name} = {value}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
            Self::List(items) => write!(f, "[{}]", items.join(", ")),
            Self::Table(settings) => write!(f, "{{ {settings} }}"),
            Self::Named(values) if values.is_empty() => f.write_str("{}"),
            Self::Named(values) => {
                let values = values
                    .iter()
                    .map(|(name, value)| format!("{name:?} = {value}"));
                let values: Vec<_> = values.collect();
                write!(f, "{{ {} }}", values.join(", "))
            }
            Self::Tables(tables) => {
                let tables: Vec<_> = tables.iter().map(|one| format!("{{ {one} }}")).collect();
                write!(f, "[{}]", tables.join(", "))
            }
        }
    }
}

impl Config {
    /// Every section but the mappings, by name.
    pub fn sections(&self) -> Vec<(&'static str, Settings)> {
        let mut sections = vec![
            ("process", process(&self.process)),
            ("admin", admin(&self.admin)),
            ("log", log(&self.log)),
            ("targets", targets(&self.targets)),
            ("limits", limits(self.max_sessions, &self.limits)),
            ("defaults", Settings::from(&self.defaults)),
        ];
        sections.extend(
            self.switchboard
                .as_ref()
                .map(|own| ("switchboard", switchboard(own))),
        );
        sections
    }
}

fn process(process: &Process) -> Settings {
    let pipes = match process.pipes {
        AutoOr::Value(0) => off(),
        pipes => auto_or(pipes),
    };
    Settings(vec![
        ("workers", auto_or(process.workers)),
        ("bulk_nice", Setting::Number(process.bulk_nice.into())),
        (
            "shutdown_timeout",
            off_or(process.shutdown_timeout.map(duration)),
        ),
        ("splice", Setting::Flag(process.splice)),
        ("pipe_size", size(process.pipe_size)),
        ("pipes", pipes),
    ])
}

fn admin(admin: &Admin) -> Settings {
    Settings(vec![
        ("listen", off_or(admin.listen.map(text))),
        ("hosts", Setting::List(admin.hosts.clone())),
        (
            "socket",
            match &admin.socket {
                AutoOr::Auto => text("auto"),
                AutoOr::Value(path) => off_or(path.as_ref().map(|path| text(path.display()))),
            },
        ),
        ("socket_mode", text(format!("{:04o}", admin.socket_mode))),
        (
            "socket_group",
            off_or(admin.socket_group.as_ref().map(text)),
        ),
    ])
}

fn log(log: &Log) -> Settings {
    Settings(vec![
        ("format", text(log.format)),
        ("level", text(log.level)),
        ("sessions", Setting::Flag(log.sessions)),
        ("session_openings", Setting::Flag(log.session_openings)),
        ("session_every", off_or(log.session_every.map(duration))),
        (
            "refusals_per_second",
            off_or(
                log.refusals_per_second
                    .map(|lines| Setting::Number(lines.get().into())),
            ),
        ),
    ])
}

fn targets(targets: &Targets) -> Settings {
    Settings(vec![("allow", list(&targets.allow))])
}

fn limits(max_sessions: AutoOr<NonZeroU32>, limits: &Limits) -> Settings {
    let mut settings = vec![("max_sessions", auto_or(max_sessions))];
    settings.extend(session_limits(&limits.sessions));
    settings.extend([
        (
            "source_prefix_v4",
            Setting::Number(limits.source_prefix_v4.into()),
        ),
        (
            "source_prefix_v6",
            Setting::Number(limits.source_prefix_v6.into()),
        ),
        ("penalty", off_or(limits.ban.map(penalty))),
        ("exempt", list(&limits.exempt)),
    ]);
    Settings(settings)
}

fn session_limits(limits: &SessionLimits) -> [(&'static str, Setting); 4] {
    let count = |limit: Option<u32>| off_or(limit.map(|max| Setting::Number(max.into())));
    let per_second = |limit: Option<Rate>| off_or(limit.map(|limit| rate(limit, Setting::Number)));
    [
        (
            "max_sessions_per_source",
            count(limits.max_sessions_per_source),
        ),
        ("new_sessions_per_second", per_second(limits.new_sessions)),
        (
            "new_sessions_per_second_per_source",
            per_second(limits.new_sessions_per_source),
        ),
        ("max_dialling", count(limits.max_dialling)),
    ]
}

fn rate(rate: Rate, written: impl Fn(u64) -> Setting) -> Setting {
    Setting::Table(Settings(vec![
        ("rate", written(rate.per_second.get())),
        ("burst", written(rate.burst.get())),
    ]))
}

fn bandwidth(limit: Rate) -> Setting {
    rate(limit, |bytes| size(bytes as usize))
}

fn penalty(penalty: Ban) -> Setting {
    Setting::Table(Settings(vec![
        ("after", Setting::Number(penalty.after.into())),
        ("within", duration(penalty.within)),
        ("lasts", duration(penalty.lasts)),
    ]))
}

fn switchboard(own: &Switchboard) -> Settings {
    let states: Vec<_> = own.states.iter().copied().map(state_word).collect();
    let path = |path: &std::path::PathBuf| text(path.display());
    let mut settings = vec![
        ("url", text(&own.url)),
        ("token_file", path(&own.token_file)),
        ("ca_file", off_or(own.ca_file.as_ref().map(path))),
        (
            "expose",
            Setting::Tables(own.expose.iter().map(rule).collect()),
        ),
        ("states", list(&states)),
        ("ports", text(&own.ports)),
        ("public_host", text(&own.public_host)),
        (
            "targets",
            Setting::Table(Settings(vec![("allow", list(&own.allow))])),
        ),
        (
            "addresses",
            Setting::Named(
                (own.addresses.iter())
                    .map(|(host, address)| (host.clone(), address.to_string()))
                    .collect(),
            ),
        ),
        ("cooldown", duration_or_off(own.cooldown)),
        ("max_per_job", Setting::Number(own.max_per_job.into())),
        (
            "max_total",
            off_or(own.max_total.map(|most| Setting::Number(most.into()))),
        ),
        (
            "host_gone",
            own.host_gone.map_or_else(|| text("keep"), duration),
        ),
        ("refresh", duration(own.refresh)),
        ("poll", duration(own.poll)),
        ("state_dir", path(&own.state_dir)),
        ("publish", off_or(own.publish.as_ref().map(text))),
        (
            "publish_name",
            match &own.publish_name {
                AutoOr::Auto => text("auto"),
                AutoOr::Value(name) => off_or(name.as_ref().map(text)),
            },
        ),
        (
            "publish_on_stop",
            text(if own.withdraw { "withdraw" } else { "keep" }),
        ),
        ("lookup", off_or(own.lookup.map(text))),
    ];
    settings.extend(Settings::from(&*own.policy).0);
    Settings(settings)
}

fn rule(rule: &Rule) -> Settings {
    let mut settings = vec![
        ("name", text(&rule.name)),
        ("port", Setting::Number(rule.port.into())),
    ];
    match &rule.condition {
        Condition::Always => {}
        Condition::Service(name) => settings.push(("service", text(name))),
        Condition::Protocol(name) => settings.push(("protocol", text(name))),
    }
    Settings(settings)
}

fn duration_or_off(value: Duration) -> Setting {
    off_or((!value.is_zero()).then(|| duration(value)))
}

impl From<&Policy> for Settings {
    fn from(policy: &Policy) -> Self {
        let mut settings = vec![
            ("connect_timeout", duration(policy.connect_timeout)),
            ("idle_timeout", off_or(policy.idle_timeout.map(duration))),
            (
                "half_close_timeout",
                off_or(policy.half_close_timeout.map(duration)),
            ),
            ("keepalive", off_or(policy.keepalive.map(keepalive))),
            ("user_timeout", off_or(policy.user_timeout.map(duration))),
            ("backlog", Setting::Number(policy.backlog.into())),
            ("accept_proxy", list(&policy.accept_proxy)),
            (
                "proxy_header_timeout",
                duration(policy.proxy_header_timeout),
            ),
            (
                "send_proxy",
                off_or(
                    policy
                        .send_proxy
                        .map(|version| word(version, PROXY_VERSIONS)),
                ),
            ),
            ("allow", list(policy.sources.allow())),
            ("deny", list(policy.sources.deny())),
            (
                "max_sessions",
                off_or(policy.max_sessions.map(|max| Setting::Number(max.into()))),
            ),
        ];
        settings.extend(session_limits(&policy.limits));
        settings.extend([
            ("bandwidth", off_or(policy.bandwidth.map(bandwidth))),
            (
                "bandwidth_per_source",
                off_or(policy.bandwidth_per_source.map(bandwidth)),
            ),
            ("on_refuse", word(policy.on_refuse, ON_REFUSE)),
            ("on_remove", departure(policy.on_remove)),
            ("on_retarget", departure(policy.on_retarget)),
            ("relay", text(policy.relay)),
            ("bind", off_or(policy.bind.map(text))),
            ("transparent", Setting::Flag(policy.transparent)),
            ("freebind", Setting::Flag(policy.freebind)),
            ("each_port", Setting::Flag(policy.each_port)),
        ]);
        Self(settings)
    }
}

fn keepalive(keepalive: Keepalive) -> Setting {
    Setting::Table(Settings(vec![
        ("idle", duration(keepalive.idle)),
        ("interval", duration(keepalive.interval)),
        ("count", Setting::Number(keepalive.count.into())),
    ]))
}

fn departure(departure: RemovalPolicy) -> Setting {
    match departure {
        RemovalPolicy::Keep => text("keep"),
        RemovalPolicy::Kill => text("kill"),
        RemovalPolicy::Drain(deadline) => {
            Setting::Table(Settings(vec![("drain", duration(deadline))]))
        }
    }
}

fn duration(duration: Duration) -> Setting {
    text(units::duration(duration))
}

fn size(bytes: usize) -> Setting {
    match bytes >> 10 {
        kib if kib % 1024 == 0 => text(format!("{}MiB", kib >> 10)),
        kib => text(format!("{kib}KiB")),
    }
}

fn word<T: PartialEq>(value: T, words: &[(&str, T)]) -> Setting {
    let word = words.iter().find(|(_, meaning)| *meaning == value);
    text(word.map_or("", |(word, _)| word))
}

fn text(value: impl fmt::Display) -> Setting {
    Setting::Text(value.to_string())
}

fn list(values: &[impl fmt::Display]) -> Setting {
    Setting::List(values.iter().map(ToString::to_string).collect())
}

fn off() -> Setting {
    text("off")
}

fn off_or(value: Option<Setting>) -> Setting {
    value.unwrap_or_else(off)
}

fn auto_or(value: AutoOr<impl Into<u32>>) -> Setting {
    match value {
        AutoOr::Auto => text("auto"),
        AutoOr::Value(number) => Setting::Number(number.into().into()),
    }
}
