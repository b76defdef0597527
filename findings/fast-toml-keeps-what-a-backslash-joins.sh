#!/usr/bin/env bash
# TOML: a long text broken with a backslash at the end of the line, which joins it to the next word.
#
# Seen: fast-toml 0.5.4 takes away one line end and keeps the white space after it, a further line end
# included. TOML has all of it go, up to the next character; Python's tomllib does so.
#
# Bitten: long values laid out over several lines: an address list or a command gets spaces and line ends
# in the middle, where other parsers have one word. Keep such values on one line.
#
# Exit code: 0 if that is still so. Needs node, npm, the registry of npm and python3 (3.11).
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --prefix "$dir" fast-toml@0.5.4 >/dev/null
printf 'targets = """192.0.2.1:22,\\\n    192.0.2.2:22,\\\n\n    192.0.2.3:22"""\n' >file.toml
{
    node -e 'console.log(JSON.stringify(require("fast-toml").parseFileSync("file.toml")))'
    python3 -c 'import json, tomllib; print(json.dumps(tomllib.load(open("file.toml", "rb"))))'
} | tee seen
diff seen - <<'SEEN'
{"targets":"192.0.2.1:22,    192.0.2.2:22,\n    192.0.2.3:22"}
{"targets": "192.0.2.1:22,192.0.2.2:22,192.0.2.3:22"}
SEEN
