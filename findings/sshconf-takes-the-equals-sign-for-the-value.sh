#!/usr/bin/env bash
# ssh configuration: `Port = 22001` and `Port=22001`, the second form that ssh_config(5) describes.
#
# Seen: sshconf 0.2.7 for Python returns "= 22001" for the first, has no port for the second, and no host
# for `Host=board-1`. Setting the port in the second form adds a second one.
#
# Bitten: scripts that look up the port of a host in files people write by hand: they fall back to 22, or
# fail at int(). Read by it only what it wrote, and ask `ssh -G NAME` for the rest.
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

for text in "Host board-1\n  Port = 22001\n", "Host board-1\n  Port=22001\n", "Host=board-1\n  Port 22001\n":
    with open(sys.argv[1], "w") as file:
        file.write(text)
    config = sshconf.read_ssh_config(sys.argv[1])
    hosts = config.hosts()
    print(repr(text), hosts, config.host("board-1") if hosts else None)
    if "Port=" in text:
        config.set("board-1", Port=22002)
        print("after the port was set:", repr(config.config()))
PY
"$dir/venv/bin/python" "$dir/probe.py" "$dir/config" | tee "$dir/seen"
diff "$dir/seen" - <<'SEEN'
'Host board-1\n  Port = 22001\n' ('board-1',) {'port': '= 22001'}
'Host board-1\n  Port=22001\n' ('board-1',) {}
after the port was set: 'Host board-1\n  Port 22002\n  Port=22001'
'Host=board-1\n  Port 22001\n' () None
SEEN
