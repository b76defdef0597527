//! What applies to the sessions of a mapping. Every duration that can be off is an `Option`.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;

use super::SourceRules;
use crate::{
    limit::{OnRefuse, Rate, SessionLimits},
    proxy_protocol::Version,
    relay::RelayMode,
};

/// Settings of one mapping's listeners and sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How long a target may take to accept a connection.
    pub connect_timeout: Duration,
    /// End a session in which neither side sent a byte for this long.
    pub idle_timeout: Option<Duration>,
    /// End a session in which one side has closed and the other was silent for this long.
    pub half_close_timeout: Option<Duration>,
    /// TCP keepalive on both sides (tcp(7) `TCP_KEEPIDLE`, `TCP_KEEPINTVL`, `TCP_KEEPCNT`).
    pub keepalive: Option<Keepalive>,
    /// Give a peer up whose host has acknowledged nothing for this long although it was sent
    /// something, on both sides.
    pub user_timeout: Option<Duration>,
    /// Connections that may wait to be accepted (listen(2)); the kernel caps it at
    /// `net.core.somaxconn`.
    pub backlog: u32,
    /// Who says whose connections it passes on, in a PROXY header; nobody else is asked.
    pub accept_proxy: Vec<IpNet>,
    /// How long such a header may take to arrive.
    pub proxy_header_timeout: Duration,
    /// Whether the target is told whose connection it gets, in a PROXY header.
    pub send_proxy: Option<Version>,
    /// Who may connect.
    pub sources: SourceRules,
    /// Sessions open at once.
    pub max_sessions: Option<u32>,
    /// What else is limited.
    pub limits: SessionLimits,
    /// Bytes in each direction, of all sessions.
    pub bandwidth: Option<Rate>,
    /// Bytes in each direction, of all sessions of one source.
    pub bandwidth_per_source: Option<Rate>,
    /// How a client is told that it gets no session.
    pub on_refuse: OnRefuse,
    /// What happens to live sessions when the mapping, or the port they came through, goes.
    pub on_remove: RemovalPolicy,
    /// What happens to live sessions when the target behind their port changes.
    pub on_retarget: RemovalPolicy,
    /// How bytes are moved.
    pub relay: RelayMode,
    /// Source address for connections to the target.
    pub bind: Option<IpAddr>,
    /// Whether connections to the target come from the client's address (ip(7) `IP_TRANSPARENT`).
    pub transparent: bool,
    /// Whether addresses may be bound that this machine does not have yet (ip(7) `IP_FREEBIND`).
    pub freebind: bool,
    /// Whether every port of a range is a mapping of its own.
    pub each_port: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            idle_timeout: None,
            half_close_timeout: None,
            // Two hours without an answer, as for a connection with the kernel's own settings, and
            // a probe a minute for whoever on the way forgets silent connections.
            keepalive: Some(Keepalive {
                idle: Duration::from_secs(60),
                interval: Duration::from_secs(60),
                count: 120,
            }),
            user_timeout: None,
            backlog: 4096,
            accept_proxy: Vec::new(),
            proxy_header_timeout: Duration::from_secs(5),
            send_proxy: None,
            sources: SourceRules::default(),
            max_sessions: None,
            limits: SessionLimits::default(),
            bandwidth: None,
            bandwidth_per_source: None,
            on_refuse: OnRefuse::Reset,
            on_remove: RemovalPolicy::Keep,
            on_retarget: RemovalPolicy::Keep,
            relay: RelayMode::Auto,
            bind: None,
            transparent: false,
            freebind: false,
            each_port: false,
        }
    }
}

/// TCP keepalive: is the other host still there?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe; whole seconds.
    pub idle: Duration,
    /// Time between probes; whole seconds.
    pub interval: Duration,
    /// Unanswered probes before the connection is given up.
    pub count: u32,
}

/// What becomes of live sessions when their route goes or leads elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemovalPolicy {
    /// They stay as long as they like.
    Keep,
    /// They may finish within this time, then they are closed.
    Drain(Duration),
    /// They are closed at once.
    Kill,
}
