#!/usr/bin/env bash
# syslog: structured data with a parameter that comes twice, `[origin ip="192.0.2.1" ip="192.0.2.129"]`, and
# with escaped characters. RFC 5424, 7.2.4, has the first as an example; 6.3.3 has a quotation mark, a
# backslash and a closing bracket in a value stand behind a backslash.
#
# Seen: syslog-rfc5424-parser 0.3.2 keeps the last of the two addresses and the backslashes of the values,
# both without an error. Written back, the message has one address.
#
# Bitten: collectors that look up the sender by its address: a host with several is found by the last one
# only. Read the parameters from the text where they count, and take the backslashes away yourself.
#
# Exit code: 0 if that is still so. Needs python3 with venv and the registry of Python packages.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check syslog-rfc5424-parser==0.3.2
cat >"$dir/probe.py" <<'PY'
from syslog_rfc5424_parser import SyslogMessage

for data in ('[origin ip="192.0.2.1" ip="192.0.2.129"]', r'[a@32473 path="C:\\logs" text="\"x\" [1\]"]'):
    message = SyslogMessage.parse(f"<165>1 2026-01-02T03:04:05Z board-1 app - ID47 {data} text")
    for parameters in message.sd.values():
        print(*(f"{name} is {value}" for name, value in parameters.items()), sep=", ")
    print(" ", message)
PY
"$dir/venv/bin/python" "$dir/probe.py" | tee "$dir/seen"
diff "$dir/seen" - <<'SEEN'
ip is 192.0.2.129
  <165>1 2026-01-02T03:04:05Z board-1 app - ID47 [origin ip="192.0.2.129"] text
path is C:\\logs, text is \"x\" [1\]
  <165>1 2026-01-02T03:04:05Z board-1 app - ID47 [a@32473 path="C:\\logs" text="\"x\" [1\]"] text
SEEN
