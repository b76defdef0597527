#!/usr/bin/env bash
# A hosts file with a link-local address and its zone, as in `fe80::1%eth0 board-1`.
#
# Seen: python-hosts 1.1.3 does not read such a line, and when it writes the file, the line is gone,
# whatever else was changed and if nothing was. No error, and not among what add() counts as invalid.
#
# Bitten: machines reached by a link-local name (boards without an address of their own yet): the first
# script that adds any other name takes theirs away. Append to the file yourself, or keep such names in
# mDNS or in a file of a local resolver.
#
# Exit code: 0 if that is still so. Needs python3 with venv and the registry of Python packages.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check python-hosts==1.1.3
printf '%s\n' '127.0.0.1 localhost' 'fe80::1%eth0 board-1' 'fe80::2 board-2' >"$dir/hosts"
cat >"$dir/probe.py" <<'PY'
import sys
from python_hosts import Hosts, HostsEntry

hosts = Hosts(path=sys.argv[1])
counted = hosts.add([HostsEntry(entry_type="ipv4", address="192.0.2.1", names=["board-3"])])
hosts.write()
print("invalid:", counted["invalid_count"])
print(open(sys.argv[1]).read().expandtabs(1).strip())
PY
"$dir/venv/bin/python" "$dir/probe.py" "$dir/hosts" | tee "$dir/seen"
diff "$dir/seen" - <<'SEEN'
invalid: 0
127.0.0.1 localhost
fe80::2 board-2
192.0.2.1 board-3
SEEN
