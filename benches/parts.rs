//! Benchmarks of single parts, by criterion: `cargo bench --bench parts`.

use std::{
    hint::black_box,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tml_proxy::{
    config,
    table::{
        ListenAddr, ListenHost, MappingName, MappingSpec, Origin, Policy, Surroundings, Table, diff,
    },
};

const SIZES: [u16; 3] = [1, 100, 10_000];
const FIRST_PORT: u16 = 10_000;

/// One mapping per public port, as a testbed has one per board.
fn specs(count: u16) -> Vec<MappingSpec> {
    let policy = Arc::<Policy>::default();
    let spec = |index: u16| {
        let name = format!("board-{index}");
        MappingSpec {
            pairs: [(listen(index), target(index))].into(),
            policy: Arc::clone(&policy),
            origin: Origin::Argument(name.as_str().into()),
            name: MappingName::new(name),
        }
    };
    (0..count).map(spec).collect()
}

fn listen(index: u16) -> ListenAddr {
    ListenAddr::new(ListenHost::Any, FIRST_PORT + index)
}

fn target(index: u16) -> SocketAddr {
    let [high, low] = index.to_be_bytes();
    (Ipv4Addr::new(192, 0, high, low), 22).into()
}

fn build(specs: &[MappingSpec], previous: &Table) -> Table {
    let around = Surroundings {
        reserved: &[],
        is_local: &|_| false,
    };
    Table::build(specs, previous, &around).expect("the mappings do not conflict")
}

fn table(c: &mut Criterion) {
    let mut group = c.benchmark_group("table");
    for count in SIZES {
        let before = specs(count);
        let mut after = before.clone();
        let last = after.last_mut().expect("at least one mapping");
        last.pairs = [(listen(count - 1), target(count))].into();
        let old = build(&before, &Table::default());
        let new = build(&after, &old);

        group.throughput(Throughput::Elements(count.into()));
        let id = |part| BenchmarkId::new(part, count);
        group.bench_function(id("build from nothing"), |b| {
            let nothing = Table::default();
            b.iter_with_large_drop(|| build(&before, &nothing));
        });
        group.bench_function(id("build with one changed"), |b| {
            b.iter_with_large_drop(|| build(&after, &old));
        });
        group.bench_function(id("diff with one changed"), |b| {
            b.iter(|| diff(black_box(&old), black_box(&new)));
        });
        group.throughput(Throughput::Elements(1));
        group.bench_function(id("look up"), |b| {
            let mut index = 0;
            b.iter(|| {
                index = (index + 7919) % count;
                old.route(black_box(&listen(index))).is_some()
            });
        });
    }
    group.finish();
}

/// The file an operator would write for [`specs`].
fn file(count: u16) -> String {
    let mapping = |index: u16| {
        let (name, port, target) = (format!("board-{index}"), FIRST_PORT + index, target(index));
        format!("[[mapping]]\nname = \"{name}\"\nlisten = {port}\ntarget = \"{target}\"\n")
    };
    let mappings: String = (0..count).map(mapping).collect();
    format!("version = {}\n{mappings}", config::VERSION)
}

fn configuration(c: &mut Criterion) {
    let mut group = c.benchmark_group("configuration");
    for count in SIZES {
        let text = file(count);
        group.throughput(Throughput::Elements(count.into()));
        group.bench_function(BenchmarkId::new("parse", count), |b| {
            b.iter_with_large_drop(|| {
                config::parse(black_box(&text), Path::new("example.toml")).expect("a valid file")
            });
        });
    }
    group.finish();
}

criterion_group!(parts, table, configuration);
criterion_main!(parts);
