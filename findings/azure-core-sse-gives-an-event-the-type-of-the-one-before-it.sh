#!/usr/bin/env bash
# Server-Sent Events: an event with a type and no data, `event: ping`, as services send it to keep the
# connection open. HTML standard, 9.2.6: it is dropped, and its type with it.
#
# Seen: @azure/core-sse 2.4.0 for node drops it and keeps the type: the next event, which has data and no
# type of its own, comes out as a `ping`. With data in the first, the second has no type, as it should.
#
# Bitten: programs that skip events of the type `ping`: they skip the data that follow one, now and then and
# only on quiet connections. Send such signs of life as comments (`: ping`), or name the type of every event.
#
# Exit code: 0 if that is still so. Needs node (22 by its own word, 20 does), npm and the registry of npm.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --prefix "$dir" @azure/core-sse@2.4.0 >/dev/null
cat >probe.mjs <<'JS'
import { createSseStream } from '@azure/core-sse';
for (const first of ['event: ping\n\n', 'event: ping\ndata: 0\n\n', ': ping\n\n']) {
  const seen = [];
  for await (const { event, data } of createSseStream(new Response(`${first}data: 1\n\n`).body))
    seen.push(`${event || 'no type'} ${data}`);
  console.log(`${JSON.stringify(first)}: ${seen.join(', ')}`);
}
JS
node probe.mjs | tee seen
diff seen - <<'SEEN'
"event: ping\n\n": ping 1
"event: ping\ndata: 0\n\n": ping 0, no type 1
": ping\n\n": no type 1
SEEN
