#!/usr/bin/env bash
# A unit file with a command over two lines, joined with a backslash, and a second command. The manual,
# systemd.syntax(7): a line that ends in a backslash is joined with the next one that is no comment.
#
# Seen: SystemdUnitParser 0.4 reads the first command as two values, so that there are three, and writes each
# as a setting of its own. As the backslash is still there, systemd takes the next setting for arguments of
# the command. A line that goes on without white space before it becomes a setting of its own, too.
#
# Bitten: tools that add a setting to a unit by means of it: systemd takes the file without a warning, and a
# command runs with other arguments or not at all. Write such commands on one line, or put what you add into
# a drop-in of its own.
#
# Exit code: 0 if that is still so. Needs python3 with venv, the registry of Python packages and
# systemd-analyze.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check systemdunitparser==0.4
cat >"$dir/before.service" <<'UNIT'
[Service]
ExecStartPre=/bin/echo one \
    two
ExecStartPre=/bin/echo three
ExecStart=/bin/sleep 1
Environment=A=1 \
B=2
UNIT
cat >"$dir/probe.py" <<'PY'
import sys
from SystemdUnitParser import SystemdUnitParser

unit = SystemdUnitParser()
unit.read(sys.argv[1])
for name, value in unit["Service"].items():
    print(name, value)
with open(sys.argv[2], "w") as file:
    unit.write(file)
PY
{
    "$dir/venv/bin/python" "$dir/probe.py" "$dir/before.service" "$dir/after.service"
    cat "$dir/after.service"
    for file in before after; do
        systemd-analyze verify --man=no "$dir/$file.service" && echo "$file: valid"
    done
} 2>&1 | tee "$dir/seen"
diff "$dir/seen" - <<'SEEN'
ExecStartPre ('/bin/echo one \\', 'two', '/bin/echo three')
ExecStart /bin/sleep 1
Environment A=1 \
B 2
[Service]
ExecStartPre=/bin/echo one \
ExecStartPre=two
ExecStartPre=/bin/echo three
ExecStart=/bin/sleep 1
Environment=A=1 \
B=2

before: valid
after: valid
SEEN
