//! Rules of which the first that fits decides become lists of which the longest prefix does.

use std::collections::BTreeSet;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::model::{Settings, Value};

/// Every address there is.
pub fn everybody() -> [IpNet; 2] {
    [Ipv4Net::default().into(), Ipv6Net::default().into()]
}

/// The lists `allow` and `deny` that let in whom `passes` lets in. It is asked about networks, and
/// answers for those in it who are in none of the smaller ones that are `named`.
pub fn allow_and_deny(
    named: impl IntoIterator<Item = IpNet>,
    passes: &dyn Fn(&IpNet) -> bool,
) -> (Vec<IpNet>, Vec<IpNet>) {
    let everybody = everybody();
    let mut nodes: BTreeSet<IpNet> = everybody.into_iter().collect();
    nodes.extend(named);
    let parent = |node: &IpNet| {
        let above = nodes
            .iter()
            .filter(|other| *other != node && other.contains(node));
        above.max_by_key(|other| other.prefix_len())
    };
    let mut allow = Vec::new();
    let mut deny = Vec::new();
    for node in &nodes {
        match (passes(node), parent(node).map(passes)) {
            (true, Some(false)) => allow.push(*node),
            (false, Some(true)) => deny.push(*node),
            _ => {}
        }
    }
    // As soon as somebody is allowed by name, everybody else is not.
    let others = everybody.map(|root| passes(&root));
    if !allow.is_empty() || others.contains(&false) {
        let named = everybody.into_iter().zip(others);
        allow.extend(named.filter(|(_, passes)| *passes).map(|(root, _)| root));
    }
    if allow.is_empty() && others.contains(&false) {
        deny.extend(everybody);
    }
    (allow, deny)
}

/// A network as it is written: an address alone is one of one.
pub fn written(net: &IpNet) -> String {
    match net.prefix_len() == net.max_prefix_len() {
        true => net.addr().to_string(),
        false => net.to_string(),
    }
}

/// Writes both lists, as far as there is anything in them.
pub fn set(settings: &mut Settings, (allow, deny): (Vec<IpNet>, Vec<IpNet>)) {
    for (key, list) in [("allow", allow), ("deny", deny)] {
        if !list.is_empty() {
            let list = list.iter().map(written).collect();
            settings.set(key, Value::List(list), Vec::new());
        }
    }
}
