//! What is allowed: plain values from the configuration.

use std::{net::SocketAddr, time::Duration};

use ipnet::IpNet;

use super::{Rate, SourceNet};

/// Limits that hold for the process as well as for one mapping.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionLimits {
    /// Sessions of one source open at once.
    pub max_sessions_per_source: Option<u32>,
    /// Sessions begun.
    pub new_sessions: Option<Rate>,
    /// Sessions begun by one source.
    pub new_sessions_per_source: Option<Rate>,
    /// Sessions that wait for their target's answer at once.
    pub max_dialling: Option<u32>,
}

impl SessionLimits {
    /// Whether anything is counted for each source.
    pub fn counts_sources(&self) -> bool {
        self.max_sessions_per_source.is_some() || self.new_sessions_per_source.is_some()
    }
}

/// Limits of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// What is counted.
    pub sessions: SessionLimits,
    /// Bits of an IPv4 address that make a source.
    pub source_prefix_v4: u8,
    /// Bits of an IPv6 address that make a source.
    pub source_prefix_v6: u8,
    /// What happens to a source that keeps running into limits.
    pub ban: Option<Ban>,
    /// Who is never counted as a source.
    pub exempt: Vec<IpNet>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions: SessionLimits::default(),
            source_prefix_v4: 32,
            source_prefix_v6: 64,
            ban: None,
            exempt: Vec::new(),
        }
    }
}

impl Limits {
    /// The source a client belongs to; none if it is exempt. An IPv4-mapped address counts as IPv4.
    pub fn source(&self, client: SocketAddr) -> Option<SourceNet> {
        let address = client.ip().to_canonical();
        let exempt = self.exempt.iter().any(|net| net.contains(&address));
        let (v4, v6) = (self.source_prefix_v4, self.source_prefix_v6);
        (!exempt).then(|| SourceNet::of_client(client, v4, v6))
    }
}

/// A source refused for its own limits too often is refused altogether for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ban {
    /// Refusals it takes.
    pub after: u32,
    /// The time they have to fall into.
    pub within: Duration,
    /// How long the source is banned.
    pub lasts: Duration,
}

/// How a client is told that it gets no session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnRefuse {
    /// By a reset.
    #[default]
    Reset,
    /// By an end of stream.
    Close,
}
