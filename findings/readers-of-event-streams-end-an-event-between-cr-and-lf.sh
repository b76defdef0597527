#!/usr/bin/env bash
# Server-Sent Events: lines that end with CR and LF, as the HTML standard allows in 9.2.5, and a piece of the
# stream that ends between the two, where a packet or a buffer of a proxy was full.
#
# Seen: parse-sse 0.1.0 and event-stream-parser 1.0.2 for node take the CR for the end of the line and the
# LF of the next piece for an empty line, which ends the event: one with two lines of data comes out in two,
# the second without a type, or the only one loses its type. With LF alone they are right at every cut.
#
# Bitten: clients behind a proxy, which cuts a stream at other places than the server did: now and then a
# text of several lines arrives in two halves. Have the server end lines with LF alone.
#
# Exit code: 0 if that is still so. Needs node, npm and the registry of npm.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --prefix "$dir" parse-sse@0.1.0 event-stream-parser@1.0.2 >/dev/null
cat >probe.mjs <<'JS'
import { parseServerSentEvents } from 'parse-sse';
import { createRequire } from 'node:module';
// The second makes events of the browser's class, which not every node has.
globalThis.MessageEvent ??= class { constructor(type, { data }) { Object.assign(this, { type, data }); } };
const { parse } = createRequire(import.meta.url)('event-stream-parser');
const readers = {
  'parse-sse': (stream) => parseServerSentEvents(new Response(stream)),
  'event-stream-parser': parse,
};
const text = 'event: log\r\ndata: one\r\ndata: two\r\n\r\n';
for (const [name, read] of Object.entries(readers))
  for (const end of ['\r\n', '\n']) {
    const bytes = new TextEncoder().encode(text.replaceAll('\r\n', end));
    const found = {};
    for (let cut = 1; cut < bytes.length; cut++) {
      const pieces = [bytes.slice(0, cut), bytes.slice(cut)];
      const stream = new ReadableStream({
        pull: (to) => (pieces.length ? to.enqueue(pieces.shift()) : to.close()),
      });
      const events = [];
      for await (const { type, data } of await read(stream)) events.push([type, data]);
      (found[JSON.stringify(events)] ??= []).push(cut);
    }
    console.log(name, JSON.stringify(end));
    for (const [events, cuts] of Object.entries(found))
      console.log(' ', events, cuts.length > 9 ? `${cuts.length} places` : `cut at ${cuts}`);
  }
JS
node probe.mjs | tee seen
diff seen - <<'SEEN'
parse-sse "\r\n"
  [["log","one\ntwo"]] 33 places
  [["message","one\ntwo"]] cut at 11
  [["log","one"],["message","two"]] cut at 22
parse-sse "\n"
  [["log","one\ntwo"]] 31 places
event-stream-parser "\r\n"
  [["log","one\ntwo"]] 33 places
  [["message","one\ntwo"]] cut at 11
  [["log","one"],["message","two"]] cut at 22
event-stream-parser "\n"
  [["log","one\ntwo"]] 31 places
SEEN
