#!/usr/bin/env bash
# nginx: a comment behind a directive that holds settings of before, `# was 192.0.2.2:22; proxy_timeout 1h;`.
# To nginx a comment goes on to the end of the line, whatever is in it.
#
# Seen: nginxfmt 1.4.0 breaks the line at the semicolon within the comment, and what stands behind it is a
# directive: nginx 1.22 takes the file with a `proxy_timeout` that was not in force before. Comments with
# a line of their own stay as they are. It reports success.
#
# Bitten: who formats a file in which old settings were kept as comments: they are back with the next reload.
# Where nginx refuses the rest of the comment, the file is lost for that reload. Give comments a line of
# their own before formatting.
#
# Exit code: 0 if that is still so. Needs python3 with venv, the registry of Python packages and nginx with
# its stream module.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check nginxfmt==1.4.0
cd "$dir"
for comment in 'proxy_pass 192.0.2.1:22; # was 192.0.2.2:22; proxy_timeout 1h;' \
    'proxy_pass 192.0.2.1:22; # was 192.0.2.2:22; it failed' \
    $'# was 192.0.2.2:22; proxy_timeout 1h;\n    proxy_pass 192.0.2.1:22;'; do
    cat >file.conf <<CONFIG
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
pid $dir/pid;
events {}
stream {
  server {
    listen 127.0.0.1:22001;
    $comment
  }
}
CONFIG
    nginx -t -q -e stderr -c "$dir/file.conf" 2>/dev/null && echo 'before: valid'
    venv/bin/nginxfmt file.conf
    sed -n '/listen/,/}/p' file.conf | grep -v '[l}]isten\|}' | sed 's/^ */  /'
    nginx -t -q -e stderr -c "$dir/file.conf" 2>/dev/null && echo 'after: valid' || echo 'after: refused'
done | tee seen
diff seen - <<'SEEN'
before: valid
  proxy_pass 192.0.2.1:22;
  # was 192.0.2.2:22;
  proxy_timeout 1h;
after: valid
before: valid
  proxy_pass 192.0.2.1:22;
  # was 192.0.2.2:22;
  it failed;
after: refused
before: valid
  # was 192.0.2.2:22; proxy_timeout 1h;
  proxy_pass 192.0.2.1:22;
after: valid
SEEN
