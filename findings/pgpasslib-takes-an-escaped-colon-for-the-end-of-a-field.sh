#!/usr/bin/env bash
# A password file of PostgreSQL with a colon or a backslash in the password, `...:app:one\:two`. The manual,
# "The Password File": both are written with a backslash before them.
#
# Seen: pgpasslib 1.1.0 splits such a line at the last four colons, escaped or not. With an asterisk for the
# database it then finds no password and says nothing; with a name it raises an error about a port, for every
# host, whatever line holds its password. It keeps both of two backslashes. psql 15 sends what is meant.
#
# Bitten: programs that read the file with it beside psql, which goes on to work: they ask for a password or
# send a wrong one. Leave colons and backslashes out of passwords, or have libpq read the file.
#
# Exit code: 0 if that is still so. Needs python3 with venv, the registry of Python packages and psql.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check pgpasslib==1.1.0
cat >"$dir/probe.py" <<'PY'
import os
import socket
import struct
import subprocess
import sys
import threading
import pgpasslib

server = socket.create_server(("127.0.0.1", 0))
port = server.getsockname()[1]
path = os.environ["PGPASSFILE"] = sys.argv[1] + "/passwords"

def psql():
    """The password that psql sends when it is asked for one in clear text."""
    sent = []

    def serve():
        client, _ = server.accept()
        with client, client.makefile("rb") as reader:
            reader.read(struct.unpack("!i", reader.read(4))[0] - 4)
            client.sendall(b"R" + struct.pack("!ii", 8, 3))
            reader.read(1)
            sent.append(reader.read(struct.unpack("!i", reader.read(4))[0] - 4).rstrip(b"\0").decode())

    thread = threading.Thread(target=serve)
    thread.start()
    target = f"host=127.0.0.1 port={port} dbname=db user=app sslmode=disable gssencmode=disable"
    subprocess.run(["psql", "-w", target], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=30)
    thread.join(30)
    return sent[0]

for lines in (
    [r"127.0.0.1:*:*:app:one-two"],
    [r"127.0.0.1:*:*:app:one\:two"],
    [r"127.0.0.1:*:*:app:one\\two"],
    [r"127.0.0.1:*:*:app:one-two", r"192.0.2.1:5432:db:app:one\:two"],
):
    with open(path, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write("".join(line + "\n" for line in lines))
    print(*lines, sep="\n")
    try:
        found = pgpasslib.getpass("127.0.0.1", port, "db", "app")
    except pgpasslib.PgPassException as error:
        found = f"{type(error).__name__}, {error}"
    print("  pgpasslib:", found)
    print("  psql:", psql())
PY
"$dir/venv/bin/python" -W ignore "$dir/probe.py" "$dir" | tee "$dir/seen"
diff "$dir/seen" - <<'SEEN'
127.0.0.1:*:*:app:one-two
  pgpasslib: one-two
  psql: one-two
127.0.0.1:*:*:app:one\:two
  pgpasslib: None
  psql: one:two
127.0.0.1:*:*:app:one\\two
  pgpasslib: one\\two
  psql: one\two
127.0.0.1:*:*:app:one-two
192.0.2.1:5432:db:app:one\:two
  pgpasslib: InvalidEntry, Error validating port value "db"
  psql: one-two
SEEN
