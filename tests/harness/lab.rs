//! Small networks out of network namespaces, made and removed by the test that uses them.

use std::{
    fs::File,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread,
};

use super::{
    Peer, Proxy, Setup, Stream, Target, both_ways, config, mapping,
    process::{run_id, succeed},
    wire::{Faults, Wire},
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network namespace, removed when dropped.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes one with nothing but a loopback interface.
    pub fn new(tag: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Relaxed);
        let name = format!("tml-{}-{number}-{tag}", run_id());
        succeed(Command::new("ip").args(["netns", "add", &name]));
        let netns = Self { name };
        netns.ip("link set lo up");
        netns
    }

    /// Runs `ip` with those words in it.
    #[track_caller]
    pub fn ip(&self, words: &str) {
        succeed(
            Command::new("ip")
                .args(["-n", &self.name])
                .args(words.split_whitespace()),
        );
    }

    /// A command to run in it. It replaces itself by the program, so signals reach that.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs a piece of the test in it; sockets made there stay there.
    pub fn run<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        Self::run_in(&self.path(), act)
    }

    /// What `ip netns` knows it by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    pub fn path(&self) -> PathBuf {
        Path::new("/var/run/netns").join(&self.name)
    }

    /// Runs a piece of the test in the namespace of that file.
    pub fn run_in<T: Send>(path: &Path, act: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(path).expect("the namespace exists");
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("root may enter it");
                act()
            });
            match inside.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Connects two with a cable: each gets an interface of that name.
    pub fn link(&self, own: &str, other: &Self, others: &str) {
        self.ip(&format!(
            "link add {own} type veth peer name {others} netns {}",
            other.name
        ));
        self.ip(&format!("link set {own} up"));
        other.ip(&format!("link set {others} up"));
    }

    /// Sets a kernel parameter of its network.
    pub fn sysctl(&self, key: &str, value: &str) {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        self.run(|| std::fs::write(path, value).expect("a parameter of this namespace"));
    }
}

/// A client's network, the proxy's, and a target's, in a row: IPv4 in front of the proxy, only IPv6
/// behind it.
#[derive(Debug)]
pub struct Lab {
    /// Has [`CLIENT`] on `near`.
    pub client: Netns,
    /// Has [`PROXY`] on `front` and an address on `back`.
    pub proxy: Netns,
    /// Has [`TARGET`] on `far`.
    pub target: Netns,
    /// The cables in front of the proxy and behind it, if they are special.
    pub wires: Vec<Wire>,
}

/// The client's address.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

/// The proxy's public address.
pub const PROXY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// The public port of the mapping of [`Lab::proxy_to`].
pub const PORT: u16 = 22014;

/// The target's address.
pub const TARGET: Ipv6Addr = Ipv6Addr::new(0xfd9d, 0x773b, 0xe6f8, 1, 0, 0, 0, 0x10);

impl Lab {
    /// Builds it.
    pub fn new() -> Self {
        let lab = Self::unconnected();
        lab.client.link("near", &lab.proxy, "front");
        lab.proxy.link("back", &lab.target, "far");
        lab.with_addresses()
    }

    /// Builds it with cables that have such faults in front of the proxy and behind it.
    pub fn with_faults([front, back]: [Faults; 2]) -> Self {
        let mut lab = Self::unconnected();
        lab.wires = vec![
            Wire::between((&lab.client, "near"), (&lab.proxy, "front"), front),
            Wire::between((&lab.proxy, "back"), (&lab.target, "far"), back),
        ];
        lab.with_addresses()
    }

    fn unconnected() -> Self {
        Self {
            client: Netns::new("client"),
            proxy: Netns::new("proxy"),
            target: Netns::new("target"),
            wires: Vec::new(),
        }
    }

    fn with_addresses(self) -> Self {
        let lab = self;
        lab.client.ip(&format!("addr add {CLIENT}/24 dev near"));
        lab.proxy.ip(&format!("addr add {PROXY}/24 dev front"));
        lab.proxy
            .ip("addr add fd9d:773b:e6f8:1::1/64 dev back nodad");
        lab.target
            .ip(&format!("addr add {TARGET}/64 dev far nodad"));
        lab
    }

    /// How to start a proxy in it.
    pub fn setup(&self) -> Setup<'_> {
        Setup {
            netns: Some(&self.proxy),
            ..Setup::default()
        }
    }

    /// A client of a port of the proxy.
    pub fn connect(&self, port: u16) -> Peer {
        self.client.run(|| Peer::connect_to((PROXY, port).into()))
    }

    /// A target on a port of the target's network.
    pub fn listen(&self, port: u16) -> Target {
        self.target.run(|| Target::bind_to((TARGET, port).into()))
    }

    /// A proxy in it whose mapping `m` leads to `target`.
    #[track_caller]
    pub fn proxy_to(&self, target: SocketAddr, more: &str) -> Proxy {
        let text = config([mapping("m", PORT, target, more)]);
        Proxy::start_with(&self.setup(), &text)
    }

    /// A client of that mapping and, at the target, the connection made for it, with a few bytes
    /// exchanged.
    #[track_caller]
    pub fn pair(&self, target: &Target) -> (Peer, Peer) {
        let mut client = self.connect(PORT);
        let mut server = target.accept();
        client.exchange(&mut server, b"hello");
        (client, server)
    }

    /// Bulk both ways arrives whole through that mapping in every mode.
    #[track_caller]
    pub fn bulk_passes(&self, proxy: &Proxy, target: &Target, length: u64) {
        for relay in ["auto", "splice", "copy"] {
            let more = format!("relay = \"{relay}\"");
            proxy.reload(&config([mapping("m", PORT, target.addr(), &more)]));
            let client = self.connect(PORT);
            let server = target.accept();
            let streams = [Stream::new(1), Stream::new(2)];
            both_ways([(&client, &server, streams)], length);
            let line = proxy.ended_session(client.addr());
            assert_eq!(line.text("reason"), "closed");
            assert_eq!(line.number("bytes_up"), length);
            assert_eq!(line.number("bytes_down"), length);
        }
    }

    /// Has every packet carry one segment, as on a network without offloads.
    pub fn without_offloads(&self) {
        let ends = [
            (&self.client, "near"),
            (&self.proxy, "front"),
            (&self.proxy, "back"),
            (&self.target, "far"),
        ];
        for (netns, interface) in ends {
            succeed(
                netns
                    .command("ethtool")
                    .args(["-K", interface, "gro", "off", "gso", "off", "tso", "off"]),
            );
        }
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // Removing it removes its interfaces; a namespace left behind harms nothing.
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}
