#!/usr/bin/env bash
# A PostgreSQL URI with two hosts, of which only the second names a port: `postgresql://a,b:22001/db`. The
# manual, "Connection URIs": each host may have a port of its own; one without has the default.
#
# Seen: @databases/pg-connection-string 2.0.0 keeps the ports without their places: `[22001]`, the same as
# for `a:22001,b`. Of four hosts the port of the fourth comes second.
#
# Bitten: a standby behind a forwarded port: whoever takes hosts and ports in pairs asks the first host at
# the port of the second, and a single port counts for all hosts. Write a port with every host.
#
# Exit code: 0 if that is still so. Needs node, npm and the registry of npm.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --prefix "$dir" @databases/pg-connection-string@2.0.0 >/dev/null
cat >probe.js <<'JS'
const read = require('@databases/pg-connection-string').default;
for (const hosts of ['a:22001,b:22002', 'a,b:22001', 'a:22001,b', 'a,b:22001,c,d:22002']) {
  const { host, port } = read(`postgresql://${hosts}/db`, { env: {} });
  console.log(hosts, JSON.stringify(host), JSON.stringify(port));
}
JS
node probe.js | tee seen
diff seen - <<'SEEN'
a:22001,b:22002 ["a","b"] [22001,22002]
a,b:22001 ["a","b"] [22001]
a:22001,b ["a","b"] [22001]
a,b:22001,c,d:22002 ["a","b","c","d"] [22001,22002]
SEEN
