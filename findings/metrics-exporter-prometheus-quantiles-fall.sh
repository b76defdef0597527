#!/usr/bin/env bash
# A histogram without configured buckets, exported as a summary, after one observation of 1.
#
# Seen: metrics-exporter-prometheus 0.18.3 gives the 0th and the 100th percentile exactly and those
# between from a sketch, so that the median is less than the minimum and the quantiles do not rise.
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
    metrics::with_local_recorder(&recorder, || metrics::histogram!("seconds").record(1.0));
    let page = recorder.handle().render();
    let quantile = |wanted: &str| -> f64 {
        let start = format!("seconds{{quantile=\"{wanted}\"}} ");
        let line = page.lines().find_map(|line| line.strip_prefix(&start));
        line.expect("exported").parse().expect("a number")
    };
    println!("minimum {} maximum {}", quantile("0"), quantile("1"));
    println!("median below the minimum: {}", quantile("0.5") < quantile("0"));
}
RUST
cargo run --quiet --manifest-path "$dir/Cargo.toml" | tee "$dir/seen"
diff "$dir/seen" - <<'SEEN'
minimum 1 maximum 1
median below the minimum: true
SEEN
