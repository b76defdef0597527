#!/usr/bin/env bash
# Two tables of networks in one program, one of them with a default, `0.0.0.0/0`, as its documentation has it.
#
# Seen: cidr-trie 3.1.2 keeps what is entered at the root, a network whose address is 0.0.0.0 or ::, in one
# place for all tables of the program, those made before and after, IPv4 and IPv6 alike: each finds it, and
# the last one entered replaces the others. Networks of any other address each table keeps for itself.
#
# Bitten: programs with a table for each listener or customer: what matches nothing in one gets the default
# of another, and after a reload with new tables the default that was taken out is still there. Look for the
# default yourself where find_all() has no answer, and leave it out of the tables.
#
# Exit code: 0 if that is still so. Needs python3 with venv and the registry of Python packages.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check cidr-trie==3.1.2
cat >"$dir/probe.py" <<'PY'
from cidr_trie import PatriciaTrie

def table(*networks):
    made = PatriciaTrie()
    for network, value in networks:
        made.insert(network, value)
    return made

first = table(("192.0.2.0/24", "north"))
print("first, by itself:", first.find_all("198.51.100.1"))
second = table(("198.51.100.0/24", "south"), ("0.0.0.0/0", "the default of the second"))
print("first, after the second was made:", first.find_all("198.51.100.1"))
third = table(("2001:db8::/32", "west"))
print("third:", third.find_all("2001:db8::1"))
fourth = table(("::/0", "the default of the fourth"))
print("second:", second.find_all("198.51.100.1"))
PY
"$dir/venv/bin/python" "$dir/probe.py" | tee "$dir/seen"
diff "$dir/seen" - <<'SEEN'
first, by itself: []
first, after the second was made: [('0.0.0.0/0', 'the default of the second')]
third: [('::/0', 'the default of the second'), ('2001:db8::/32', 'west')]
second: [('0.0.0.0/0', 'the default of the fourth'), ('198.51.100.0/24', 'south')]
SEEN
