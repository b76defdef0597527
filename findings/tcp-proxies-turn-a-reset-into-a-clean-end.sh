#!/usr/bin/env bash
# A target sends some bytes of an answer and then resets the connection (its process was killed, say).
#
# Seen: behind HAProxy 2.6.12 (mode tcp), nginx 1.22.1 (stream), socat 1.7.4.4 and rinetd 0.73 the
# client gets those bytes and then a clean end of stream, as if the answer were whole; without a proxy
# recv(2) fails with ECONNRESET. Protocols in which the end of the stream is the end of the data cannot
# tell a cut answer from a whole one.
#
# Exit code: 0 if that is still so. Needs python3, apt-get and dpkg, as on Debian 12; unpacks the
# packages that are not installed into a temporary folder.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir/debs/partial" "$dir/root"
chmod 755 "$dir" "$dir/debs"
(
    cd "$dir/debs"
    apt-get download -q haproxy=2.6.12-1+deb12u4 nginx=1.22.1-9+deb12u11 libnginx-mod-stream=1.22.1-9+deb12u11 \
        socat=1.7.4.4-2 rinetd=0.73-1 >/dev/null
    # What they need, as far as this machine lacks it.
    apt-get install -q -y --no-install-recommends --download-only -o Dir::Cache::archives="$dir/debs" \
        haproxy nginx libnginx-mod-stream socat rinetd >/dev/null
)
for deb in "$dir"/debs/*.deb; do dpkg -x "$deb" "$dir/root"; done
cat >"$dir/probe.py" <<'PY'
import os, socket, struct, subprocess, sys, threading, time

root, work = sys.argv[1] + "/root", sys.argv[1]
os.environ["LD_LIBRARY_PATH"] = f"{root}/usr/lib/x86_64-linux-gnu:{root}/lib/x86_64-linux-gnu"

target = socket.create_server(("127.0.0.1", 0))

def answer():
    while True:
        client, _ = target.accept()
        client.sendall(b"half an answer")
        time.sleep(0.3)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()

threading.Thread(target=answer, daemon=True).start()
to = target.getsockname()[1]

def free():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]

def write(name, text):
    with open(f"{work}/{name}", "w") as file:
        file.write(text)
    return f"{work}/{name}"

def client(port):
    for _ in range(100):
        try:
            link = socket.create_connection(("127.0.0.1", port))
            break
        except ConnectionRefusedError:
            time.sleep(0.05)
    link.settimeout(20)
    got = b""
    try:
        while part := link.recv(100):
            got += part
        return f"{len(got)} bytes, then a clean end"
    except ConnectionResetError:
        return f"{len(got)} bytes, then a reset"

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
    yield "socat", port, [f"{root}/usr/bin/socat", f"TCP-LISTEN:{port},bind=127.0.0.1", f"TCP:127.0.0.1:{to}"]
    port = free()
    file = write("rinetd.conf", f"127.0.0.1 {port} 127.0.0.1 {to}\n")
    yield "rinetd", port, [f"{root}/usr/sbin/rinetd", "-f", "-c", file]

print("without:", client(to))
for name, port, command in proxies():
    with open(f"{work}/{name}.out", "w") as out:
        proxy = subprocess.Popen(command, stdout=out, stderr=out)
    print(f"{name}:", client(port))
    proxy.terminate()
    proxy.wait()
PY
python3 "$dir/probe.py" "$dir" | tee "$dir/seen"
diff "$dir/seen" - <<'SEEN'
without: 14 bytes, then a reset
haproxy: 14 bytes, then a clean end
nginx: 14 bytes, then a clean end
socat: 14 bytes, then a clean end
rinetd: 14 bytes, then a clean end
SEEN
