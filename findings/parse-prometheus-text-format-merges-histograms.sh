#!/usr/bin/env bash
# A histogram and a summary with a label, one series each for two mappings, read from a page of metrics.
#
# Seen: parse-prometheus-text-format 1.1.1 makes one of the two: the label is gone, every bucket holds
# the value of whichever series came last, and sum and count are missing. With counters and gauges, and
# with a histogram that has no label of its own, nothing is lost.
#
# Bitten: who reads "how long did connecting take, per mapping" with it: one mapping's figures stand for
# all. Read lines of *_bucket, *_sum and *_count as plain series (drop the "# TYPE" lines before).
#
# Exit code: 0 if that is still so. Needs node, npm and the registry of npm.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --prefix "$dir" parse-prometheus-text-format@1.1.1 >/dev/null
cat >page <<'PAGE'
# TYPE connect_seconds histogram
connect_seconds_bucket{mapping="a",le="1"} 1
connect_seconds_bucket{mapping="a",le="+Inf"} 2
connect_seconds_sum{mapping="a"} 3
connect_seconds_count{mapping="a"} 2
connect_seconds_bucket{mapping="b",le="1"} 70
connect_seconds_bucket{mapping="b",le="+Inf"} 90
connect_seconds_sum{mapping="b"} 40
connect_seconds_count{mapping="b"} 90
# TYPE wait_seconds summary
wait_seconds{mapping="a",quantile="0.5"} 1
wait_seconds_sum{mapping="a"} 2
wait_seconds_count{mapping="a"} 3
wait_seconds{mapping="b",quantile="0.5"} 4
wait_seconds_sum{mapping="b"} 5
wait_seconds_count{mapping="b"} 6
PAGE
cat >probe.js <<'JS'
const read = require('parse-prometheus-text-format').default || require('parse-prometheus-text-format');
const page = require('fs').readFileSync('page', 'utf8');
for (const family of read(page)) console.log(family.name, JSON.stringify(family.metrics));
const series = read(page.replace(/^# TYPE.*\n/gm, '')).flatMap((family) => family.metrics);
console.log('series without TYPE:', series.length);
JS
node probe.js | tee seen
diff seen - <<'SEEN'
connect_seconds [{"buckets":{"1":"70","+Inf":"90"}}]
wait_seconds [{"quantiles":{"0.5":"4"}}]
series without TYPE: 14
SEEN
