#!/usr/bin/env bash
# An HAProxy configuration with `server-template` and a server on IPv6, read and written back unchanged.
#
# Seen: pyhaproxy 0.3.6 reads `server-template` as a server of the name "-template" and writes it as
# such, which HAProxy 2.6.12 refuses. The server on IPv6 is not in its list of servers, though the file it
# writes has it.
#
# Bitten: tools that add a server to such a file. Render from a template of your own, and have
# `haproxy -c` read what was written before it replaces anything.
#
# Exit code: 0 if that is still so. Needs python3 with venv, the registry of Python packages and haproxy.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check pyhaproxy==0.3.6
cat >"$dir/before" <<'CONFIG'
defaults
  mode tcp
  timeout connect 5s
  timeout client 1m
  timeout server 1m
frontend ssh
  bind 127.0.0.1:22001
  default_backend boards
backend boards
  server one 192.0.2.1:22
  server two [2001:db8::1]:22
  server-template more 3 192.0.2.2:22
CONFIG
cat >"$dir/probe.py" <<'PY'
import sys
from pyhaproxy.parse import Parser
from pyhaproxy.render import Render

config = Parser(sys.argv[1]).build_configuration()
print("servers:", [server.name for server in config.backends[0].servers()])
Render(config).dumps_to(sys.argv[2])
PY
{
    "$dir/venv/bin/python" "$dir/probe.py" "$dir/before" "$dir/after"
    grep -o '^ *server.*[^ ]' "$dir/after" | tr -s ' '
    for file in before after; do
        haproxy -c -q -f "$dir/$file" 2>/dev/null && echo "$file: valid" || echo "$file: refused"
    done
} | tee "$dir/seen"
diff "$dir/seen" - <<'SEEN'
servers: ['one', '-template']
 server one 192.0.2.1:22
 server two [2001:db8::1]:22
 server -template more: 3 192.0.2.2:22
before: valid
after: refused
SEEN
