#!/usr/bin/env bash
# A hosts file with an IPv4 and an IPv6 address for localhost, as most systems ship it, read and written.
#
# Seen: hosts-util 1.0.0 keeps the last address of a name only: localhost is ::1 afterwards, and the line
# of 127.0.0.1 is not written. The comments are gone as well.
#
# Bitten: tools that add a name to a hosts file by means of it: what connects to localhost over IPv4, or
# listens there, no longer finds it. Append a line instead of writing the file from its object.
#
# Exit code: 0 if that is still so. Needs node, npm and the registry of npm.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --prefix "$dir" hosts-util@1.0.0 >/dev/null
cat >probe.js <<'JS'
const { parse, stringify } = require('hosts-util');
const hosts = parse('127.0.0.1 localhost # both\n::1 localhost ip6-localhost\n');
hosts['board-1'] = '192.0.2.1';
console.log(stringify(hosts).trim());
JS
node probe.js | tee seen
diff seen - <<'SEEN'
::1 localhost
::1 ip6-localhost
192.0.2.1 board-1
SEEN
