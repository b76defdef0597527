#!/usr/bin/env bash
# Four clients at once for a server that takes one (`maxconn 1`) and may keep one waiting (`maxqueue 1`).
#
# Seen: in HAProxy 2.6.12 the two that are too many are turned away at once only if the balance binds
# clients to a server (`source`). With the default (`roundrobin`) and with `leastconn` all three wait for
# the whole `timeout queue`: they stand in the queue of the back end, which has no bound of its own, and
# maxqueue counts those of the server alone.
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
QUEUE = 3.0

target = socket.create_server(("127.0.0.1", 0))
to = target.getsockname()[1]

def keep():
    kept = []
    while True:
        client, _ = target.accept()
        client.sendall(b"served")
        kept.append(client)

threading.Thread(target=keep, daemon=True).start()

def free():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]

def client(port):
    for _ in range(100):
        try:
            link = socket.create_connection(("127.0.0.1", port))
            break
        except ConnectionRefusedError:
            time.sleep(0.05)
    link.settimeout(30)
    return link

def seen(link, begun):
    """Whether it was served, and if not, whether it had to wait."""
    if link.recv(100):
        return "served"
    return "waited" if time.monotonic() - begun > QUEUE / 2 else "turned away"

wrong = False
for balance, expected in [("source", 2), ("roundrobin", 0), ("leastconn", 0)]:
    port = free()
    with open(f"{work}/haproxy.cfg", "w") as file:
        file.write("defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n"
                   f" timeout queue {int(QUEUE * 1000)}\nlisten x\n bind 127.0.0.1:{port}\n balance {balance}\n"
                   f" server t 127.0.0.1:{to} maxconn 1 maxqueue 1\n")
    proxy = subprocess.Popen([f"{root}/usr/sbin/haproxy", "-db", "-f", f"{work}/haproxy.cfg"],
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        first = client(port)
        assert first.recv(100) == b"served"
        found = []
        threads = []
        for _ in range(3):
            link, begun = client(port), time.monotonic()
            threads.append(threading.Thread(target=lambda link=link, begun=begun: found.append(seen(link, begun))))
            threads[-1].start()
        for thread in threads:
            thread.join()
    finally:
        proxy.kill()
        proxy.wait()
    away = found.count("turned away")
    print(f"{balance}: {away} turned away, {found.count('waited')} waited")
    wrong |= away != expected or found.count("waited") != 3 - expected
sys.exit(wrong)
PY
python3 "$dir/probe.py" "$dir"
