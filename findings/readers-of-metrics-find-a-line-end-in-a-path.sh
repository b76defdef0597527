#!/usr/bin/env bash
# A label value with a backslash before an "n", C:\new\table, on a page of metrics: x="C:\\new\\table".
#
# Seen: prom2javascript 0.2.0 and @platformatic/promotel 0.2.2 take the second backslash and the "n" for a
# line end: C:, a line end, ew\table. parse-prometheus-text-format 1.1.1 reads the value as it was, and
# so does Prometheus.
#
# Bitten: labels with paths of Windows or regular expressions: the value is not the one that
# other tools show, and a join with theirs finds nothing. Use such values without backslashes.
#
# Exit code: 0 if that is still so. Needs node (20.18 or later), npm and the registry of npm.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --prefix "$dir" \
    prom2javascript@0.2.0 @platformatic/promotel@0.2.2 parse-prometheus-text-format@1.1.1 >/dev/null
printf '%s\n' 'sessions{x="C:\\new\\table"} 1' >page
cat >probe.mjs <<'JS'
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { parse as promotel } from '@platformatic/promotel';
const require = createRequire(import.meta.url);
const { getMetricsFromIterator } = require('prom2javascript');
const text = require('parse-prometheus-text-format');

const page = readFileSync('page', 'utf8');
const show = (title, value) => console.log(`${title}: ${JSON.stringify(value)}`);
const metrics = await getMetricsFromIterator(page.trim().split('\n')[Symbol.iterator]());
show('prom2javascript', metrics.sessions.data[0].labels.x);
show('promotel', promotel(page).timeseries[0].labels.find((label) => label.name === 'x').value);
show('parse-prometheus-text-format', (text.default || text)(page)[0].metrics[0].labels.x);
JS
node probe.mjs | tee seen
diff seen - <<'SEEN'
prom2javascript: "C:\new\\table"
promotel: "C:\new\\table"
parse-prometheus-text-format: "C:\\new\\table"
SEEN
