//! `[[mapping]]`: one table of the file into one mapping, ranges expanded and defaults applied.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;
use serde::Deserialize;
use toml::{Spanned, de::DeValue};

use super::{
    address::{self, Listen, Listens, Target},
    prefix_files::PrefixFiles,
    reader::Block,
    sections,
    settings::Targets,
};
use crate::{
    resolve::Family,
    setting::{As, Found, Given, Json, Kind, Refusal},
    table::{ListenHost, MappingName, MappingSpec, Origin, Policy},
    target::TargetSettings,
};

/// Public addresses that a file may ask for in all. Each costs a descriptor, and far fewer are to
/// be had; a slip must not cost all memory before that is found out.
pub(super) const MOST_ADDRESSES: usize = 1 << 18;

/// Targets that a mapping may have: each is looked at for every session.
pub(super) const MOST_TARGETS: usize = 256;

/// What makes a mapping, beside the keys of its policy.
#[derive(Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub(super) struct Keys {
    /// What it is called.
    #[serde(with = "As::<Given<Name>>")]
    name: Option<MappingName>,
    /// Where clients connect: a port, an address and a port, a range of ports, or a list of these.
    #[serde(with = "As::<Given<Listens>>")]
    listen: Option<Vec<Listen>>,
    /// Where their bytes go: an IP address or a name and a port, or a range of ports; a table with that as its
    /// `address` and what goes with it; or a list of these to choose from.
    #[serde(with = "As::<Given<address::Targets>>")]
    target: Option<Vec<TargetSettings<Target>>>,
}

/// The keys that every mapping has.
pub(super) const REQUIRED: [&str; 3] = ["name", "listen", "target"];

/// Reads mappings one by one and knows those it has read.
pub(super) struct Mappings<'a> {
    targets: &'a Targets,
    defaults: &'a Arc<Policy>,
    below: Option<&'a Block<'a>>,
    prefixes: &'a PrefixFiles,
    /// The last policy that was not that of the defaults.
    last: Arc<Policy>,
    names: HashMap<MappingName, Origin>,
    addresses: usize,
}

impl<'a> Mappings<'a> {
    /// Mappings that start from `defaults`, which are those of the block `below`, and lead to
    /// addresses that `targets` has nothing against.
    pub fn new(
        targets: &'a Targets,
        defaults: &'a Arc<Policy>,
        below: Option<&'a Block<'a>>,
        prefixes: &'a PrefixFiles,
    ) -> Self {
        Self {
            targets,
            defaults,
            below,
            prefixes,
            last: Arc::clone(defaults),
            names: HashMap::new(),
            addresses: 0,
        }
    }

    /// The mapping in `node`, the `number`th of its file, unless it lacks what makes one.
    pub fn read(
        &mut self,
        number: usize,
        node: &'a Spanned<DeValue<'a>>,
        root: &Block<'a>,
    ) -> Option<MappingSpec> {
        let name = node
            .get_ref()
            .get("name")
            .and_then(|name| name.get_ref().as_str());
        let name = name.and_then(|name| Name::read(Found::Text(name)).ok());
        let called = match name {
            Some(name) => format!("mapping {name:?}: "),
            None => format!("mapping number {number}: "),
        };
        let block = root.table(node, called)?.over(self.below);
        block.require(&REQUIRED);
        let keys: Keys = block.read()?;
        let policy = match block.has_only(&REQUIRED) {
            true => Arc::clone(self.defaults),
            false => self.shared(sections::policy(&block, self.prefixes)),
        };
        let public = keys
            .listen
            .filter(|listens| self.may_listen(listens, &block));
        let targets = keys
            .target
            .filter(|targets| self.may_lead_to(targets, &block));
        if let Some(targets) = &targets {
            let mut families = families(targets);
            let has_names = targets.iter().any(|target| target.address.ip().is_none());
            check_family(&policy, &families, &block);
            if let Some(listens) = &public
                && may_be_transparent(&policy, has_names, &mut families, &block)
            {
                check_transparent(&policy, listens, &families, &block);
            }
        }
        let name = keys.name.inspect(|name| self.check_name(name, &block));
        let origin = block.origin("listen");
        let pairs = public.zip(targets).and_then(|(listens, targets)| {
            let pairs = address::pair(&listens, &targets, policy.check.is_some());
            pairs
                .map_err(|unpaired| target_contradicts(unpaired.target, unpaired.why, &block))
                .ok()
        });
        block.finish();
        Some(MappingSpec {
            name: name?,
            pairs: pairs?.into(),
            policy,
            origin,
        })
    }

    /// The policy, shared with the defaults or with the mapping before if they say the same.
    fn shared(&mut self, policy: Policy) -> Arc<Policy> {
        if policy == **self.defaults {
            return Arc::clone(self.defaults);
        }
        if policy != *self.last {
            self.last = Arc::new(policy);
        }
        Arc::clone(&self.last)
    }

    fn check_name(&mut self, name: &MappingName, block: &Block<'_>) {
        let origin = block.origin("name");
        let first = self
            .names
            .entry(name.clone())
            .or_insert_with(|| origin.clone());
        if *first != origin {
            block.contradicts(&["name"], format!("already used at {first}"));
        }
        if name.as_str().starts_with(MappingName::OF_JOBS) {
            let reserved = MappingName::OF_JOBS;
            let why =
                format!("names that begin with {reserved:?} are those of a switchboard's jobs");
            block.contradicts(&["name"], why);
        }
    }

    /// Whether there are public addresses, and no more than fit with those before.
    fn may_listen(&mut self, listens: &[Listen], block: &Block<'_>) -> bool {
        if listens.is_empty() {
            block.refuse(&["listen"], "at least one public address");
            return false;
        }
        let before = self.addresses;
        self.addresses += listens.iter().map(Listen::count).sum::<usize>();
        let sum = self.addresses;
        if before <= MOST_ADDRESSES && sum > MOST_ADDRESSES {
            let why = format!(
                "makes {sum} public addresses up to here, at most {MOST_ADDRESSES} are allowed"
            );
            block.contradicts(&["listen"], why);
        }
        sum <= MOST_ADDRESSES
    }

    /// Whether there are targets, each one once, and all where they may be.
    fn may_lead_to(&self, targets: &[TargetSettings<Target>], block: &Block<'_>) -> bool {
        if targets.is_empty() {
            block.refuse(&["target"], "at least one target");
            return false;
        }
        if targets.len() > MOST_TARGETS {
            let why = format!(
                "there are {} targets, at most {MOST_TARGETS} are allowed",
                targets.len()
            );
            block.contradicts(&["target"], why);
            return false;
        }
        let mut fit = true;
        for (index, target) in targets.iter().enumerate() {
            fit &= self.may_have(index, &target.address, block);
            let mut before = targets[..index].iter();
            if let Some(first) = before.position(|other| other.address.meets(&target.address)) {
                let why = format!("leads to the same place as item {}", first + 1);
                target_contradicts(index, why, block);
                fit = false;
            }
        }
        let backups = targets.iter().filter(|target| target.backup).count();
        if backups == targets.len() {
            let why = "every target is a backup: at least one must not be";
            block.contradicts(&["target"], why);
            fit = false;
        }
        fit
    }

    /// Whether a target may be where it is. Where a name is, shows when it is looked up.
    fn may_have(&self, index: usize, target: &Target, block: &Block<'_>) -> bool {
        let Some(ip) = target.ip() else {
            return true;
        };
        let allow = &self.targets.allow;
        let allowed = allow.is_empty() || allow.iter().any(|net| net.contains(&ip));
        if !allowed {
            let nets = format!("an address in {} (targets.allow)", some_of(allow));
            match is_list(block) {
                false => block.refuse(&["target"], &nets),
                true => {
                    let why = format!("found {ip}, allowed: {nets}");
                    target_contradicts(index, why, block);
                }
            }
        }
        allowed
    }
}

/// Whether several targets may be given.
fn is_list(block: &Block<'_>) -> bool {
    block.value("target").is_some_and(DeValue::is_array)
}

/// Notes that a target does not go together with something else.
fn target_contradicts(index: usize, why: String, block: &Block<'_>) {
    match is_list(block) {
        true => block.item_contradicts("target", index, why),
        false => block.contradicts(&["target"], why),
    }
}

/// One target of each family there is.
fn families(targets: &[TargetSettings<Target>]) -> Vec<IpAddr> {
    let mut met = HashSet::new();
    let ips = targets.iter().filter_map(|target| target.address.ip());
    ips.filter(|ip| met.insert(ip.is_ipv4())).collect()
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

/// What a name looks like.
pub(super) const NAME: &str = "1 to 64 letters, digits and any of - _ . : / @";

/// The name of a mapping.
struct Name;

impl Kind for Name {
    type Value = MappingName;

    fn read(found: Found<'_>) -> Result<MappingName, Refusal> {
        let fit = |c: char| c.is_ascii_alphanumeric() || "-_.:/@".contains(c);
        let name = found.text().filter(|name| (1..=64).contains(&name.len()));
        name.filter(|name| name.chars().all(fit))
            .map(MappingName::new)
            .ok_or_else(|| Refusal::new(NAME))
    }

    fn write(value: &MappingName) -> Json {
        value.as_str().into()
    }

    #[cfg(test)]
    fn schema() -> Json {
        crate::setting::schema::text("^[-A-Za-z0-9_.:/@]{1,64}$")
    }
}

/// Adds the family of names to those of addresses, unless that is not known.
fn may_be_transparent(
    policy: &Policy,
    has_names: bool,
    families: &mut Vec<IpAddr>,
    block: &Block<'_>,
) -> bool {
    let of_names: IpAddr = match policy.family {
        _ if !policy.transparent || !has_names => return true,
        Family::Ipv4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::Ipv6 => Ipv6Addr::UNSPECIFIED.into(),
        Family::Both | Family::PreferIpv4 | Family::PreferIpv6 => {
            let why = "transparent needs clients of the target's family, and a name may have addresses \
                       of both: set family to \"ipv4\" or \"ipv6\"";
            block.contradicts(&[given("transparent", block)], why);
            return false;
        }
    };
    if families.iter().all(|ip| ip.is_ipv4() != of_names.is_ipv4()) {
        families.push(of_names);
    }
    true
}

/// A client's address can only be that of a connection to a target of its family.
fn check_transparent(policy: &Policy, listens: &[Listen], targets: &[IpAddr], block: &Block<'_>) {
    let at = [given("transparent", block)];
    if !policy.transparent {
        return;
    }
    if let Some(bind) = policy.bind {
        block.contradicts(
            &at,
            format!("transparent connects from the client's address and bind from {bind}"),
        );
    }
    let [target] = targets else {
        let why = "transparent needs clients of the target's family, and there are targets of both";
        block.contradicts(&at, why);
        return;
    };
    // Behind a front, clients have whatever address it states.
    let other = listens.iter().find(|listen| match listen.host() {
        ListenHost::Any => true,
        ListenHost::V4(_) => !target.is_ipv4(),
        ListenHost::V6(_) => target.is_ipv4(),
    });
    if policy.accept_proxy.is_empty() && other.is_some() {
        let (family, any) = match target.is_ipv4() {
            true => ("IPv4", "0.0.0.0"),
            false => ("IPv6", "[::]"),
        };
        block.contradicts(&at, format!(
            "transparent needs clients of the target's family, {family}: listen on \"{any}:PORT\" or on such an address"
        ));
    }
}

/// A source address of one family cannot connect to a target of the other.
fn check_family(policy: &Policy, targets: &[IpAddr], block: &Block<'_>) {
    let family = |is_ipv4| if is_ipv4 { "IPv4" } else { "IPv6" };
    let Some(bind) = policy.bind else { return };
    let at = [given("bind", block)];
    if let Some(target) = targets.iter().find(|ip| ip.is_ipv4() != bind.is_ipv4()) {
        block.contradicts(
            &at,
            format!(
                "bind {bind} is {} and target {target} is {}",
                family(bind.is_ipv4()),
                family(target.is_ipv4()),
            ),
        );
    }
}

/// The key that a contradiction with the target is about: `key`, unless it stands in the defaults.
fn given(key: &'static str, block: &Block<'_>) -> &'static str {
    block.value(key).map_or("target", |_| key)
}
