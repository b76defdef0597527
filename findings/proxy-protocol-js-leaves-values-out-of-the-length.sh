#!/usr/bin/env bash
# PROXY protocol v2: a header with type-length-values, built by a library.
#
# Seen: proxy-protocol-js 4.0.6 appends what it is given as `data` and writes a length that counts the
# addresses alone. A receiver takes the values for the first bytes of the connection.
#
# Exit code: 0 if that is still so. Needs node, npm and the registry of npm.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --prefix "$dir" proxy-protocol-js@4.0.6 >/dev/null
cat >probe.js <<'JS'
const p = require('proxy-protocol-js');
const address = () => new p.IPv4ProxyAddress(
  p.IPv4Address.createFrom([192, 0, 2, 1]), 9, p.IPv4Address.createFrom([198, 51, 100, 2]), 22);
for (const values of [[], [0x05, 0, 2, 0x69, 0x64]]) {
  const header = new p.V2ProxyProtocol(
    p.Command.PROXY, p.TransportProtocol.STREAM, address(), new Uint8Array(values)).build();
  const says = (header[14] << 8) + header[15];
  console.log(`values ${values.length}: follow ${header.length - 16}, length says ${says}`);
}
JS
node probe.js | tee seen
diff seen - <<'SEEN'
values 0: follow 12, length says 12
values 5: follow 17, length says 12
SEEN
