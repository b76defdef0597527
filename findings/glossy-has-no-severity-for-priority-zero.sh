#!/usr/bin/env bash
# syslog: the priority `<0>`, an emergency of the kernel. RFC 3164, 4.1.1, and RFC 5424, 6.2.1: the number is
# eight times the facility (0, the kernel) plus the severity (0, the system is unusable).
#
# Seen: glossy 0.1.7 for node reads such a message with neither a facility nor a severity, in both formats
# and without an error; every other priority has both, `<1>` and `<8>` among them.
#
# Bitten: rules on the severity, `severityID <= 2` or `severity === 'emerg'`: undefined is neither, so the
# most urgent message of all is the one that wakes nobody. Compute both from `prival`, which is there.
#
# Exit code: 0 if that is still so. Needs node, npm and the registry of npm.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --prefix "$dir" glossy@0.1.7 >/dev/null
cat >probe.js <<'JS'
const { Parse } = require('glossy');
const formats = ['1 2026-01-02T03:04:05Z board-1 kernel - - - text', 'Jan  2 03:04:05 board-1 kernel: text'];
for (const priority of [0, 1, 8])
  for (const rest of formats)
    Parse.parse(`<${priority}>${rest}`, ({ type, prival, facility, severity }) =>
      console.log(type, prival, facility, severity));
JS
node probe.js | tee seen
diff seen - <<'SEEN'
RFC5424 0 undefined undefined
RFC3164 0 undefined undefined
RFC5424 1 kern alert
RFC3164 1 kern alert
RFC5424 8 user emerg
RFC3164 8 user emerg
SEEN
