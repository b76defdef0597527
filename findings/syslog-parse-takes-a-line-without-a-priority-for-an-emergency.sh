#!/usr/bin/env bash
# syslog: a line without a priority, as every daemon writes it to its files. RFC 3164, 4.3.3: such a message
# counts as `<13>`, a notice of the users.
#
# Seen: syslog-parse 2.0.0 for node reads it, says nothing of what is missing and calls it `<0>`, an
# emergency of the kernel. On the 31st it moves a time in a month of 30 days to the month after, whether or
# not there is a priority: it sets the month first, with the day of today.
#
# Bitten: who reads a log file with it and wakes somebody for what is urgent: every line is. Put `<13>`
# before lines that start with no `<`, and read what is older than a day with something else.
#
# Exit code: 0 if that is still so. Needs node, npm and the registry of npm.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --prefix "$dir" syslog-parse@2.0.0 >/dev/null
cat >probe.js <<'JS'
const parse = require('syslog-parse').default;
const line = 'Jun 30 23:59:58 board-1 sshd[12]: text';
const Now = Date;
for (const today of ['2026-07-30', '2026-07-31']) {
  global.Date = class extends Now { constructor() { super(`${today}T12:00:00`); } };
  for (const text of [line, `<13>${line}`]) {
    const { priority, facility, severity, time } = parse(text);
    console.log(today, text.slice(0, 6), priority, facility, severity, time.getMonth() + 1, time.getDate());
  }
}
JS
node probe.js | tee seen
diff seen - <<'SEEN'
2026-07-30 Jun 30 0 kern emerg 6 30
2026-07-30 <13>Ju 13 user notice 6 30
2026-07-31 Jun 30 0 kern emerg 7 30
2026-07-31 <13>Ju 13 user notice 7 30
SEEN
