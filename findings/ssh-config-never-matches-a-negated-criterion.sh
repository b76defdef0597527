#!/usr/bin/env bash
# ssh configuration: `Match !host board-1`, settings for every host but one.
#
# Seen: ssh-config 5.3.0 for node does not know the "!" before a criterion and never applies the block,
# to any host and without an error; "!" inside a list of patterns it knows. OpenSSH 9.2 applies it.
#
# Bitten: tools that ask it for the port or jump host of a name: they connect past the proxy, or not at
# all. Ask `ssh -G NAME` instead, or write `Match host *,!board-1`.
#
# Exit code: 0 if that is still so. Needs node, npm, the registry of npm and OpenSSH's client.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --prefix "$dir" ssh-config@5.3.0 >/dev/null
cat >probe.js <<'JS'
const SSHConfig = require('ssh-config').default;
const text = require('fs').readFileSync('config', 'utf8');
console.log('ssh-config:', SSHConfig.parse(text).compute('board-2').Port ?? 22);
JS
for criterion in '!host board-1' 'host board-* !user nobody-here' '!exec false' 'host *,!board-1'; do
    printf 'Match %s\n  Port 22001\n' "$criterion" >config
    echo "Match $criterion"
    node probe.js
    echo "ssh: $(ssh -G -F config board-2 2>/dev/null </dev/null | sed -n 's/^port //p')"
done | tee seen
diff seen - <<'SEEN'
Match !host board-1
ssh-config: 22
ssh: 22001
Match host board-* !user nobody-here
ssh-config: 22
ssh: 22001
Match !exec false
ssh-config: 22
ssh: 22001
Match host *,!board-1
ssh-config: 22001
ssh: 22001
SEEN
