//! Ten thousand mappings: they load, a reload changes one of them, they stop.
//!
//! Times and memory are printed for those who want to know (`--nocapture`); nothing is concluded
//! from them, except that memory per mapping stays within reason.

mod harness;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Instant,
};

use harness::{
    Peer, Proxy, Target, config, mapping, ports,
    process::{self, listening_inodes, resident_kib},
    require::{Need, require},
};

const MAPPINGS: u16 = 10_000;

/// Addresses of this machine that the mappings are spread over. As many ports as there are mappings
/// would be half of those that all test programs on a machine have to share.
const HOSTS: u16 = 200;

/// Where mapping number `index` listens, on ports from `first` on.
fn listen(first: u16, index: u16) -> SocketAddr {
    let host = Ipv4Addr::from(0x7f01_0000 | u32::from(index % HOSTS + 1));
    SocketAddr::from((host, first + index / HOSTS))
}

#[test]
fn ten_thousand_mappings_load_reload_and_stop() {
    if !require(&[Need::Descriptors(u64::from(MAPPINGS) + 200)]) {
        return;
    }
    let [first, second] = [Target::bind(), Target::bind()];
    let first_port = ports::range(MAPPINGS / HOSTS);
    let file = |moved: Option<u16>| {
        config((0..MAPPINGS).map(|index| {
            let target = match moved == Some(index) {
                true => second.addr(),
                false => first.addr(),
            };
            mapping(&format!("m{index}"), listen(first_port, index), target, "")
        }))
    };
    let leads_to = |index: u16, target: &Target| {
        let mut client = Peer::connect_to(listen(first_port, index));
        client.exchange(&mut target.accept(), b"hello");
    };
    let [lowest, middle, last] = [0, MAPPINGS / 2, MAPPINGS - 1];
    let last_port = listen(first_port, last).port();

    let start = Instant::now();
    let proxy = Proxy::start(&file(None));
    println!("loaded in {:?}", start.elapsed());
    let metrics = proxy.metrics();
    assert_eq!(metrics.sum("tml_proxy_mappings", &[]), u64::from(MAPPINGS));
    assert_eq!(metrics.sum("tml_proxy_listeners", &[]), u64::from(MAPPINGS));
    for port in [lowest, middle, last] {
        leads_to(port, &first);
    }
    let memory = resident_kib(proxy.id());
    println!("{memory} KiB resident, {} samples", metrics.len());
    assert!(memory < 200 * 1024, "{memory} KiB for {MAPPINGS} mappings");

    let inodes = listening_inodes(proxy.id(), last_port);
    assert_eq!(inodes.len(), usize::from(HOSTS));
    let mut client = Peer::connect_to(listen(first_port, last));
    let mut server = first.accept();
    let start = Instant::now();
    let line = proxy.reload(&file(Some(middle)));
    println!("reloaded in {:?}", start.elapsed());
    assert_eq!(line.number("retargeted"), 1);
    assert_eq!(line.number("unchanged"), u64::from(MAPPINGS) - 1);
    leads_to(middle, &second);
    leads_to(lowest, &first);
    assert_eq!(listening_inodes(proxy.id(), last_port), inodes);
    client.exchange(&mut server, b"not affected");

    let grown = |before: u64| resident_kib(proxy.id()).saturating_sub(before);
    let before = resident_kib(proxy.id());
    for round in 0..10 {
        proxy.reload(&file(Some(lowest + round)));
    }
    println!("{} KiB more after ten reloads", grown(before));
    assert!(grown(before) < 50 * 1024, "memory grows with reloads");

    drop((client, server));
    proxy.settles();
    let start = Instant::now();
    assert_eq!(proxy.stop().code(), Some(0));
    println!("stopped in {:?}", start.elapsed());
}

#[test]
fn ten_thousand_mappings_are_checked() {
    let dir = harness::TempDir::new();
    let text = config(
        (0..MAPPINGS)
            .map(|number| mapping(&format!("m{number}"), 20_000 + number, "[fd9d::10]:22", "")),
    );
    let file = dir.write("proxy.toml", text);
    let start = Instant::now();
    let table = process::succeed(
        std::process::Command::new(Path::new(harness::proxy::PROGRAM))
            .args(["check", "--config"])
            .arg(file),
    );
    println!("checked in {:?}", start.elapsed());
    assert!(table.contains("m0") && table.contains("m9999"));
}
