#!/usr/bin/env bash
# PROXY protocol v2: a header without values, and the first bytes of the connection behind it.
#
# Seen: proxy-protocol-js 4.0.6 returns those bytes as the header's `data`. The length of the header is
# compared with that of the addresses and used for nothing else, and the result does not tell where
# the header ended.
#
# Exit code: 0 if that is still so. Needs node, npm and the registry of npm.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --prefix "$dir" proxy-protocol-js@4.0.6 >/dev/null
cat >probe.js <<'JS'
const p = require('proxy-protocol-js');
const header = Buffer.from('0d0a0d0a000d0a515549540a2111000cc0000201c633640200090016', 'hex');
const parsed = p.V2ProxyProtocol.parse(Buffer.concat([header, Buffer.from('SSH-2.0-probe')]));
console.log(`data: ${Buffer.from(parsed.data)}`);
JS
node probe.js | tee seen
diff seen - <<'SEEN'
data: SSH-2.0-probe
SEEN
