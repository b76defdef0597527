//! The sections of a file, from the outermost table down to the mappings.

use std::{sync::Arc, time::Duration};

use toml::de::DeValue;

use super::{
    VERSION, each_port, limits,
    mapping::Mappings,
    policy,
    reader::Section,
    settings::{Admin, Config, Log, LogFormat, LogLevel, Process, Targets},
    switchboard,
    values::{
        ANY_DURATION, LONGEST, Refusal, duration, file_mode, flag, group_name, integer, number,
        or_auto, or_off, own_listener, own_name, pipe_size, prefix, socket_path, word,
    },
};
use crate::table::{MappingSpec, Policy};

/// The configuration in the outermost table; none if it is written for another version. The mappings
/// are what `mappings` makes of them, given that table, the targets and the defaults.
pub(super) fn read<'a>(
    mut root: Section<'a>,
    mappings: impl FnOnce(&mut Section<'a>, &Targets, &Arc<Policy>) -> Vec<MappingSpec>,
) -> Option<Config> {
    let version = VERSION.to_string();
    if let Some(entry) = root.required("version", &version)
        && integer(entry.value()) != Some(VERSION)
    {
        entry.refuse(version);
        if entry.value().is_integer() {
            // Its keys may be other keys.
            return None;
        }
    }
    let mut config = Config {
        process: root.section("process").map(process).unwrap_or_default(),
        admin: root.section("admin").map(admin).unwrap_or_default(),
        log: root.section("log").map(log).unwrap_or_default(),
        targets: root.section("targets").map(targets).unwrap_or_default(),
        ..Config::default()
    };
    if let Some(section) = root.section("limits") {
        (config.max_sessions, config.limits) = limits::read_process(section);
    }
    if let Some(mut section) = root.section("defaults") {
        config.defaults = policy::read(&mut section, &config.defaults);
        section.finish();
    }
    if let Some(section) = root.section("switchboard") {
        config.switchboard = switchboard::read(section, &config.defaults);
    }
    let defaults = Arc::new(config.defaults.clone());
    config.mappings = each_port::apart(mappings(&mut root, &config.targets, &defaults));
    root.finish();
    Some(config)
}

/// The mappings in the outermost table.
pub(super) fn mappings(
    root: &mut Section<'_>,
    targets: &Targets,
    defaults: &Arc<Policy>,
) -> Vec<MappingSpec> {
    let entries = root
        .entry("mapping")
        .and_then(|entry| entry.items("tables, each headed [[mapping]]"));
    let mut mappings = Mappings::new(targets, defaults);
    (1..)
        .zip(entries.into_iter().flatten())
        .filter_map(|(number, entry)| mappings.read(number, entry))
        .collect()
}

fn process(mut section: Section<'_>) -> Process {
    let mut process = Process::default();
    section.set("workers", &mut process.workers, or_auto(number(1..=64)));
    section.set("bulk_nice", &mut process.bulk_nice, number(0..=19));
    section.set(
        "shutdown_timeout",
        &mut process.shutdown_timeout,
        or_off(duration(ANY_DURATION)),
    );
    section.set("splice", &mut process.splice, flag);
    section.set("pipe_size", &mut process.pipe_size, pipe_size);
    section.set("pipes", &mut process.pipes, or_auto(pipes));
    section.finish();
    process
}

fn pipes(value: &DeValue<'_>) -> Result<u32, Refusal> {
    or_off(number(1..=u32::MAX))(value).map(Option::unwrap_or_default)
}

fn admin(mut section: Section<'_>) -> Admin {
    let mut admin = Admin::default();
    if let Some(entry) = section.entry("listen")
        && let Some(listen) = entry.read(or_off(own_listener))
    {
        admin.listen = listen;
        admin.origin = entry.origin();
    }
    if let Some(hosts) = section.list("hosts", own_name) {
        admin.hosts = hosts;
    }
    section.set("socket", &mut admin.socket, or_auto(or_off(socket_path)));
    section.set("socket_mode", &mut admin.socket_mode, file_mode);
    section.set("socket_group", &mut admin.socket_group, or_off(group_name));
    section.finish();
    admin
}

fn log(mut section: Section<'_>) -> Log {
    let mut log = Log::default();
    section.set("format", &mut log.format, word(LogFormat::WORDS));
    section.set("level", &mut log.level, word(LogLevel::WORDS));
    section.set("sessions", &mut log.sessions, flag);
    section.set("session_openings", &mut log.session_openings, flag);
    section.set(
        "session_every",
        &mut log.session_every,
        or_off(duration(Duration::from_secs(60)..=LONGEST)),
    );
    section.set(
        "refusals_per_second",
        &mut log.refusals_per_second,
        or_off(number(1..=100_000)),
    );
    section.finish();
    log
}

fn targets(mut section: Section<'_>) -> Targets {
    let allow = section.list("allow", prefix).unwrap_or_default();
    section.finish();
    Targets { allow }
}
