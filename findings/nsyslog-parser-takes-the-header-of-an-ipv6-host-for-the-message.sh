#!/usr/bin/env bash
# syslog of RFC 5424 with an IPv6 address for the host, which 6.2.4 allows where a machine has no name.
#
# Seen: nsyslog-parser 0.10.1 for node then finds no host, program, process or message id, and gives all of
# them as the text of the message, without an error. An IPv4 address or a name is read. A colon in the name
# of the program does the same to all that stands from there on.
#
# Bitten: whoever sorts or filters by host or program: messages of machines reached by IPv6 fall under none.
# Have the sender write a name, or split the header at its spaces yourself: none of its fields has one.
#
# Exit code: 0 if that is still so. Needs node, npm and the registry of npm.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --prefix "$dir" nsyslog-parser@0.10.1 >/dev/null
cat >probe.js <<'JS'
const read = require('nsyslog-parser');
for (const sender of ['board-1 relay', '192.0.2.1 relay', '2001:db8::1 relay', 'board-1 relay:22001']) {
  const { type, host, appName, pid, messageid, message } = read(
    `<30>1 2026-01-02T03:04:05Z ${sender} 7 ended - closed`);
  console.log(JSON.stringify({ type, host, appName, pid, messageid, message }));
}
JS
node probe.js | tee seen
diff seen - <<'SEEN'
{"type":"RFC5424","host":"board-1","appName":"relay","pid":"7","messageid":"ended","message":"closed"}
{"type":"RFC5424","host":"192.0.2.1","appName":"relay","pid":"7","messageid":"ended","message":"closed"}
{"type":"RFC5424","host":"","message":"2001:db8::1 relay 7 ended - closed"}
{"type":"RFC5424","host":"board-1","message":"relay:22001 7 ended - closed"}
SEEN
