#!/usr/bin/env bash
# PROXY protocol v2: the header that a library writes for a client's connection.
#
# Seen: @balena/proxy-protocol-parser 1.0.2 writes the command LOCAL (octet 13 is 20, not 21), with
# which receivers have to use the addresses of the connection itself, and the length with its octets
# swapped: 3072 for the 12 octets of a pair of IPv4 addresses. Its own decoder looks at neither and
# reads the header back without a complaint.
#
# Bitten: who sends with it to another implementation. That one takes 3072 octets of the client's
# first data for the rest of the header. Correct octets 13, 15 and 16, or write the 28 octets yourself.
#
# Exit code: 0 if that is still so. Needs node, npm and the registry of npm.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --prefix "$dir" @balena/proxy-protocol-parser@1.0.2 >/dev/null
cat >probe.js <<'JS'
const p = require('@balena/proxy-protocol-parser');
const header = p.v2_encode({
  remoteFamily: 'IPv4', remoteAddress: '192.0.2.1', remotePort: 12345,
  localAddress: '198.51.100.2', localPort: 22,
});
console.log(`octet 13: ${header[12].toString(16)}`);
console.log(`follow: ${header.length - 16}, length says: ${header.readUInt16BE(14)}`);
const read = p.decode(header, true);
console.log(`read by itself: ${read.remoteAddress} ${read.remotePort}`);
JS
node probe.js | tee seen
diff seen - <<'SEEN'
octet 13: 20
follow: 12, length says: 3072
read by itself: 192.0.2.1 12345
SEEN
