//! [[mapping]]: one table of the file into one mapping, ranges expanded and defaults applied.

use std::{collections::HashMap, sync::Arc};

use ipnet::IpNet;
use toml::de::DeValue;

use super::{
    address::{self, Listen, Target},
    policy,
    reader::{Entry, KeyPath, Section},
    settings::Targets,
    values::{Parsed, Refusal, integer},
};
use crate::provider::switchboard::RESERVED;
use crate::table::{ListenHost, MappingName, MappingSpec, Origin, Policy};

/// Public addresses that a file may ask for in all. Each costs a descriptor, and far fewer are to
/// be had; a slip must not cost all memory before that is found out.
pub(super) const MOST_ADDRESSES: usize = 1 << 18;

/// Reads mappings one by one and knows those it has read.
pub(super) struct Mappings<'a> {
    targets: &'a Targets,
    defaults: &'a Arc<Policy>,
    names: HashMap<MappingName, Origin>,
    addresses: usize,
}

impl<'a> Mappings<'a> {
    /// Mappings that start from `defaults` and lead to addresses that `targets` has nothing
    /// against.
    pub fn new(targets: &'a Targets, defaults: &'a Arc<Policy>) -> Self {
        Self {
            targets,
            defaults,
            names: HashMap::new(),
            addresses: 0,
        }
    }

    /// The mapping in `entry`, the `number`th of its file, unless it lacks what makes one.
    pub fn read(&mut self, number: usize, entry: Entry<'_>) -> Option<MappingSpec> {
        let name = entry.value().get("name").map(|name| name.get_ref());
        let path = KeyPath::scope(match name.and_then(|name| parse_name(name).ok()) {
            Some(name) => format!("mapping {name:?}"),
            None => format!("mapping number {number}"),
        });
        let mut section = entry.renamed(path).into_section()?;
        let name = self.name(&mut section);
        let public = self.public(&mut section);
        let target = self.target(&mut section);
        let policy = policy::read(&mut section, self.defaults);
        if let Some((target, entry)) = &target {
            let bind = section.entry("bind");
            check_family(&policy, target, bind.as_ref().unwrap_or(entry));
            if let Some((listens, _)) = &public {
                let transparent = section.entry("transparent");
                check_transparent(
                    &policy,
                    listens,
                    target,
                    transparent.as_ref().unwrap_or(entry),
                );
            }
        }
        section.finish();

        let (listens, origin) = public?;
        let (target, target_entry) = target?;
        match address::pair(&listens, &target) {
            Ok(pairs) => Some(MappingSpec {
                name: name?,
                pairs: pairs.into(),
                policy: self.shared(policy),
                origin,
            }),
            Err(why) => {
                target_entry.contradicts(why);
                None
            }
        }
    }

    /// The policy, that of the defaults if it says nothing else.
    fn shared(&self, policy: Policy) -> Arc<Policy> {
        match policy == **self.defaults {
            true => Arc::clone(self.defaults),
            false => Arc::new(policy),
        }
    }

    fn name(&mut self, section: &mut Section<'_>) -> Option<MappingName> {
        let entry = section.required("name", NAME)?;
        let name = MappingName::new(entry.read(parse_name)?);
        let first = self
            .names
            .entry(name.clone())
            .or_insert_with(|| entry.origin());
        if *first != entry.origin() {
            entry.contradicts(format!("already used at {first}"));
        }
        if name.as_str().starts_with(RESERVED) {
            entry.contradicts(format!(
                "names that begin with {RESERVED:?} are those of a switchboard's jobs"
            ));
        }
        Some(name)
    }

    /// The public addresses, and where they are asked for.
    fn public(&mut self, section: &mut Section<'_>) -> Option<(Vec<Listen>, Origin)> {
        let entry = section.required("listen", address::LISTEN)?;
        let listens = if entry.value().is_array() {
            entry.list(parse_listen)?
        } else {
            vec![entry.read(parse_listen)?]
        };
        if listens.is_empty() {
            entry.refuse("at least one public address");
            return None;
        }
        let before = self.addresses;
        self.addresses += listens.iter().map(Listen::count).sum::<usize>();
        if self.addresses <= MOST_ADDRESSES {
            return Some((listens, entry.origin()));
        }
        if before <= MOST_ADDRESSES {
            let sum = self.addresses;
            entry.contradicts(format!(
                "makes {sum} public addresses up to here, at most {MOST_ADDRESSES} are allowed"
            ));
        }
        None
    }

    /// The target, and its value.
    fn target<'e>(&self, section: &mut Section<'e>) -> Option<(Target, Entry<'e>)> {
        let entry = section.required("target", address::TARGET)?;
        let target = entry.read(parse_target)?;
        let allow = &self.targets.allow;
        if !allow.is_empty() && !allow.iter().any(|net| net.contains(&target.ip())) {
            entry.refuse(format!("an address in {} (targets.allow)", some_of(allow)));
            return None;
        }
        Some((target, entry))
    }
}

/// A few prefixes in words, and how many more there are.
fn some_of(nets: &[IpNet]) -> String {
    const NAMED: usize = 10;
    let named: Vec<_> = nets.iter().take(NAMED).map(ToString::to_string).collect();
    let named = named.join(", ");
    match nets.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} or {more} more"),
    }
}

const NAME: &str = "1 to 64 letters, digits and any of - _ . : / @";

fn parse_name(value: &DeValue<'_>) -> Parsed<String> {
    let fit = |c: char| c.is_ascii_alphanumeric() || "-_.:/@".contains(c);
    value
        .as_str()
        .filter(|name| (1..=64).contains(&name.len()) && name.chars().all(fit))
        .map(str::to_owned)
        .ok_or_else(|| Refusal::new(NAME))
}

fn parse_listen(value: &DeValue<'_>) -> Parsed<Listen> {
    match value {
        DeValue::Integer(_) => Listen::on_port(integer(value)),
        DeValue::String(text) => Listen::parse(text),
        _ => Err(Refusal::new(address::LISTEN)),
    }
}

fn parse_target(value: &DeValue<'_>) -> Parsed<Target> {
    match value.as_str() {
        Some(text) => Target::parse(text),
        None => Err(Refusal::new(address::TARGET)),
    }
}

/// A client's address can only be that of a connection to a target of its family.
fn check_transparent(policy: &Policy, listens: &[Listen], target: &Target, at: &Entry<'_>) {
    if !policy.transparent {
        return;
    }
    if let Some(bind) = policy.bind {
        at.contradicts(format!(
            "transparent connects from the client's address and bind from {bind}"
        ));
    }
    // Behind a front, clients have whatever address it states.
    let other = listens.iter().find(|listen| match listen.host() {
        ListenHost::Any => true,
        ListenHost::V4(_) => !target.ip().is_ipv4(),
        ListenHost::V6(_) => target.ip().is_ipv4(),
    });
    if policy.accept_proxy.is_empty() && other.is_some() {
        let (family, any) = match target.ip().is_ipv4() {
            true => ("IPv4", "0.0.0.0"),
            false => ("IPv6", "[::]"),
        };
        at.contradicts(format!(
            "transparent needs clients of the target's family, {family}: listen on \"{any}:PORT\" or on such an address"
        ));
    }
}

/// A source address of one family cannot connect to a target of the other.
fn check_family(policy: &Policy, target: &Target, at: &Entry<'_>) {
    let family = |is_ipv4| if is_ipv4 { "IPv4" } else { "IPv6" };
    let Some(bind) = policy.bind else { return };
    if bind.is_ipv4() != target.ip().is_ipv4() {
        at.contradicts(format!(
            "bind {bind} is {} and target {} is {}",
            family(bind.is_ipv4()),
            target.ip(),
            family(target.ip().is_ipv4()),
        ));
    }
}
