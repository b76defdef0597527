#!/usr/bin/env bash
# An ssh configuration in which a `Match` block follows a host, changed by a library.
#
# Seen: sshconf 0.2.7 for Python does not know that `Match` begins a block. Setting the host's port
# deletes the port of the Match block; setting its user changes everybody's; removing the host removes
# the Match block with it. OpenSSH 9.2 reads what is left without a complaint.
#
# Bitten: scripts that add, change and remove hosts in ~/.ssh/config: other hosts lose their settings.
# Keep generated hosts in a file of their own that the hand-written one includes.
#
# Exit code: 0 if that is still so. Needs python3 with venv and the registry of Python packages.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check sshconf==0.2.7
cat >"$dir/probe.py" <<'PY'
import sys
import sshconf

def show(title, change):
    with open(sys.argv[1], "w") as file:
        file.write("Host board-1\n  Port 22001\nMatch user tester\n  Port 22999\n  User guest\n")
    config = sshconf.read_ssh_config(sys.argv[1])
    change(config)
    print(f"{title}: {' / '.join(line.strip() for line in config.config().splitlines()) or 'nothing'}")

show("as it was", lambda config: None)
show("port set", lambda config: config.set("board-1", Port=22002))
show("user set", lambda config: config.set("board-1", User="me"))
show("host removed", lambda config: config.remove("board-1"))
PY
"$dir/venv/bin/python" "$dir/probe.py" "$dir/config" | tee "$dir/seen"
diff "$dir/seen" - <<'SEEN'
as it was: Host board-1 / Port 22001 / Match user tester / Port 22999 / User guest
port set: Host board-1 / Port 22002 / Match user tester / User guest
user set: Host board-1 / Port 22001 / Match user tester / Port 22999 / User me
host removed: nothing
SEEN
