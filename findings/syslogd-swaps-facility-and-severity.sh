#!/usr/bin/env bash
# syslog: the priority `<34>`, critical and from the authorization system. RFC 5424, 6.2.1: the number is
# eight times the facility (4) plus the severity (2).
#
# Seen: syslogd 1.1.2 for node hands out the two the wrong way round: facility 2, severity 4. Below eight,
# where the facility is the kernel, the severity is NaN.
#
# Bitten: rules on the severity, `severity <= 2`: what is critical passes for a warning, a debug line of the
# users (`<15>`) for an alert, and the kernel never matches. Swap the two; NaN is always the kernel.
#
# Exit code: 0 if that is still so. Needs node, npm and the registry of npm.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --prefix "$dir" syslogd@1.1.2 >/dev/null
cat >probe.js <<'JS'
const { parser } = require('syslogd');
for (const priority of [34, 15, 165, 2]) {
  const { facility, severity } = parser(`<${priority}>Jan  2 03:04:05 board-1 su: text`, {});
  console.log(`<${priority}> is ${priority >> 3}.${priority & 7}, read as ${facility}.${severity}`);
}
JS
node probe.js | tee seen
diff seen - <<'SEEN'
<34> is 4.2, read as 2.4
<15> is 1.7, read as 7.1
<165> is 20.5, read as 5.20
<2> is 0.2, read as 0.NaN
SEEN
