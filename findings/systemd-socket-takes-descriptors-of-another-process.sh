#!/usr/bin/env bash
# LISTEN_FDS with the LISTEN_PID of another process, as a program sees it that a socket-activated
# service has started: sd_listen_fds(3) has it ignore both.
#
# Seen: systemd-socket 0.0.0 for node never looks at LISTEN_PID and returns descriptor 3.
#
# Bitten: a tool that such a service runs, and that would have listened on a port of its own: it listens
# on descriptor 3, which by then is closed or some file of its own. Unset LISTEN_FDS for what is started,
# or compare LISTEN_PID with process.pid before asking.
#
# Exit code: 0 if that is still so. Needs node, npm and the registry of npm.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --prefix "$dir" systemd-socket@0.0.0 >/dev/null
LISTEN_FDS=1 LISTEN_PID=$$ node -e \
    'console.log(process.pid === Number(process.env.LISTEN_PID), require("systemd-socket")())' | tee seen
diff seen - <<'SEEN'
false { fd: 3 }
SEEN
