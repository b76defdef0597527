//! Benchmarks of single parts, by criterion: `cargo bench --bench parts`.

mod configuration;
mod relay;
mod table;

use std::net::{Ipv4Addr, SocketAddr};

use criterion::{criterion_group, criterion_main};

const SIZES: [u16; 3] = [1, 100, 10_000];
const FIRST_PORT: u16 = 10_000;

fn target(index: u16) -> SocketAddr {
    let [high, low] = index.to_be_bytes();
    (Ipv4Addr::new(192, 0, high, low), 22).into()
}

criterion_group!(
    parts,
    table::run,
    configuration::run,
    configuration::reload,
    relay::run
);
criterion_main!(parts);
