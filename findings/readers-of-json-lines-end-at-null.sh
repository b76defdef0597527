#!/usr/bin/env bash
# JSON lines with a line `null`, as a program writes it that has nothing to say about a record. The format,
# jsonlines.org, 2: every line is a JSON value, null too.
#
# Seen: ndjson 2.0.0 and jsonlines 0.1.1 for node hand the value on to the stream, to which null is the end.
# Where the next line comes in a piece of its own, the loop over what jsonlines reads ends there, without an
# error and long before the file does. In the same piece, and with ndjson always, what comes next is the error
# "stream.push() after EOF", and values before it may be lost as well. @jsonlines/core 1.0.2 reads them all.
#
# Bitten: who copies or counts records with them: how much is read depends on how the pieces fall, and the
# error names neither the line nor the value. Write an object in place of null.
#
# Exit code: 0 if that is still so. Needs node, npm and the registry of npm.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --prefix "$dir" ndjson@2.0.0 jsonlines@0.1.1 @jsonlines/core@1.0.2 \
    >/dev/null
cat >probe.js <<'JS'
const { Readable } = require('node:stream');
const { setTimeout: wait } = require('node:timers/promises');

async function* slowly(pieces) {
  for (const piece of pieces) {
    yield piece;
    await wait(50);
  }
}

(async () => {
  for (const name of ['ndjson', 'jsonlines', '@jsonlines/core'])
    for (const pieces of [['1\nnull\n', '2\n', '3\n'], ['1\nnull\n2\n3\n']]) {
      const read = [];
      try {
        const values = Readable.from(slowly(pieces)).pipe(require(name).parse());
        values.on('error', () => {});
        for await (const value of values) read.push(value);
        read.push('end');
      } catch (error) {
        read.push(error.message);
      }
      console.log(name, JSON.stringify(pieces), JSON.stringify(read));
    }
})();
JS
node probe.js | tee seen
diff seen - <<'SEEN'
ndjson ["1\nnull\n","2\n","3\n"] [1,"stream.push() after EOF"]
ndjson ["1\nnull\n2\n3\n"] ["stream.push() after EOF"]
jsonlines ["1\nnull\n","2\n","3\n"] [1,"end"]
jsonlines ["1\nnull\n2\n3\n"] ["stream.push() after EOF"]
@jsonlines/core ["1\nnull\n","2\n","3\n"] [1,null,2,3,"end"]
@jsonlines/core ["1\nnull\n2\n3\n"] [1,null,2,3,"end"]
SEEN
