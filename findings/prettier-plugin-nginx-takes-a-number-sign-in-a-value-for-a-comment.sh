#!/usr/bin/env bash
# nginx: an address with a fragment, `return 301 /#/login;`, as applications with one page have them. To
# nginx a number sign starts a comment only where a word could start.
#
# Seen: prettier-plugin-nginx 1.0.3 takes one within a word, in quotes or not, for a comment to the end of the
# line, loses words that stand before it, and reports success. The directive goes on in the next line:
# nginx 1.22 refuses most of what comes of it, and takes `try_files $uri / root /srv;`, without a root then.
#
# Bitten: who has files formatted before each commit: a code or an address is gone, and the hook is content.
# List files with such values in .prettierignore.
#
# Exit code: 0 if that is still so. Needs node, npm, the registry of npm and nginx.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --prefix "$dir" prettier@3.10.1 prettier-plugin-nginx@1.0.3 >/dev/null
for line in 'return 301 /login;' 'return 301 /#/login;' 'return 301 "/#/login";' \
    $'try_files $uri /#/none;\n        root /srv;'; do
    cat >before.nginx <<CONFIG
pid $dir/pid;
events {
}
http {
    server {
        listen 127.0.0.1:22001;
        $line
    }
}
CONFIG
    node_modules/.bin/prettier --plugin "$dir/node_modules/prettier-plugin-nginx/dist/index.js" before.nginx \
        >after.nginx
    for file in before after; do
        nginx -t -q -e stderr -c "$dir/$file.nginx" 2>/dev/null && state=valid || state=refused
        echo "$file, $state: $(sed '1,/listen/d;/}/,$d;s/^ *//' $file.nginx | paste -sd '|')"
    done
done | tee seen
diff seen - <<'SEEN'
before, valid: return 301 /login;
after, valid: return 301 /login;
before, valid: return 301 /#/login;
after, refused: return|#/login;
before, valid: return 301 "/#/login";
after, refused: return|#/login";
before, valid: try_files $uri /#/none;|root /srv;
after, valid: try_files $uri / #/none;|root /srv;
SEEN
