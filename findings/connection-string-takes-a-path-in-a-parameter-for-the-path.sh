#!/usr/bin/env bash
# A PostgreSQL URI that gives the directory of a socket as a parameter, `postgresql:///db?host=/run/pg`, as
# the manual has it under "Connection URIs". RFC 3986, 3.4: a slash in the query is data.
#
# Seen: connection-string 5.0.0 for node takes the pieces after such slashes for segments of the path and cuts
# the value at the first one, without an error. A value that starts with one is gone. Written back, the URI
# names another database.
#
# Bitten: programs that read the URI with it and fill in a host where none is given: they connect to
# another server. Write the slashes of parameters as %2F.
#
# Exit code: 0 if that is still so. Needs node, npm and the registry of npm.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --prefix "$dir" connection-string@5.0.0 >/dev/null
cat >probe.js <<'JS'
const { ConnectionString } = require('connection-string');
for (const text of [
  'postgresql:///db?host=/run/pg&connect_timeout=5',
  'postgresql:///db?host=%2Frun%2Fpg&connect_timeout=5',
  'postgresql://a/db?application_name=night/copy',
  'postgresql://a/db?application_name=night-copy',
]) {
  const read = new ConnectionString(text);
  console.log(text);
  console.log(' ', JSON.stringify(read.path), JSON.stringify(read.params ?? {}));
  console.log(' ', read.toString());
}
JS
node probe.js | tee seen
diff seen - <<'SEEN'
postgresql:///db?host=/run/pg&connect_timeout=5
  ["db","run","pg"] {"connect_timeout":"5"}
  postgresql:///db/run/pg?connect_timeout=5
postgresql:///db?host=%2Frun%2Fpg&connect_timeout=5
  ["db"] {"host":"/run/pg","connect_timeout":"5"}
  postgresql:///db?host=%2Frun%2Fpg&connect_timeout=5
postgresql://a/db?application_name=night/copy
  ["db","copy"] {"application_name":"night"}
  postgresql://a/db/copy?application_name=night
postgresql://a/db?application_name=night-copy
  ["db"] {"application_name":"night-copy"}
  postgresql://a/db?application_name=night-copy
SEEN
