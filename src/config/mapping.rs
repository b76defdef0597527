//! `[[mapping]]`: one table of the file into one mapping, ranges expanded and defaults applied.

use std::{collections::HashMap, sync::Arc};

use ipnet::IpNet;
use serde::Deserialize;
use toml::{Spanned, de::DeValue};

use super::{
    address::{self, Listen, Listens, Target},
    reader::Block,
    sections,
    settings::Targets,
};
use crate::{
    setting::{As, Found, Given, Json, Kind, Refusal},
    table::{ListenHost, MappingName, MappingSpec, Origin, Policy},
};

/// Public addresses that a file may ask for in all. Each costs a descriptor, and far fewer are to
/// be had; a slip must not cost all memory before that is found out.
pub(super) const MOST_ADDRESSES: usize = 1 << 18;

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
    /// Where their bytes go: an IP address and a port, or a range of ports.
    #[serde(with = "As::<Given<Target>>")]
    target: Option<Target>,
}

/// The keys that every mapping has.
pub(super) const REQUIRED: [&str; 3] = ["name", "listen", "target"];

/// Reads mappings one by one and knows those it has read.
pub(super) struct Mappings<'a> {
    targets: &'a Targets,
    defaults: &'a Arc<Policy>,
    below: Option<&'a Block<'a>>,
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
    ) -> Self {
        Self {
            targets,
            defaults,
            below,
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
            false => self.shared(sections::policy(&block)),
        };
        let public = keys
            .listen
            .filter(|listens| self.may_listen(listens, &block));
        let target = keys
            .target
            .filter(|target| self.may_lead_to(target, &block));
        if let Some(target) = &target {
            check_family(&policy, target, &block);
            if let Some(listens) = &public {
                check_transparent(&policy, listens, target, &block);
            }
        }
        let name = keys.name.inspect(|name| self.check_name(name, &block));
        let origin = block.origin("listen");
        let pairs = public.zip(target).and_then(|(listens, target)| {
            let pairs = address::pair(&listens, &target);
            pairs
                .map_err(|why| block.contradicts(&["target"], why))
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

    fn may_lead_to(&self, target: &Target, block: &Block<'_>) -> bool {
        let allow = &self.targets.allow;
        let allowed = allow.is_empty() || allow.iter().any(|net| net.contains(&target.ip()));
        if !allowed {
            let nets = format!("an address in {} (targets.allow)", some_of(allow));
            block.refuse(&["target"], &nets);
        }
        allowed
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

/// A client's address can only be that of a connection to a target of its family.
fn check_transparent(policy: &Policy, listens: &[Listen], target: &Target, block: &Block<'_>) {
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
        block.contradicts(&at, format!(
            "transparent needs clients of the target's family, {family}: listen on \"{any}:PORT\" or on such an address"
        ));
    }
}

/// A source address of one family cannot connect to a target of the other.
fn check_family(policy: &Policy, target: &Target, block: &Block<'_>) {
    let family = |is_ipv4| if is_ipv4 { "IPv4" } else { "IPv6" };
    let Some(bind) = policy.bind else { return };
    let at = [given("bind", block)];
    if bind.is_ipv4() != target.ip().is_ipv4() {
        block.contradicts(
            &at,
            format!(
                "bind {bind} is {} and target {} is {}",
                family(bind.is_ipv4()),
                target.ip(),
                family(target.ip().is_ipv4()),
            ),
        );
    }
}

/// The key that a contradiction with the target is about: `key`, unless it stands in the defaults.
fn given(key: &'static str, block: &Block<'_>) -> &'static str {
    block.value(key).map_or("target", |_| key)
}
