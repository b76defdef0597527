//! A cable between two namespaces that loses, delays, repeats and swaps packets, or goes silent.
//!
//! Not every kernel has netem. Each end is a VXLAN interface whose frames travel as datagrams to a
//! namespace in between, where two threads pass them on, or do not.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use socket2::SockRef;

use super::{lab::Netns, process::succeed};

/// What befalls packets, in each direction.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Packets lost, of a thousand.
    pub lost: u32,
    /// Packets that come twice, of a thousand.
    pub doubled: u32,
    /// How long each takes.
    pub delay: Duration,
    /// How much longer one may take than another; so they overtake each other.
    pub jitter: Duration,
    /// The first end of stream is lost, and everything after it: what a firewall does that has
    /// forgotten a connection.
    pub silent_from_fin: bool,
}

/// The cable. It is removed when dropped, and its interfaces with it.
#[derive(Debug)]
pub struct Wire {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    _between: Netns,
}

#[derive(Debug, Default)]
struct Shared {
    faults: Mutex<Faults>,
    silent: AtomicBool,
    ended: AtomicBool,
    lost: AtomicU64,
    doubled: AtomicU64,
    swapped: AtomicU64,
}

impl Wire {
    /// Connects two namespaces: each gets an interface of that name.
    pub fn between(one: (&Netns, &str), other: (&Netns, &str), faults: Faults) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Relaxed) % 200 + 1;
        let between = Netns::new("wire");
        let shared = Arc::new(Shared {
            faults: Mutex::new(faults),
            ..Shared::default()
        });
        let ends = [(one, 1), (other, 5)].map(|((netns, name), host)| {
            let [ours, theirs] =
                [host, host + 1].map(|host| Ipv4Addr::new(10, 77, number as u8, host));
            let (inner, outer) = (format!("end{host}"), format!("u{name}"));
            between.link(&inner, netns, &outer);
            between.ip(&format!("addr add {ours}/30 dev {inner}"));
            netns.ip(&format!("addr add {theirs}/30 dev {outer}"));
            netns.ip(&format!(
                "link add {name} type vxlan id {number} remote {ours} dstport {PORT} dev {outer}"
            ));
            // A packet a segment, with its checksum in it.
            succeed(netns.command("ethtool").args([
                "-K", name, "tx", "off", "gro", "off", "gso", "off", "tso", "off",
            ]));
            netns.ip(&format!("link set {name} up"));
            let socket = between.run(|| UdpSocket::bind((ours, PORT)).expect("an own address"));
            // On a busy machine the thread comes late, which is to delay packets and not to lose them.
            SockRef::from(&socket)
                .set_recv_buffer_size(WAITING)
                .expect("any size will do");
            (Arc::new(socket), SocketAddr::from((theirs, PORT)))
        });
        let threads = [(0, 1), (1, 0)]
            .map(|(from, to)| {
                let (source, (sink, addr)) = (Arc::clone(&ends[from].0), ends[to].clone());
                let shared = Arc::clone(&shared);
                let seed = 0x9e37_79b9_7f4a_7c15 ^ (from as u64 + 1);
                thread::spawn(move || carry(&shared, &source, &sink, addr, seed))
            })
            .into();
        Self {
            shared,
            threads,
            _between: between,
        }
    }

    /// Loses everything from now on, without a word to anybody.
    pub fn silence(&self) {
        self.shared.silent.store(true, Relaxed);
    }

    /// Changes what befalls packets.
    pub fn set(&self, faults: Faults) {
        *self
            .shared
            .faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = faults;
    }

    /// Whether it has lost, doubled and swapped packets so far; how many of each.
    pub fn befallen(&self) -> [u64; 3] {
        let shared = &self.shared;
        [&shared.lost, &shared.doubled, &shared.swapped].map(|count| count.load(Relaxed))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.ended.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that panicked has said why.
            let _ = thread.join();
        }
    }
}

/// The port VXLAN has by standard.
const PORT: u16 = 4789;

/// Bytes that may wait for a thread, as far as `net.core.rmem_max` allows.
const WAITING: usize = 4 << 20;

/// How often a thread without packets looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

/// Passes packets on in one direction until the end.
fn carry(shared: &Shared, from: &UdpSocket, to: &UdpSocket, addr: SocketAddr, seed: u64) {
    let mut random = Random(seed);
    let mut queue: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>> = BinaryHeap::new();
    let mut packet = vec![0; 64 * 1024];
    let (mut came, mut last_left) = (0, 0);
    while !shared.ended.load(Relaxed) {
        let now = Instant::now();
        while let Some(Reverse((due, number, packet))) = queue.pop() {
            if due > now {
                queue.push(Reverse((due, number, packet)));
                break;
            }
            if number < last_left {
                shared.swapped.fetch_add(1, Relaxed);
            }
            last_left = number;
            if !shared.silent.load(Relaxed) {
                // A packet that cannot be sent is a lost one.
                let _ = to.send_to(&packet, addr);
            }
        }
        let wait = queue.peek().map_or(LOOK, |Reverse((due, ..))| {
            due.saturating_duration_since(now)
                .clamp(Duration::from_millis(1), LOOK)
        });
        from.set_read_timeout(Some(wait)).expect("not zero");
        let Ok(length) = from.recv(&mut packet) else {
            continue;
        };
        let packet = &packet[..length];
        let faults = *shared.faults.lock().unwrap_or_else(PoisonError::into_inner);
        if faults.silent_from_fin && is_fin(packet) {
            shared.silent.store(true, Relaxed);
        }
        if random.of_a_thousand(faults.lost) || shared.silent.load(Relaxed) {
            shared.lost.fetch_add(1, Relaxed);
            continue;
        }
        let copies = match random.of_a_thousand(faults.doubled) {
            true => 2,
            false => 1,
        };
        shared.doubled.fetch_add(copies - 1, Relaxed);
        for _ in 0..copies {
            came += 1;
            let due = Instant::now() + faults.delay + random.part_of(faults.jitter);
            queue.push(Reverse((due, came, packet.to_vec())));
        }
    }
}

/// Whether a VXLAN packet carries a TCP segment that ends a stream.
fn is_fin(packet: &[u8]) -> bool {
    const ETHERNET: usize = 8;
    const NETWORK: usize = ETHERNET + 14;
    const TCP: u8 = 6;
    let byte = |at: usize| packet.get(at).copied().unwrap_or(0);
    let transport = match (byte(NETWORK) >> 4, byte(NETWORK + 9), byte(NETWORK + 6)) {
        (4, TCP, _) => NETWORK + usize::from(byte(NETWORK) & 15) * 4,
        (6, _, TCP) => NETWORK + 40,
        _ => return false,
    };
    byte(transport + 13) & 1 != 0
}

/// xorshift: the same faults for the same packets in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn of_a_thousand(&mut self, share: u32) -> bool {
        self.next() % 1000 < u64::from(share)
    }

    fn part_of(&mut self, most: Duration) -> Duration {
        most * u32::try_from(self.next() % 1000).unwrap_or(0) / 1000
    }
}
