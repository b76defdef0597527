//! The usual stage: a proxy with one mapping `m`, and a target.

use std::net::SocketAddr;

use super::{Line, Peer, Proxy, Setup, Stream, Target, both_ways, config, mapping, ports};

/// A proxy whose one mapping leads to a target.
#[derive(Debug)]
pub struct Scene {
    /// The proxy.
    pub proxy: Proxy,
    /// The target.
    pub target: Target,
    /// The public port.
    pub port: u16,
}

impl Scene {
    /// Sets it up; `more` is further lines of the mapping.
    #[track_caller]
    pub fn new(more: &str) -> Self {
        Self::with(&Setup::default(), "", more)
    }

    /// Sets it up; `process` is further lines before the mapping.
    #[track_caller]
    pub fn with(setup: &Setup<'_>, process: &str, more: &str) -> Self {
        Self::leading_to(Target::bind(), setup, process, more)
    }

    /// The configuration with other lines in its mapping.
    pub fn config(&self, more: &str) -> String {
        config([mapping("m", self.port, self.target.addr(), more)])
    }

    /// Sets it up with a target of a special kind.
    #[track_caller]
    pub fn leading_to(target: Target, setup: &Setup<'_>, process: &str, more: &str) -> Self {
        let port = ports::free();
        let text = config([process, &mapping("m", port, target.addr(), more)]);
        Self {
            proxy: Proxy::start_with(setup, &text),
            target,
            port,
        }
    }

    /// A client and, at the target, the connection made for it.
    #[track_caller]
    pub fn pair(&self) -> (Peer, Peer) {
        let client = Peer::connect(self.port);
        let server = self.target.accept();
        (client, server)
    }

    /// Waits until the session of that client has ended, for that reason and with that many bytes
    /// delivered to the target and to the client.
    #[track_caller]
    pub fn ends(&self, client: SocketAddr, reason: &str, up: u64, down: u64) -> Line {
        let line = self.ended(client, reason);
        assert_eq!(
            (line.number("bytes_up"), line.number("bytes_down")),
            (up, down),
            "bytes up and down"
        );
        line
    }

    /// Sends what is left of the streams of these sessions up to `length`, receives them whole, and
    /// waits until each session has ended well.
    #[track_caller]
    pub fn pass_whole(&self, sessions: &[(Peer, Peer, [Stream; 2])], length: u64) {
        let each = sessions.iter();
        both_ways(
            each.map(|(client, server, streams)| (client, server, streams.clone())),
            length,
        );
        for (client, ..) in sessions {
            self.ends(client.addr(), "closed", length, length);
        }
    }

    /// Waits until the session of that client has ended for that reason.
    #[track_caller]
    pub fn ended(&self, client: SocketAddr, reason: &str) -> Line {
        let line = self.proxy.ended_session(client);
        assert_eq!(line.text("reason"), reason);
        line
    }

    /// Checks that nothing is left, and stops the proxy.
    #[track_caller]
    pub fn finish(self) {
        self.proxy.settles();
        let status = self.proxy.stop();
        assert_eq!(status.code(), Some(0), "{status}");
    }
}
