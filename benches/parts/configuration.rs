//! Reading a configuration, for the first time and again.

use std::{env, fs, hint::black_box, path::Path, process};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use tml_proxy::{
    config::{self, Overrides, Source},
    table::{Table, diff},
};

use super::{FIRST_PORT, SIZES, target};

/// A file with one mapping per public port, as a testbed has one per board; that of `moved` leads
/// elsewhere.
fn file(count: u16, moved: Option<u16>) -> String {
    let mapping = |index: u16| {
        let (name, port) = (format!("board-{index}"), FIRST_PORT + index);
        let target = target(if moved == Some(index) { count } else { index });
        format!("[[mapping]]\nname = \"{name}\"\nlisten = {port}\ntarget = \"{target}\"\n")
    };
    let mappings: String = (0..count).map(mapping).collect();
    format!("version = {}\n{mappings}", config::VERSION)
}

pub fn run(c: &mut Criterion) {
    let mut group = c.benchmark_group("configuration");
    for count in SIZES {
        let text = file(count, None);
        group.throughput(Throughput::Elements(count.into()));
        group.bench_function(BenchmarkId::new("parse", count), |b| {
            b.iter_with_large_drop(|| {
                config::parse(black_box(&text), Path::new("example.toml")).expect("a valid file")
            });
        });
    }
    group.finish();
}

/// A reload up to the point where sockets are opened: the file is read, the table made and compared,
/// and what was in force before is dropped.
pub fn reload(c: &mut Criterion) {
    let mut group = c.benchmark_group("reload");
    for count in SIZES {
        let path = env::temp_dir().join(format!("tml-proxy-bench-{}.toml", process::id()));
        let source = Source::File(path.clone());
        let texts = [file(count, None), file(count, Some(count / 2))];
        fs::write(&path, &texts[0]).expect("a place for temporary files");
        let overrides = Overrides {
            admin: Some(None),
            ..Overrides::default()
        };
        let mut in_force = source
            .understand(source.content(), &overrides, &Table::default())
            .expect("a valid file");
        let mut written = 0;
        group.bench_function(BenchmarkId::new("one changed", count), |b| {
            b.iter_batched(
                || {
                    written = 1 - written;
                    fs::write(&path, &texts[written]).expect("it was written before");
                },
                |()| {
                    let next = source
                        .understand(source.content(), &overrides, &in_force.1)
                        .expect("a valid file");
                    assert_eq!(diff(&in_force.1, &next.1).changed.len(), 1);
                    in_force = next;
                },
                BatchSize::PerIteration,
            );
        });
        fs::remove_file(&path).expect("it was written");
    }
    group.finish();
}
