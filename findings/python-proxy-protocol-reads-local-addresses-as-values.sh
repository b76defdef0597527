#!/usr/bin/env bash
# PROXY protocol v2: a LOCAL header with an address block, which receivers have to skip.
#
# Seen: proxy-protocol 0.11.3 for Python reads the addresses as type-length-values. The first octet of
# the source address becomes the type of a value that nobody sent; here 5.0.1.7 ends up as a unique id.
# With most addresses the made-up length does not fit and nothing is seen of it.
#
# Exit code: 0 if that is still so. Needs python3 with venv and the registry of Python packages.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check proxy-protocol==0.11.3
cat >"$dir/probe.py" <<'PY'
from proxyprotocol.v2 import ProxyProtocolV2

addresses = bytes([5, 0, 1, 7, 198, 51, 100, 2, 0, 9, 0, 22])
header = b"\r\n\r\n\0\r\nQUIT\n\x20\x11\x00\x0c" + addresses
result = ProxyProtocolV2().unpack(header)
print("proxied:", result.proxied, "unique id:", result.tlv.unique_id)
PY
"$dir/venv/bin/python" "$dir/probe.py" | tee "$dir/seen"
diff "$dir/seen" - <<'SEEN'
proxied: False unique id: b'\x07'
SEEN
