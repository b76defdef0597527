#!/usr/bin/env bash
# A client sends a request, ends its half of the connection (shutdown(2) with SHUT_WR) and waits for the
# answer, which comes a second later. TCP allows that, and `nc -N` in a pipeline works so.
#
# Seen: behind nginx 1.22.1 (stream), socat 1.7.4.4, rinetd 0.73, redir 3.3 and xinetd 2.3.15.3
# (redirect) the answer is lost and the client reads a clean end of stream. HAProxy 2.6.12 (mode tcp)
# passes it on, and so does socat with an answer that comes within half a second.
#
# Bitten: who moves a forward from one to the other, and only with slow answers. nginx has
# `proxy_half_close on` (since 1.21.4) and socat `-t SECONDS`; the manuals of the others name no setting.
#
# Exit code: 0 if that is still so. Needs python3, apt-get and dpkg, as on Debian 12, and root; unpacks the
# packages into a temporary folder.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir/debs/partial" "$dir/root"
chmod 755 "$dir" "$dir/debs"
(
    cd "$dir/debs"
    apt-get download -q haproxy=2.6.12-1+deb12u4 nginx=1.22.1-9+deb12u11 libnginx-mod-stream=1.22.1-9+deb12u11 \
        socat=1.7.4.4-2 rinetd=0.73-1 redir=3.3-1 xinetd=1:2.3.15.3-1+b1 >/dev/null
    # What they need, as far as this machine lacks it.
    apt-get install -q -y --no-install-recommends --download-only -o Dir::Cache::archives="$dir/debs" \
        haproxy nginx libnginx-mod-stream socat rinetd redir xinetd >/dev/null
)
for deb in "$dir"/debs/*.deb; do dpkg -x "$deb" "$dir/root"; done
cat >"$dir/probe.py" <<'PY'
import os, socket, subprocess, sys, threading, time

root, work = sys.argv[1] + "/root", sys.argv[1]
os.environ["LD_LIBRARY_PATH"] = f"{root}/usr/lib/x86_64-linux-gnu:{root}/lib/x86_64-linux-gnu"

target = socket.create_server(("127.0.0.1", 0))

def serve(client):
    asked = b""
    while part := client.recv(100):
        asked += part
    time.sleep(1 if asked == b"slow" else 0)
    client.sendall(b"answer")
    client.close()

def accept():
    while True:
        threading.Thread(target=serve, args=(target.accept()[0],), daemon=True).start()

threading.Thread(target=accept, daemon=True).start()
to = target.getsockname()[1]

def free():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]

def write(name, text):
    with open(f"{work}/{name}", "w") as file:
        file.write(text)
    return f"{work}/{name}"

def connect(port):
    for _ in range(200):
        try:
            link = socket.create_connection(("127.0.0.1", port))
            link.settimeout(20)
            return link
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {port}")

def proxies():
    port = free()
    file = write("haproxy.cfg", "defaults\n mode tcp\n timeout connect 5s\n timeout client 30s\n"
                 f" timeout server 30s\nlisten x\n bind 127.0.0.1:{port}\n server t 127.0.0.1:{to}\n")
    yield "haproxy", port, [f"{root}/usr/sbin/haproxy", "-db", "-f", file]
    port = free()
    module = f"{root}/usr/lib/nginx/modules/ngx_stream_module.so"
    file = write("nginx.conf", f"load_module {module};\npid {work}/nginx.pid;\nerror_log {work}/nginx.log;\n"
                 f"events {{}}\nstream {{ server {{ listen 127.0.0.1:{port}; proxy_pass 127.0.0.1:{to}; }} }}\n")
    yield "nginx", port, [f"{root}/usr/sbin/nginx", "-c", file, "-g", "daemon off;"]
    port = free()
    yield "socat", port, [f"{root}/usr/bin/socat", f"TCP-LISTEN:{port},bind=127.0.0.1,fork", f"TCP:127.0.0.1:{to}"]
    port = free()
    file = write("rinetd.conf", f"127.0.0.1 {port} 127.0.0.1 {to}\n")
    yield "rinetd", port, [f"{root}/usr/sbin/rinetd", "-f", "-c", file]
    port = free()
    yield "redir", port, [f"{root}/usr/bin/redir", "-n", f"127.0.0.1:{port}", f"127.0.0.1:{to}"]
    port = free()
    file = write("xinetd.conf", "service ssh-forward\n{\n type = UNLISTED\n socket_type = stream\n"
                 f" protocol = tcp\n wait = no\n user = root\n bind = 127.0.0.1\n port = {port}\n"
                 f" redirect = 127.0.0.1 {to}\n}}\n")
    yield "xinetd", port, [f"{root}/usr/sbin/xinetd", "-dontfork", "-f", file, "-pidfile", f"{work}/xinetd.pid"]

def ask(port, request):
    link = connect(port)
    link.sendall(request)
    link.shutdown(socket.SHUT_WR)
    got = b""
    while part := link.recv(100):
        got += part
    return got.decode() or "nothing"

print("without:", ask(to, b"slow"))
for name, port, command in proxies():
    with open(f"{work}/{name}.out", "w") as out:
        proxy = subprocess.Popen(command, stdout=out, stderr=out)
    print(f"{name}: {ask(port, b'slow')}")
    proxy.terminate()
    proxy.wait()
PY
python3 "$dir/probe.py" "$dir" | tee "$dir/seen"
diff "$dir/seen" - <<'SEEN'
without: answer
haproxy: answer
nginx: nothing
socat: nothing
rinetd: nothing
redir: nothing
xinetd: nothing
SEEN
