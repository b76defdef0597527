//! Who may connect: allowed and denied source prefixes, the longest match deciding.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::setting::{As, List, Prefix};

/// Source prefixes that may or may not connect.
///
/// The longest prefix that contains the source decides. A source that no prefix contains may
/// connect unless there is an allow list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct SourceRules {
    /// Who may connect.
    #[serde(with = "As::<List<Prefix>>")]
    allow: Vec<IpNet>,
    /// Who may not.
    #[serde(with = "As::<List<Prefix>>")]
    deny: Vec<IpNet>,
}

/// One prefix both allowed and denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is in both allow and deny")]
pub struct RuleConflict(pub IpNet);

impl SourceRules {
    /// Rules from two lists of prefixes; host bits are dropped.
    ///
    /// # Errors
    ///
    /// A prefix in both lists, because then no match is the longer.
    pub fn new(
        allow: impl IntoIterator<Item = IpNet>,
        deny: impl IntoIterator<Item = IpNet>,
    ) -> Result<Self, RuleConflict> {
        let truncated = |nets: &mut dyn Iterator<Item = IpNet>| {
            let mut nets: Vec<_> = nets.map(|net| net.trunc()).collect();
            nets.sort();
            nets.dedup();
            nets
        };
        let allow = truncated(&mut allow.into_iter());
        let deny = truncated(&mut deny.into_iter());
        match allow.iter().find(|net| deny.binary_search(net).is_ok()) {
            Some(both) => Err(RuleConflict(*both)),
            None => Ok(Self { allow, deny }),
        }
    }

    /// Whether `source` may connect. IPv4-mapped addresses are judged as IPv4.
    pub fn permits(&self, source: IpAddr) -> bool {
        let source = source.to_canonical();
        let longest = |nets: &[IpNet]| {
            nets.iter()
                .filter(|net| net.contains(&source))
                .map(IpNet::prefix_len)
                .max()
        };
        match (longest(&self.allow), longest(&self.deny)) {
            (Some(allowed), Some(denied)) => allowed > denied,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => self.allow.is_empty(),
        }
    }

    pub fn allow(&self) -> &[IpNet] {
        &self.allow
    }

    pub fn deny(&self) -> &[IpNet] {
        &self.deny
    }
}
