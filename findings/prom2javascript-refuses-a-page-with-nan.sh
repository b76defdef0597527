#!/usr/bin/env bash
# A page of metrics with a value NaN, as a summary has it whose window saw no observation, or -Inf.
#
# Seen: prom2javascript 0.2.0 refuses the whole page ("Unable to parse metric"), with NaN and with -Inf.
# +Inf it reads. The format allows all three.
#
# Bitten: who watches a quiet service with it: after some minutes without traffic the quantiles turn into
# NaN and every other metric of the page is gone, too. Leave out such lines before.
#
# Exit code: 0 if that is still so. Needs node, npm and the registry of npm.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --prefix "$dir" prom2javascript@0.2.0 >/dev/null
cat >probe.js <<'JS'
const { getMetricsFromIterator } = require('prom2javascript');
(async () => {
  for (const value of ['1', '+Inf', '-Inf', 'NaN']) {
    const lines = ['sessions 3', `wait_seconds{quantile="0.5"} ${value}`];
    await getMetricsFromIterator(lines[Symbol.iterator]()).then(
      (metrics) => console.log(value, Object.keys(metrics).join(' ')),
      (error) => console.log(value, error.message));
  }
})();
JS
node probe.js | tee seen
diff seen - <<'SEEN'
1 sessions wait_seconds
+Inf sessions wait_seconds
-Inf Unable to parse metric [wait_seconds{quantile="0.5"} -Inf]
NaN Unable to parse metric [wait_seconds{quantile="0.5"} NaN]
SEEN
