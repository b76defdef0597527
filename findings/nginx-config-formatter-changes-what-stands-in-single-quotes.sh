#!/usr/bin/env bash
# nginx: a string in single quotes with several spaces in a row, or with JSON in it, as log formats have
# them. The manual: `log_format NAME [escape=default|json|none] STRING ...`.
#
# Seen: nginx-config-formatter 1.4.5 makes one space of several within single quotes, while its README says
# that it leaves alone what is quoted. JSON it breaks into lines, with placeholders of its own in place of
# the words in double quotes, and it reports success. Strings in double quotes stay as they are.
#
# Bitten: nginx 1.22 takes the first, and its log has other columns than before; the second it refuses at
# the next reload, and the words are lost. Write such strings in double quotes before formatting.
#
# Exit code: 0 if that is still so. Needs node, npm and the registry of npm.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --prefix "$dir" nginx-config-formatter@1.4.5 >/dev/null
cat >probe.mjs <<'JS'
import { formatContent } from 'nginx-config-formatter';
for (const text of [
  `log_format a "$status  $host";`,
  `log_format b '$status  $host';`,
  `log_format c escape=json "{\\"status\\":\\"$status\\"}";`,
  `log_format d escape=json '{"status":"$status"}';`,
])
  console.log(formatContent(text).trim());
JS
node probe.mjs | tee seen
diff seen - <<'SEEN'
log_format a "$status  $host";
log_format b '$status $host';
log_format c escape=json "{\"status\":\"$status\"}";
log_format d escape=json ' {
    #$#%#$#placeholder03434#$#%#$#:#$#%#$#placeholder13434#$#%#$
}
';
SEEN
