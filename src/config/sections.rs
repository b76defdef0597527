//! The sections of a file, from the outermost table down to the mappings.

use std::{iter, net::IpAddr, sync::Arc};

use serde::de::DeserializeOwned;
use toml::de::DeValue;

use super::{
    VERSION, each_port,
    mapping::Mappings,
    prefix_files::PrefixFiles,
    reader::Block,
    settings::{Admin, Config},
};
use crate::{
    fleet::Fleet,
    limit::{Limits, SessionLimits},
    provider::switchboard::{
        Switchboard, expose::fit_for_any, follow::FollowSettings, publish::AnnotationKey,
    },
    table::{Policy, RemovalPolicy, SourceLists, SourceRules},
    units,
};

/// The longest name of a host in `switchboard.addresses`, in bytes.
const LONGEST_HOST: usize = 256;

/// The configuration in the outermost table of a file and those of the files that it includes; none if
/// it is written for another version.
///
/// Mappings may be in any of them, a section in one.
pub(super) fn read(
    root: Block<'_>,
    included: Vec<Block<'_>>,
    prefixes: &PrefixFiles,
) -> Option<Config> {
    root.require(&["version"]);
    let files: Vec<_> = iter::once(root).chain(included).collect();
    // Where a version is another, keys may be other keys.
    let fit: Vec<_> = files.iter().map(is_of_this_version).collect();
    if fit.contains(&false) {
        return None;
    }
    for file in files.iter().skip(1).filter(|file| file.has("include")) {
        let why = "files that are included include no others";
        file.contradicts(&["include"], why);
        file.ask("include");
    }
    let section = |key| only(&files, key);
    let defaults = section("defaults");
    let mut config = Config {
        process: settings(section("process")),
        admin: admin(section("admin")),
        log: settings(section("log")),
        targets: settings(section("targets")),
        resolver: settings(section("resolver")),
        limits: limits(section("limits")),
        defaults: (defaults.as_ref())
            .map(|block| policy(block, prefixes))
            .unwrap_or_default(),
        ..Config::default()
    };
    let of_jobs = section("switchboard");
    config.switchboard =
        of_jobs.and_then(|block| switchboard(block.over(defaults.as_ref()), prefixes));
    let of_fleet = section("fleet");
    config.fleet = of_fleet.and_then(|block| fleet(block, config.switchboard.as_ref()));
    let base = Arc::new(config.defaults.clone());
    let mut mappings = Mappings::new(&config.targets, &base, defaults.as_ref(), prefixes);
    let mut specs = Vec::new();
    for file in &files {
        let tables = file.tables("mapping", "tables, each headed [[mapping]]");
        let found = (1..).zip(tables);
        specs.extend(found.filter_map(|(number, table)| mappings.read(number, table, file)));
    }
    config.mappings = each_port::apart(specs);
    if let Some(block) = defaults {
        block.finish();
    }
    files.into_iter().for_each(Block::finish);
    Some(config)
}

/// Whether a file may be read: it says nothing else than that it is of this version.
fn is_of_this_version(file: &Block<'_>) -> bool {
    file.ask("version");
    let version = file.value("version");
    let known = matches!(version, Some(DeValue::Integer(number))
        if u32::from_str_radix(number.as_str(), number.radix()) == Ok(VERSION));
    if version.is_some() && !known {
        file.refuse(&["version"], &VERSION.to_string());
    }
    known || !version.is_some_and(DeValue::is_integer)
}

/// The section under `key`, which is in one of the files at most.
fn only<'a>(files: &[Block<'a>], key: &'static str) -> Option<Block<'a>> {
    let mut first: Option<&Block<'_>> = None;
    let mut section = None;
    for file in files {
        let found = file.section(key);
        match first {
            _ if !file.has(key) => {}
            None => {
                first = Some(file);
                section = found;
            }
            Some(first) => {
                let at = first.origin(key);
                let why = format!("is already at {at}: a section stands in one file");
                file.contradicts(&[key], why);
            }
        }
    }
    section
}

/// A section that is one struct, all of whose keys may be left out.
fn settings<T: DeserializeOwned + Default>(block: Option<Block<'_>>) -> T {
    block.map_or_else(T::default, |block| {
        let read = block.read().unwrap_or_default();
        block.finish();
        read
    })
}

fn admin(block: Option<Block<'_>>) -> Admin {
    let origin = block.as_ref().map(|block| block.origin("listen"));
    Admin {
        origin: origin.unwrap_or_default(),
        ..settings(block)
    }
}

fn limits(block: Option<Block<'_>>) -> Limits {
    let sessions = |block: &Block<'_>| block.read::<SessionLimits>().unwrap_or_default();
    Limits {
        sessions: block.as_ref().map(sessions).unwrap_or_default(),
        ..settings(block)
    }
}

/// The policy in a block that may have other keys as well.
pub(super) fn policy(block: &Block<'_>, files: &PrefixFiles) -> Policy {
    let own: Policy = block.read().unwrap_or_default();
    let SourceLists { allow, deny } = block.read().unwrap_or_default();
    let allow = files.prefixes(allow, "allow", block);
    let deny = files.prefixes(deny, "deny", block);
    let sources = SourceRules::new(allow, deny).unwrap_or_else(|conflict| {
        let given = block.value("deny").map_or("allow", |_| "deny");
        block.contradicts(&[given], conflict.to_string());
        SourceRules::default()
    });
    Policy {
        sources,
        limits: block.read().unwrap_or_default(),
        ..own
    }
}

/// The section; none if it lacks what makes one.
fn switchboard(block: Block<'_>, prefixes: &PrefixFiles) -> Option<Switchboard> {
    block.require(&[
        "url",
        "token_file",
        "public_host",
        "ports",
        "targets",
        "expose",
    ]);
    let own = block.read::<Switchboard>();
    let mut policy = policy(&block, prefixes);
    // An internal address may be somebody else's a moment later.
    for (key, slot) in [
        ("on_remove", &mut policy.on_remove),
        ("on_retarget", &mut policy.on_retarget),
    ] {
        if block.value(key).is_none() {
            *slot = RemovalPolicy::Kill;
        }
    }
    check_transparent(&policy, &block);
    let own = own.map(|own| Switchboard {
        ports_origin: block.origin("ports"),
        lookup_origin: block.origin("lookup"),
        policy: Arc::new(policy),
        ..own
    });
    if let Some(own) = &own {
        check(own, &block);
    }
    block.finish();
    own
}

/// The section; none if it lacks what makes one.
fn fleet(block: Block<'_>, switchboard: Option<&Switchboard>) -> Option<Fleet> {
    block.require(&["database", "name", "region"]);
    let own = block.read::<Fleet>();
    if let Some(own) = &own
        && own.public_host.is_none()
        && switchboard.is_none()
    {
        block.contradicts(
            &["public_host"],
            "nobody could be told where this proxy is: set the name that users connect to",
        );
    }
    block.finish();
    own
}

/// What the section itself contradicts.
fn check(own: &Switchboard, block: &Block<'_>) {
    if own.allow.is_empty() {
        let trust = "at least one prefix: what a switchboard says is not taken on trust";
        block.refuse(&["targets", "allow"], trust);
    }
    if own.expose.is_empty() {
        block.refuse(
            &["expose"],
            "at least one of tables, each headed [[switchboard.expose]]",
        );
    }
    for (index, rule) in own.expose.iter().enumerate() {
        if own.expose[..index]
            .iter()
            .any(|known| known.name == rule.name)
        {
            let twice = format!("there are two rules called {:?}", rule.name);
            block.item_contradicts("expose", index, twice);
        }
    }
    if own.states.is_empty() {
        block.refuse(&["states"], "at least one state");
    }
    let interval = FollowSettings::host_interval_of(own.poll);
    if own.host_gone.is_some_and(|allowed| allowed < interval) {
        let (poll, least) = (units::duration(own.poll), units::duration(interval));
        let why = format!(
            "hosts are looked at every {least}, three times poll ({poll}): allowed is \"keep\" or at \
             least \"{least}\""
        );
        block.contradicts(&["host_gone"], why);
    }
    for (host, address) in &own.addresses {
        check_address(host, *address, own, block);
    }
    if let (Some(key), None) = (&own.publish, own.annotation()) {
        let longest = AnnotationKey::LONGEST;
        let why = format!(
            "\"{key}\" and the name of the proxy (publish_name) have more than {longest} characters together"
        );
        block.contradicts(&["publish"], why);
    }
}

fn check_address(host: &str, address: IpAddr, own: &Switchboard, block: &Block<'_>) {
    let at = ["addresses", host];
    if !(1..=LONGEST_HOST).contains(&host.len()) {
        block.refuse(&at, "a host's name or id of 1 to 256 characters as the key");
    }
    if let Err(reason) = fit_for_any(address) {
        let why = format!("{address} can be no job's ({})", reason.word());
        block.contradicts(&at, why);
    }
    if !own.allow.iter().any(|net| net.contains(&address)) {
        let why = format!("{address} is in no prefix of switchboard.targets.allow");
        block.contradicts(&at, why);
    }
}

/// The ports of jobs take clients of both families, and a client's address can only be that of a
/// connection to a target of its family.
fn check_transparent(policy: &Policy, block: &Block<'_>) {
    let why = match policy.bind {
        _ if !policy.transparent => return,
        Some(bind) => {
            format!("transparent connects from the client's address and bind from {bind}")
        }
        None if policy.accept_proxy.is_empty() => {
            "transparent needs clients of the target's family, and ports of jobs take both"
                .to_owned()
        }
        None => return,
    };
    let from_defaults = block.value("transparent").is_none();
    let note = if from_defaults {
        " (true in [defaults])"
    } else {
        ""
    };
    block.contradicts(&["transparent"], format!("{why}{note}"));
}
