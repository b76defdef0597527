//! Where the bytes of a mapping's clients go: one address, or a group of several to choose from.
//!
//! A [`TargetSpec`] is what somebody asks for, a [`Target`] what a table has of it: one address as such,
//! with nothing beside it, or a [`TargetGroup`]. A group has a [`Member`] for each address there is to
//! choose from; whoever looks names up gives it others, whoever checks its members tells them what came
//! of it. Nothing here does I/O or knows who asks.

mod balance;
mod group;
mod member;
mod queue;
mod saved;
mod settings;

use std::{fmt, net::SocketAddr, sync::Arc};

pub use balance::Balance;
pub use group::{NoMember, Place, TargetGroup};
pub use member::{CheckFailure, Member, MemberState};
pub use queue::{Queue, QueueSettings, Ticket};
pub use saved::{LoadedGroups, SavedGroups, SavedTarget};
pub use settings::{GroupSettings, TargetAddr, TargetSettings, TargetSpec};

/// Where the clients of a public address are led to.
#[derive(Debug, Clone)]
pub enum Target {
    Address(SocketAddr),
    Group(Arc<TargetGroup>),
}

impl Target {
    /// What was asked for.
    pub fn spec(&self) -> TargetSpec {
        match self {
            Self::Address(address) => TargetSpec::Address(*address),
            Self::Group(group) => TargetSpec::Group(Arc::clone(group.settings())),
        }
    }

    pub fn group(&self) -> Option<&Arc<TargetGroup>> {
        match self {
            Self::Address(_) => None,
            Self::Group(group) => Some(group),
        }
    }

    /// The only address there is, if there can be no other.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Group(_) => None,
        }
    }

    /// Every address that a session may be led to now.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        match self {
            Self::Address(address) => vec![*address],
            Self::Group(group) => group.addresses(),
        }
    }

    /// Whether a session may be led to that address.
    pub fn leads_to(&self, address: SocketAddr) -> bool {
        match self {
            Self::Address(own) => *own == address,
            Self::Group(group) => group.member(address).is_some(),
        }
    }
}

/// A group is itself only: another one with the same settings counts for itself.
impl PartialEq for Target {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Address(one), Self::Address(other)) => one == other,
            (Self::Group(one), Self::Group(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Group(group) => group.settings().fmt(f),
        }
    }
}
