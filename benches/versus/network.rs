//! The network a run takes place in: one of its own, where nothing but the run changes how TCP behaves.
//!
//! What matters is congestion control. One that paces (bbr) sends in bursts with timers between them, on
//! the loopback interface too. In a virtual machine bulk then takes up to nine times the processor
//! time, and up to five times as much in one round as in another, whichever proxy it goes through.
//! Proxies run on systems that ship with one that does not pace.
//!
//! Beside loopback there are networks of three hosts in a row: the client in the namespace of this
//! process, the proxy and the target in two more. Without a proxy the one in the middle is a router.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::{
    args::Args,
    harness::{
        lab::Netns,
        process::run_id,
        wire::{Faults, Wire},
    },
    net::PATIENCE,
    process::{Process, remove_namespace_on_signal},
};

/// Set in a process that is where it should be.
const INSIDE: &str = "TML_PROXY_VERSUS_NETWORK";

const CONTROL: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

/// Its first argument is [`CONTROL`]. What Debian and NixOS ship comes first; a namespace may be refused
/// it, but never the last.
const ENTER: &str = "
    ip link set lo up || exit
    for control in cubic reno; do
        echo $control 2>/dev/null >\"$0\" && break
    done
    exec \"$@\"
";

/// The hosts' addresses: the client's and the proxy's in front of the proxy, the proxy's and the target's
/// behind it, and those of the tunnel's ends.
const CLIENT: &str = "198.51.100.2";
const FRONT: &str = "198.51.100.1";
const BACK: &str = "203.0.113.1";
const TARGET: &str = "203.0.113.2";
const TUNNEL: [&str; 2] = ["192.0.2.1", "192.0.2.2"];

/// What is between the client, the proxy and the target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// One host
    #[default]
    Loopback,
    /// Three hosts, packets of 1500 bytes that go through the kernel in larger pieces
    Veth,
    /// Three hosts, every packet of 1500 bytes for itself
    VethNoOffload,
    /// Three hosts, the target behind wireguard-go: packets of 1280 bytes
    Mesh,
    /// The same with packets of 1420 bytes
    Mesh1420,
    /// Three hosts, the target 100 ms and 100 Mbit/s away
    Distant,
}

/// The round trip and the rate of [`Kind::Distant`].
const DISTANCE: Duration = Duration::from_millis(100);
const RATE: &str = "100mbit";

impl Kind {
    /// The size of packets in the tunnel, if there is one.
    fn tunnel(self) -> Option<u32> {
        match self {
            Self::Mesh => Some(1280),
            Self::Mesh1420 => Some(1420),
            _ => None,
        }
    }

    /// Bytes that are worth checking for each of a few sessions.
    pub fn checked_bytes(self) -> u64 {
        match self {
            Self::Loopback | Self::Veth | Self::VethNoOffload => 32 << 20,
            Self::Mesh | Self::Mesh1420 => 4 << 20,
            Self::Distant => 1 << 20,
        }
    }

    /// How much longer loads have to run than on a machine of their own.
    pub fn patience(self) -> u32 {
        match self {
            Self::Distant => 15,
            _ => 1,
        }
    }
}

/// Goes on as a new process in a network namespace of its own. Without the right to make one, or when
/// told so, the run takes place where it is.
pub fn enter(args: &Args) -> Result<()> {
    let unshare = |command: &[&str]| {
        let mut unshare = Command::new("unshare");
        unshare.arg("--net").args(command);
        unshare
    };
    let can = || unshare(&["true"]).stderr(Stdio::null()).status();
    let stays = args.this_network || std::env::var_os(INSIDE).is_some();
    if stays || !can().is_ok_and(|status| status.success()) {
        return Ok(());
    }
    let error = unshare(&["sh", "-c", ENTER, CONTROL])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "own")
        .exec();
    Err(error).context("start unshare")
}

/// The congestion control new connections get.
pub fn congestion_control() -> String {
    let name = fs::read_to_string(CONTROL).unwrap_or_default();
    name.trim().to_owned()
}

/// From now on connections come from these ports, in a network of the run's own.
pub fn set_local_ports(first: u16, last: u16) -> Result<()> {
    ensure_own()?;
    let range = "/proc/sys/net/ipv4/ip_local_port_range";
    fs::write(range, format!("{first} {last}")).context("set the local ports")
}

fn ensure_own() -> Result<()> {
    ensure!(
        std::env::var_os(INSIDE).is_some(),
        "without a network of its own the run leaves the machine's alone"
    );
    Ok(())
}

/// The hosts of a run.
#[derive(Default)]
pub struct Network {
    hosts: Option<Hosts>,
}

/// The hosts besides that of this process. What comes first is removed first.
struct Hosts {
    _tunnel: Vec<Process>,
    _wire: Option<Wire>,
    proxy: Netns,
    target: Netns,
}

impl Network {
    /// Builds it.
    pub fn new(kind: Kind) -> Result<Self> {
        if kind == Kind::Loopback {
            return Ok(Self::default());
        }
        ensure_own()?;
        let [proxy, target] = ["proxy", "target"].map(Netns::new);
        for namespace in [&proxy, &target] {
            remove_namespace_on_signal(namespace.name());
            namespace.sysctl("net.ipv4.tcp_congestion_control", &congestion_control());
        }
        proxy.sysctl("net.ipv4.ip_forward", "1");
        ip(&format!(
            "link add near type veth peer name front netns {}",
            proxy.name()
        ))?;
        ip("link set near up")?;
        ip(&format!("addr add {CLIENT}/24 dev near"))?;
        ip(&format!("route add 203.0.113.0/24 via {FRONT}"))?;
        proxy.ip("link set front up");
        proxy.ip(&format!("addr add {FRONT}/24 dev front"));
        let wire = (kind == Kind::Distant).then(|| {
            let faults = Faults {
                delay: DISTANCE / 2,
                ..Faults::default()
            };
            Wire::between((&proxy, "back"), (&target, "far"), faults)
        });
        if wire.is_none() {
            proxy.link("back", &target, "far");
        }
        let mut tunnel = Vec::new();
        let ends = [(&proxy, "back", BACK), (&target, "far", TARGET)];
        match kind.tunnel() {
            None => {
                for (host, interface, address) in ends {
                    host.ip(&format!("addr add {address}/24 dev {interface}"));
                }
            }
            Some(mtu) => tunnel = dig(ends, mtu)?,
        }
        target.ip(&format!("route add 198.51.100.0/24 via {BACK}"));
        if kind == Kind::Distant {
            for (host, interface, _) in ends {
                let shape =
                    format!("qdisc add dev {interface} root tbf rate {RATE} burst 64kb limit 3mb");
                run(host.command("tc").args(shape.split(' ')))?;
            }
        }
        if kind == Kind::VethNoOffload {
            let off = |interface| ["-K", interface, "gro", "off", "gso", "off", "tso", "off"];
            run(Command::new("ethtool").args(off("near")))?;
            run(proxy.command("ethtool").args(off("front")))?;
            for (host, interface, _) in ends {
                run(host.command("ethtool").args(off(interface)))?;
            }
        }
        Ok(Self {
            hosts: Some(Hosts {
                _tunnel: tunnel,
                _wire: wire,
                proxy,
                target,
            }),
        })
    }

    /// The address proxies listen at.
    pub fn front(&self) -> IpAddr {
        address_or_loopback(self.hosts.is_some(), FRONT)
    }

    /// The address the target listens at.
    pub fn target(&self) -> IpAddr {
        address_or_loopback(self.hosts.is_some(), TARGET)
    }

    /// The namespace of the proxy, if it has one of its own.
    pub fn proxy_namespace(&self) -> Option<&str> {
        self.hosts.as_ref().map(|hosts| hosts.proxy.name())
    }

    /// The namespace of the target, if it has one of its own.
    pub fn target_namespace(&self) -> Option<&str> {
        self.hosts.as_ref().map(|hosts| hosts.target.name())
    }
}

fn address_or_loopback(own: bool, address: &str) -> IpAddr {
    match own {
        true => address.parse().expect("a literal"),
        false => Ipv4Addr::LOCALHOST.into(),
    }
}

/// The same command in a namespace, as the process that it would have been.
pub fn inside(namespace: Option<&str>, command: Command) -> Command {
    let Some(namespace) = namespace else {
        return command;
    };
    let mut outer = Command::new("ip");
    outer
        .args(["netns", "exec", namespace])
        .arg(command.get_program())
        .args(command.get_args());
    outer
}

/// Connects two hosts by a tunnel through the cable that they have: the program is the one that meshes
/// of this kind are made with, in the processor time of the same machine.
fn dig(ends: [(&Netns, &str, &str); 2], mtu: u32) -> Result<Vec<Process>> {
    let keys = [private_key()?, private_key()?];
    let mut tunnel = Vec::new();
    let mut names = Vec::new();
    for (number, (host, interface, address)) in ends.into_iter().enumerate() {
        // Its control socket is found by this name, in a directory that namespaces share.
        let name = format!("tml{}{number}", run_id());
        host.ip(&format!("addr add {}/24 dev {interface}", TUNNEL[number]));
        let mut command = host.command("wireguard-go");
        command.args(["-f", &name]).env("LOG_LEVEL", "error");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        tunnel.push(Process::spawn(&mut command).context("wireguard-go")?);
        let socket = format!("/var/run/wireguard/{name}.sock");
        let deadline = Instant::now() + PATIENCE;
        while !Path::new(&socket).exists() {
            ensure!(Instant::now() < deadline, "wireguard-go does not start");
            thread::sleep(Duration::from_millis(10));
        }
        host.ip(&format!("addr add {address}/24 dev {name}"));
        host.ip(&format!("link set {name} mtu {mtu} up"));
        names.push(name);
    }
    for (number, (host, ..)) in ends.into_iter().enumerate() {
        let other = 1 - number;
        let command = format!(
            "wg set {} listen-port 51820 private-key /dev/stdin \
             peer {} allowed-ips 0.0.0.0/0 endpoint {}:51820",
            names[number], keys[other].1, TUNNEL[other],
        );
        let mut wg = host.command("sh");
        wg.args(["-c", &format!("echo {} | {command}", keys[number].0)]);
        run(&mut wg)?;
    }
    Ok(tunnel)
}

/// A key and its public half.
fn private_key() -> Result<(String, String)> {
    let output = Command::new("sh")
        .args([
            "-c",
            "key=$(wg genkey) && echo $key && echo $key | wg pubkey",
        ])
        .output()
        .context("wg")?;
    let text = String::from_utf8(output.stdout)?;
    let mut lines = text.lines().map(str::to_owned);
    let keys = lines.next().zip(lines.next());
    keys.context("no wg: wireguard-tools is not installed")
}

/// Runs `ip` here with those words.
fn ip(words: &str) -> Result<()> {
    run(Command::new("ip").args(words.split(' ')))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}", error.trim());
    Ok(())
}
