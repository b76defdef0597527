//! Tables: made, compared and looked up in.

use std::{collections::HashSet, hint::black_box, sync::Arc};

use criterion::{BenchmarkId, Criterion, Throughput};
use tml_proxy::table::{
    ListenAddr, ListenHost, MappingName, MappingSpec, Origin, Policy, Surroundings, Table, diff,
};

use super::{FIRST_PORT, SIZES, target};

/// One mapping per public port, as a testbed has one per board.
fn specs(count: u16) -> Vec<MappingSpec> {
    let policy = Arc::<Policy>::default();
    let spec = |index: u16| {
        let name = format!("board-{index}");
        MappingSpec {
            pairs: [(listen(index), target(index).into())].into(),
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

fn build(specs: &[MappingSpec], previous: &Table) -> Table {
    let around = Surroundings {
        reserved: &[],
        departed: &[],
        is_local: &|_| false,
        looping: &HashSet::new(),
    };
    Table::build(specs, previous, &around).expect("the mappings do not conflict")
}

pub fn run(c: &mut Criterion) {
    let mut group = c.benchmark_group("table");
    for count in SIZES {
        let before = specs(count);
        let mut after = before.clone();
        let last = after.last_mut().expect("at least one mapping");
        last.pairs = [(listen(count - 1), target(count).into())].into();
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
