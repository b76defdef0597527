#!/usr/bin/env bash
# nginx: a semicolon escaped with a backslash, `~^a\;b$ 127.0.0.1:22001;` in a map, which nginx 1.22 takes
# for part of the word.
#
# Seen: nginx-conf 2.1.0 for node ends the directive there and reads the rest as another one; written back
# the file has two entries in place of one, without an error, and nginx refuses it. In quotes the
# semicolon is kept.
#
# Bitten: tools that change some other line of the file. Quote such words.
#
# Exit code: 0 if that is still so. Needs node, npm and the registry of npm.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --prefix "$dir" nginx-conf@2.1.0 >/dev/null
cat >probe.js <<'JS'
const { NginxConfFile } = require('nginx-conf');
for (const word of ['a\\;b', '"a;b"'])
  NginxConfFile.createFromSource(`map $x $y {\n    ${word} 1;\n}\n`, (error, file) =>
    console.log(error ? `error: ${error.message}` : file.toString().trim()));
JS
node probe.js | tee seen
diff seen - <<'SEEN'
map $x $y {
    a\;
    b 1;
}
map $x $y {
    "a;b" 1;
}
SEEN
