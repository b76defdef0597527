#!/usr/bin/env bash
# Server-Sent Events: JSON with U+2028 in a text, which JSON.stringify writes as it is. HTML standard, 9.2.5:
# lines end with CR, LF or both, and with nothing else.
#
# Seen: @server-sent-stream/parser 1.0.4 for node cuts the data there, without an error. sse-decoder 1.0.0
# starts a new line there, drops it as a field that it does not know, and stops with "Unterminated string".
# It cannot read back JSON lines of its own either.
#
# Bitten: streams of texts that people paste from documents, where the character stands for a soft line
# end: one such message is short, or ends the stream for that client. Have the server write `\u2028`.
#
# Exit code: 0 if that is still so. Needs node, npm and the registry of npm.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --prefix "$dir" @server-sent-stream/parser@1.0.4 sse-decoder@1.0.0 \
    >/dev/null
cat >probe.mjs <<'JS'
import { createRequire } from 'node:module';
const require = createRequire(import.meta.url);
const Parser = require('@server-sent-stream/parser').default;
const { Stream } = require('sse-decoder');
for (const text of ['one two', 'one\u2028two']) {
  const message = { text };
  const show = (name, data) => console.log(name, data.replaceAll('\u2028', '<U+2028>'));
  const sent = `data: ${JSON.stringify(message)}\n\n`;
  show('sent:', sent.trim());
  new Parser((data) => show('@server-sent-stream/parser:', data)).push(sent);
  console.error = () => {};
  const back = async (name, stream) => {
    try {
      for await (const read of stream) show(name, JSON.stringify(read));
    } catch (error) {
      show(name, error.message.split(' (')[0]);
    }
  };
  const control = new AbortController();
  await back('sse-decoder:', Stream.fromSSEResponse(new Response(sent), control));
  const own = new Stream(async function* () { yield message; }, control).toReadableStream();
  await back('sse-decoder, lines of its own:', Stream.fromReadableStream(own, control));
}
JS
node probe.mjs | tee seen
diff seen - <<'SEEN'
sent: data: {"text":"one two"}
@server-sent-stream/parser: {"text":"one two"}
sse-decoder: {"text":"one two"}
sse-decoder, lines of its own: {"text":"one two"}
sent: data: {"text":"one<U+2028>two"}
@server-sent-stream/parser: {"text":"one
sse-decoder: Unterminated string in JSON at position 12
sse-decoder, lines of its own: Unterminated string in JSON at position 12
SEEN
