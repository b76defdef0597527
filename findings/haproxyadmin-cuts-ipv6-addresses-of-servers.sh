#!/usr/bin/env bash
# Where HAProxy sends to, asked over its admin socket by a library.
#
# Seen: haproxyadmin 0.2.4 splits what HAProxy 2.6.12 reports, "[::1]:22002", at its first colon: the
# address of the server is "[" and its port is empty. With IPv4 both are right.
#
# Bitten: inventories and checks that list servers by address: all IPv6 ones are the same "[". Take the
# addresses from `show servers state`, where address and port are columns of their own.
#
# Exit code: 0 if that is still so. Needs python3 with venv, the registry of Python packages and haproxy.
set -euo pipefail
dir=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check haproxyadmin==0.2.4
cat >"$dir/haproxy.cfg" <<CONFIG
global
  stats socket $dir/admin mode 600 level admin
defaults
  mode tcp
  timeout connect 5s
  timeout client 1m
  timeout server 1m
backend boards
  server one 127.0.0.1:22001
  server two [::1]:22002
CONFIG
haproxy -db -f "$dir/haproxy.cfg" >/dev/null 2>&1 &
until [ -S "$dir/admin" ]; do sleep 0.1; kill -0 $!; done
cat >"$dir/probe.py" <<'PY'
import sys
from haproxyadmin import haproxy

proxy = haproxy.HAProxy(socket_file=sys.argv[1])
for server in sorted(proxy.servers(), key=lambda server: server.name):
    print(server.name, repr(server.address), repr(server.port))
for line in proxy.command("show servers state boards")[0][1][2:]:
    columns = line.split()
    print(columns[3], columns[4], columns[18])
PY
"$dir/venv/bin/python" "$dir/probe.py" "$dir/admin" | tee "$dir/seen"
diff "$dir/seen" - <<'SEEN'
one '127.0.0.1' '22001'
two '[' ''
one 127.0.0.1 22001
two ::1 22002
SEEN
