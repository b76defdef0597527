//! Ports that no other test is given.
//!
//! They lie below the range the kernel takes source ports from, so that no outgoing connection
//! occupies one between the moment it is found free and the moment the proxy binds it. Test
//! programs that run at the same time share the machine by claiming whole blocks: a claim is a
//! socket in the abstract namespace, which the kernel drops with its owner.

use std::{
    collections::VecDeque,
    fs,
    net::{Ipv6Addr, TcpListener},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
    process,
    sync::Mutex,
};

const BLOCK: u16 = 100;
const LOWEST: u16 = 10_000;

struct Registry {
    /// Claimed and not handed out yet.
    free: VecDeque<u16>,
    /// Handed out by [`free`].
    used: VecDeque<u16>,
    /// The next block to try.
    cursor: u16,
    claims: Vec<UnixListener>,
}

static REGISTRY: Mutex<Option<Registry>> = Mutex::new(None);

/// A free port.
pub fn free() -> u16 {
    with_registry(|registry| {
        loop {
            match registry.free.pop_front() {
                Some(port) if is_free(port) => {
                    registry.used.push_back(port);
                    return port;
                }
                Some(_) => {}
                None => registry.refill(),
            }
        }
    })
}

/// The first of `count` adjacent free ports.
pub fn range(count: u16) -> u16 {
    with_registry(|registry| {
        loop {
            let first = registry.take_run(count);
            if (first..first + count).all(is_free) {
                return first;
            }
        }
    })
}

fn with_registry<T>(act: impl FnOnce(&mut Registry) -> T) -> T {
    // A test that failed in here has said why; the others can go on.
    let mut registry = REGISTRY
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    act(registry.get_or_insert_with(Registry::new))
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).is_ok()
}

impl Registry {
    fn new() -> Self {
        // Somewhere else for each process, so that claims rarely meet.
        let offset = process::id() % u32::from(blocks());
        Self {
            free: VecDeque::new(),
            used: VecDeque::new(),
            cursor: u16::try_from(offset).expect("smaller than the number of blocks"),
            claims: Vec::new(),
        }
    }

    fn refill(&mut self) {
        match self.claim_run(1) {
            Some(first) => self.free.extend(first..first + BLOCK),
            // Benchmarks start so many proxies that ports have to serve several of them in turn.
            None => self.free.append(&mut self.used),
        }
        assert!(!self.free.is_empty(), "no port is free");
    }

    fn take_run(&mut self, count: u16) -> u16 {
        let blocks = count.div_ceil(BLOCK);
        let first = self
            .claim_run(blocks)
            .unwrap_or_else(|| panic!("no {blocks} adjacent blocks of ports are free"));
        self.free.extend(first + count..first + blocks * BLOCK);
        first
    }

    /// Claims adjacent blocks and returns their first port.
    fn claim_run(&mut self, count: u16) -> Option<u16> {
        for _ in 0..2 * blocks() {
            let first = self.cursor;
            self.cursor = (first + 1) % blocks();
            if first + count > blocks() {
                continue;
            }
            let claims: Vec<UnixListener> = (first..first + count).map_while(claim).collect();
            if claims.len() == usize::from(count) {
                self.claims.extend(claims);
                self.cursor = (first + count) % blocks();
                return Some(LOWEST + first * BLOCK);
            }
        }
        None
    }
}

fn claim(block: u16) -> Option<UnixListener> {
    let name = SocketAddr::from_abstract_name(format!("tml-proxy-test-ports-{block}"))
        .expect("a short name");
    UnixListener::bind_addr(&name).ok()
}

fn blocks() -> u16 {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let ephemeral = range
        .split_whitespace()
        .next()
        .and_then(|port| port.parse().ok())
        .unwrap_or(32_768u16);
    assert!(
        ephemeral >= LOWEST + 20 * BLOCK,
        "source ports start at {ephemeral}, there is no room for test ports below"
    );
    (ephemeral - LOWEST) / BLOCK
}
