#!/usr/bin/env bash
# A page of metrics with the values +Inf, -Inf and NaN, to be sent on as OpenTelemetry's.
#
# Seen: @platformatic/promotel 0.2.2 leaves these series out, without an error; both formats have all three
# values. Series with other values are passed on.
#
# Bitten: a limit that is +Inf for "none", and quantiles of a quiet service: on the other side there is no
# such series, and an alert on it never fires. Export a large number, or a gauge that says "no limit".
#
# Exit code: 0 if that is still so. Needs node (20.18 or later), npm and the registry of npm.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --prefix "$dir" @platformatic/promotel@0.2.2 >/dev/null
cat >probe.mjs <<'JS'
import { parse } from '@platformatic/promotel';
const values = ['1', '+Inf', '-Inf', 'NaN', '1e3'];
const lines = values.map((value) => `limit{value="${value}"} ${value}\n`);
const { timeseries } = parse(`# TYPE limit gauge\n${lines.join('')}`);
for (const value of values) {
  const found = timeseries.find((series) => series.labels.some((label) => label.value === value));
  console.log(value, found ? found.samples[0].value : 'left out');
}
JS
node probe.mjs | tee seen
diff seen - <<'SEEN'
1 1
+Inf left out
-Inf left out
NaN left out
1e3 1000
SEEN
