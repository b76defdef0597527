//! Ranges of ports that are to be seen port by port: each becomes a mapping of its own.

use std::collections::BTreeMap;

use crate::table::{MappingName, MappingSpec};

/// The same mappings, those that ask for it taken apart.
pub(super) fn apart(specs: Vec<MappingSpec>) -> Vec<MappingSpec> {
    // Ten thousand mappings without any are left as they are.
    if !specs.iter().any(|spec| spec.policy.each_port) {
        return specs;
    }
    specs
        .into_iter()
        .flat_map(|spec| match spec.policy.each_port {
            true => ports_of(spec),
            false => vec![spec],
        })
        .collect()
}

/// A mapping for each port, under the name of the whole and the port; one port alone stays as it is.
/// No name in a file has a plus sign, so that none is in the way.
fn ports_of(spec: MappingSpec) -> Vec<MappingSpec> {
    let mut ports = BTreeMap::<u16, Vec<_>>::new();
    for (listen, target) in &*spec.pairs {
        ports
            .entry(listen.port())
            .or_default()
            .push((*listen, target.clone()));
    }
    if ports.len() == 1 {
        return vec![spec];
    }
    ports
        .into_iter()
        .map(|(port, pairs)| MappingSpec {
            name: MappingName::new(format!("{}+{port}", spec.name)),
            pairs: pairs.into(),
            ..spec.clone()
        })
        .collect()
}
