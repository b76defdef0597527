//! Several targets to choose from.

mod harness;

#[path = "targets/balance.rs"]
mod balance;
#[path = "targets/changes.rs"]
mod changes;
#[path = "targets/haproxy.rs"]
mod haproxy;
#[path = "targets/queue.rs"]
mod queue;
#[path = "targets/retry.rs"]
mod retry;

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use harness::{Line, Peer, Proxy, Target, config, ports};

/// A mapping `m` that leads to several targets; `more` is any further lines of it.
fn leading_to(port: u16, targets: &str, more: &str) -> String {
    config([format!(
        "\n[[mapping]]\nname = \"m\"\nlisten = {port}\ntarget = [{targets}]\n{more}\n"
    )])
}

/// The targets as a list of texts.
fn plain(targets: &[Target]) -> String {
    let each = targets
        .iter()
        .map(|target| format!("\"{}\"", target.addr()));
    each.collect::<Vec<_>>().join(", ")
}

/// A proxy with a mapping that leads to targets of its own.
struct Stage {
    proxy: Proxy,
    targets: Vec<Target>,
    port: u16,
}

impl Stage {
    fn new(count: usize, more: &str) -> Self {
        let targets: Vec<_> = (0..count).map(|_| Target::bind()).collect();
        let port = ports::free();
        let proxy = Proxy::start(&leading_to(port, &plain(&targets), more));
        Self {
            proxy,
            targets,
            port,
        }
    }

    /// Clients that come one after the other, and how many of them each target had.
    fn shares(&self, clients: usize) -> BTreeMap<String, usize> {
        let mut shares = BTreeMap::new();
        for _ in 0..clients {
            let line = self.passes_by();
            *shares.entry(line.text("target").to_owned()).or_default() += 1;
        }
        shares
    }

    /// A client that comes and goes.
    fn passes_by(&self) -> Line {
        let peer = Peer::connect(self.port);
        let addr = peer.addr();
        peer.reset();
        self.proxy.ended_session(addr)
    }

    /// The number of the target that has accepted a client's connection, and that.
    fn accepted(&self) -> (usize, Peer) {
        loop {
            for (number, target) in self.targets.iter().enumerate() {
                if target.is_called(Duration::from_millis(1)) {
                    return (number, target.accept());
                }
            }
        }
    }

    /// A client with the connection made for it, and the number of the target.
    fn pair(&self) -> (Peer, usize, Peer) {
        self.paired(Peer::connect(self.port))
    }

    /// The same of a client that calls from there.
    fn pair_from(&self, source: IpAddr) -> (Peer, usize, Peer) {
        self.paired(Peer::connect_from(source, self.port))
    }

    fn paired(&self, mut client: Peer) -> (Peer, usize, Peer) {
        let (number, mut server) = self.accepted();
        client.exchange(&mut server, b"hello");
        (client, number, server)
    }

    fn finish(self) {
        self.proxy.settles();
        let status = self.proxy.stop();
        assert_eq!(status.code(), Some(0), "{status}");
    }
}
