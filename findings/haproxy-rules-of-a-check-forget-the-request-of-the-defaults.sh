#!/usr/bin/env bash
# `option httpchk GET /up` in `defaults`, and rules about the answer in a proxy.
#
# Seen: in HAProxy 2.6.12 a proxy with an `http-check expect` of its own sends no request at all: the
# check waits for an answer until its time is up, and the server is down (L7TOUT) although it would have
# answered as expected. With an `http-check send` of its own the method is OPTIONS again. Both go with the
# request of the option where that stands in the same proxy. `haproxy -c` says nothing.
#
# Exit code: 0 if that is still so. Needs python3, apt-get and dpkg, as on Debian 12; unpacks HAProxy and
# what it needs into a temporary folder.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir/debs/partial" "$dir/root"
chmod 755 "$dir" "$dir/debs"
(
    cd "$dir/debs"
    apt-get download -q haproxy=2.6.12-1+deb12u4 >/dev/null
    # What it needs, as far as this machine lacks it.
    apt-get install -q -y --no-install-recommends --download-only -o Dir::Cache::archives="$dir/debs" \
        haproxy >/dev/null
)
for deb in "$dir"/debs/*.deb; do dpkg -x "$deb" "$dir/root"; done
cat >"$dir/probe.py" <<'PY'
import os, socket, subprocess, sys, threading, time

root, work = sys.argv[1] + "/root", sys.argv[1]
os.environ["LD_LIBRARY_PATH"] = f"{root}/usr/lib/x86_64-linux-gnu:{root}/lib/x86_64-linux-gnu"

server = socket.create_server(("127.0.0.1", 0))
to = server.getsockname()[1]
asked = set()

def serve(client):
    client.settimeout(10)
    request = b""
    while b"\r\n\r\n" not in request:
        part = client.recv(1000)
        if not part:
            return
        request += part
    asked.add(b" ".join(request.split(b" ")[:2]).decode())
    client.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
    client.close()

def accept():
    while True:
        client, _ = server.accept()
        threading.Thread(target=serve, args=(client,), daemon=True).start()

threading.Thread(target=accept, daemon=True).start()

def free():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]

OWN = {
    "all inherited": "",
    "an expect of its own": " http-check expect status 200\n",
    "option and expect of its own": " option httpchk GET /own\n http-check expect status 200\n",
    "a send of its own": " http-check send uri /sent\n",
}
text = (f"global\n stats socket {work}/stats\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 30s\n"
        " timeout server 30s\n option httpchk GET /up\n default-server inter 500ms fall 1 rise 1\n")
for name, lines in OWN.items():
    text += f"listen {name.replace(' ', '-')}\n bind 127.0.0.1:{free()}\n{lines} server s 127.0.0.1:{to} check\n"
with open(f"{work}/haproxy.cfg", "w") as file:
    file.write(text)
proxy = subprocess.Popen([f"{root}/usr/sbin/haproxy", "-db", "-f", f"{work}/haproxy.cfg"],
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

def states():
    """Each server's state and the result of its last check."""
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(f"{work}/stats")
        link.sendall(b"show stat\n")
        answer = b""
        while part := link.recv(10000):
            answer += part
    lines = [line.split(",") for line in answer.decode().splitlines() if not line.startswith("#")]
    return {line[0]: (line[17], line[36].lstrip("* ")) for line in lines if len(line) > 36 and line[1] == "s"}

try:
    found = {}
    for _ in range(100):
        time.sleep(0.1)
        try:
            found = states()
        except OSError:
            continue
        if len(found) == len(OWN) and all(state[1] not in ("", "INI") for state in found.values()):
            break
finally:
    proxy.kill()
    proxy.wait()
for name, state in found.items():
    print(name, *state)
print("asked for:", *sorted(asked), sep="\n ")
good = ("UP", "L7OK")
expected = {name.replace(" ", "-"): good for name in OWN} | {"an-expect-of-its-own": ("DOWN", "L7TOUT")}
sys.exit(found != expected or asked != {"GET /up", "GET /own", "OPTIONS /sent"})
PY
python3 "$dir/probe.py" "$dir"
