//! The sections of a file, from the outermost table down to the mappings.

use std::{net::IpAddr, sync::Arc};

use serde::de::DeserializeOwned;
use toml::de::DeValue;

use super::{
    VERSION, each_port,
    mapping::Mappings,
    reader::Block,
    settings::{Admin, Config},
};
use crate::{
    limit::{Limits, SessionLimits},
    provider::switchboard::{
        Switchboard, expose::fit_for_any, follow::FollowSettings, publish::AnnotationKey,
    },
    table::{Policy, RemovalPolicy, SourceRules},
    units,
};

/// The longest name of a host in `switchboard.addresses`, in bytes.
const LONGEST_HOST: usize = 256;

/// The configuration in the outermost table; none if it is written for another version.
pub(super) fn read(root: Block<'_>) -> Option<Config> {
    let version = root.value("version");
    root.require(&["version"]);
    let known = matches!(version, Some(DeValue::Integer(number))
        if u32::from_str_radix(number.as_str(), number.radix()) == Ok(VERSION));
    if version.is_some() && !known {
        root.refuse(&["version"], &VERSION.to_string());
        if version.is_some_and(DeValue::is_integer) {
            // Its keys may be other keys.
            return None;
        }
    }
    root.ask("version");
    let defaults = root.section("defaults");
    let mut config = Config {
        process: section(root.section("process")),
        admin: admin(root.section("admin")),
        log: section(root.section("log")),
        targets: section(root.section("targets")),
        limits: limits(root.section("limits")),
        defaults: defaults.as_ref().map(policy).unwrap_or_default(),
        ..Config::default()
    };
    let of_jobs = root.section("switchboard");
    config.switchboard = of_jobs.and_then(|block| switchboard(block.over(defaults.as_ref())));
    let base = Arc::new(config.defaults.clone());
    let mut mappings = Mappings::new(&config.targets, &base, defaults.as_ref());
    let tables = root.tables("mapping", "tables, each headed [[mapping]]");
    let specs = (1..).zip(tables);
    let specs = specs.filter_map(|(number, table)| mappings.read(number, table, &root));
    config.mappings = each_port::apart(specs.collect());
    if let Some(block) = defaults {
        block.finish();
    }
    root.finish();
    Some(config)
}

/// A section that is one struct, all of whose keys may be left out.
fn section<T: DeserializeOwned + Default>(block: Option<Block<'_>>) -> T {
    block.map_or_else(T::default, |block| {
        let settings = block.read().unwrap_or_default();
        block.finish();
        settings
    })
}

fn admin(block: Option<Block<'_>>) -> Admin {
    let origin = block.as_ref().map(|block| block.origin("listen"));
    Admin {
        origin: origin.unwrap_or_default(),
        ..section(block)
    }
}

fn limits(block: Option<Block<'_>>) -> Limits {
    let sessions = |block: &Block<'_>| block.read::<SessionLimits>().unwrap_or_default();
    Limits {
        sessions: block.as_ref().map(sessions).unwrap_or_default(),
        ..section(block)
    }
}

/// The policy in a block that may have other keys as well.
pub(super) fn policy(block: &Block<'_>) -> Policy {
    let own: Policy = block.read().unwrap_or_default();
    let rules: SourceRules = block.read().unwrap_or_default();
    let (allow, deny) = (rules.allow().to_vec(), rules.deny().to_vec());
    let sources = SourceRules::new(allow, deny).unwrap_or_else(|conflict| {
        let given = block.value("deny").map_or("allow", |_| "deny");
        block.contradicts(&[given], conflict.to_string());
        rules
    });
    Policy {
        sources,
        limits: block.read().unwrap_or_default(),
        ..own
    }
}

/// The section; none if it lacks what makes one.
fn switchboard(block: Block<'_>) -> Option<Switchboard> {
    block.require(&[
        "url",
        "token_file",
        "public_host",
        "ports",
        "targets",
        "expose",
    ]);
    let own = block.read::<Switchboard>();
    let mut policy = policy(&block);
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
