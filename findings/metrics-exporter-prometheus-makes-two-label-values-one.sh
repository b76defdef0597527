#!/usr/bin/env bash
# Two series of one counter whose labels differ by a backslash, exported as text.
#
# Seen: metrics-exporter-prometheus 0.18.3 leaves a label value that already looks escaped as it is and
# escapes others, so that a\b and a\\b (and q" and q\") come out as the same series, twice on one page
# with two values.
#
# Exit code: 0 if that is still so. Needs cargo and the registry of crates.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/src"
cat >"$dir/Cargo.toml" <<'TOML'
[package]
name = "probe"
version = "0.0.0"
edition = "2021"
[dependencies]
metrics = "=0.24.6"
metrics-exporter-prometheus = { version = "=0.18.3", default-features = false }
TOML
cat >"$dir/src/main.rs" <<'RUST'
fn main() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || {
        metrics::counter!("sessions_total", "mapping" => r"a\b").increment(1);
        metrics::counter!("sessions_total", "mapping" => r"a\\b").increment(2);
    });
    let page = recorder.handle().render();
    let mut series: Vec<_> = page.lines().filter(|line| line.starts_with("sessions_total")).collect();
    series.sort();
    println!("{}", series.join("\n"));
}
RUST
cargo run --quiet --manifest-path "$dir/Cargo.toml" | tee "$dir/seen"
diff "$dir/seen" - <<'SEEN'
sessions_total{mapping="a\\b"} 1
sessions_total{mapping="a\\b"} 2
SEEN
