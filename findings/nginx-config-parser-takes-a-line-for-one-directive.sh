#!/usr/bin/env bash
# nginx: two directives on one line, `allow 192.0.2.0/24; deny all;`, which nginx 1.22 accepts.
#
# Seen: @webantic/nginx-config-parser 1.6.1 takes the line for one directive: "allow" has the value
# "192.0.2.0/24; deny all" and there is no "deny". With one directive a line it has both. Written back the
# text is the same, so that nothing shows until somebody asks for, or changes, one of the two.
#
# Bitten: who looks up in its object whether a server denies the rest, or sets another `allow`, and takes
# the `deny` away with it. Bring the file into one directive a line before (`crossplane format`).
#
# Exit code: 0 if that is still so. Needs node, npm and the registry of npm.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --prefix "$dir" @webantic/nginx-config-parser@1.6.1 >/dev/null
cat >probe.js <<'JS'
const Parser = require('@webantic/nginx-config-parser');
for (const between of [' ', '\n    ']) {
  const text = `stream {\n  server {\n    listen 22001;\n    allow 192.0.2.0/24;${between}deny all;\n  }\n}\n`;
  console.log(JSON.stringify(new Parser().parse(text).stream.server));
}
JS
node probe.js | tee seen
diff seen - <<'SEEN'
{"listen":"22001","allow":"192.0.2.0/24; deny all"}
{"listen":"22001","allow":"192.0.2.0/24","deny":"all"}
SEEN
