#!/usr/bin/env bash
# nginx: a string in single quotes with a semicolon or a number sign in it, read and written back unchanged.
#
# Seen: python-nginx 1.5.7 puts double quotes around the value and leaves the single ones in: to nginx 1.22
# they are part of the text then, and it takes the file. In a directive with two values, as `log_format`,
# both become one value, and nginx refuses the file. With double quotes it writes what it read.
#
# Bitten: tools that add a server to a file by means of it: texts elsewhere in the file change, and nothing
# says so. Write such strings in double quotes.
#
# Exit code: 0 if that is still so. Needs python3 with venv, the registry of Python packages and nginx with
# its stream module.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check python-nginx==1.5.7
cat >"$dir/probe.py" <<'PY'
import sys

import nginx

nginx.dumpf(nginx.loadf(sys.argv[1]), sys.argv[2])
PY
cd "$dir"
for line in "return 'a;b';" "return 'board #1';" 'return "a;b";' \
    "log_format short '\$remote_addr; \$status'; return a;"; do
    cat >before.conf <<CONFIG
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
pid $dir/pid;
events {
}
stream {
    ${line%return*}
    server {
        listen 127.0.0.1:22001;
        return ${line##*return }
    }
}
CONFIG
    venv/bin/python probe.py before.conf after.conf
    for file in before after; do
        nginx -t -q -e stderr -c "$dir/$file.conf" 2>/dev/null && state=valid || state=refused
        echo "$file, $state: $(grep -o 'log_format.*\|return .*' $file.conf | paste -sd ' ')"
    done
done | tee seen
diff seen - <<'SEEN'
before, valid: return 'a;b';
after, valid: return "'a;b'";
before, valid: return 'board #1';
after, valid: return "'board #1'";
before, valid: return "a;b";
after, valid: return "a;b";
before, valid: log_format short '$remote_addr; $status';  return a;
after, refused: log_format "short '$remote_addr; $status'"; return a;
SEEN
