#!/usr/bin/env bash
# An ssh configuration with a comment behind a value, read and written back unchanged.
#
# Seen: ssh-config 5.3.0 for node drops the space before the "#". OpenSSH 9.2 read the comment as such
# before; now its beginning is part of the value, and the whole file is refused, for every host.
#
# Bitten: users whose editor or tool adds a host to ~/.ssh/config by means of it. Keep comments on lines
# of their own there, or put what is generated into a file of its own and Include it.
#
# Exit code: 0 if that is still so. Needs node, npm, the registry of npm and OpenSSH's client.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --prefix "$dir" ssh-config@5.3.0 >/dev/null
cat >before <<'CONFIG'
Host board-1
  Port 22001 # on the proxy
CONFIG
cat >probe.js <<'JS'
const SSHConfig = require('ssh-config').default;
const fs = require('fs');
fs.writeFileSync('after', SSHConfig.stringify(SSHConfig.parse(fs.readFileSync('before', 'utf8'))));
JS
node probe.js
{
    grep Port before after
    for file in before after; do
        { ssh -G -F "$file" board-1 2>&1 </dev/null || true; } | tr -d '\r' |
            sed -n "s/^port /$file: port /p; s/.*\(Bad port.*\)/$file: \1/p"
    done
} | tee seen
diff seen - <<'SEEN'
before:  Port 22001 # on the proxy
after:  Port 22001# on the proxy
before: port 22001
after: Bad port '22001#'.
SEEN
