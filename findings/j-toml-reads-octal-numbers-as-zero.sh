#!/usr/bin/env bash
# TOML: the mode of a socket as an octal number, read into plain JavaScript numbers.
#
# Seen: @ltd/j-toml 1.38.0 with `bigint: false` reads every octal and binary number as 0, without an
# error. Decimal and hexadecimal ones are right, and so is everything as BigInt, its default.
#
# Bitten: who switches BigInt off, as one does to hand the values on as JSON: `mode = 0o660` arrives as
# 0. Keep BigInt and convert with Number(), or write such values as strings.
#
# Exit code: 0 if that is still so. Needs node, npm and the registry of npm.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --prefix "$dir" @ltd/j-toml@1.38.0 >/dev/null
cat >probe.js <<'JS'
const toml = require('@ltd/j-toml');
for (const text of ['0o660', '0b101', '0xff', '432'])
  console.log(text, ...[true, false].map((bigint) => String(toml.parse(`mode = ${text}`, { bigint }).mode)));
JS
node probe.js | tee seen
diff seen - <<'SEEN'
0o660 432 0
0b101 5 0
0xff 255 255
432 432 432
SEEN
