#!/usr/bin/env bash
# PostgreSQL connection strings `host = db.example port = 22001` and `postgresql://%2Frun%2Fpostgresql/db`.
# The manual, "Connection Strings": spaces around the equals sign are optional, and the directory of a
# socket stands percent-encoded in the place of the host.
#
# Seen: pgdsn2env 1.1.0 leaves out every setting with such spaces, without an error, so it makes nothing of
# the first. Of the second it hands on the host with its percent signs. libpq, asked through psycopg 3.2.9,
# reads both.
#
# Bitten: `source <(pgdsn2env "$DSN")` before psql or pg_dump, which with nothing set ask the server of this
# machine. Leave the spaces out, and give the directory as `?host=/run/postgresql`.
#
# Exit code: 0 if that is still so. Needs python3 with venv and the registry of Python packages.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check pgdsn2env==1.1.0 'psycopg[binary]==3.2.9'
cat >"$dir/probe.py" <<'PY'
from pgdsn2env import pg_dsn_to_env
from psycopg.conninfo import conninfo_to_dict

for text in (
    "host=db.example port=22001",
    "host = db.example port = 22001",
    "host = db.example port=22001",
    "postgresql://%2Frun%2Fpostgresql/db",
    "postgresql:///db?host=/run/postgresql",
):
    print(text)
    print("  libpq:", *(f"{name}={value}" for name, value in sorted(conninfo_to_dict(text).items())))
    print("  pgdsn2env:", *(f"{name}={value}" for name, value in sorted(pg_dsn_to_env(text).items())))
PY
"$dir/venv/bin/python" "$dir/probe.py" | tee "$dir/seen"
diff "$dir/seen" - <<'SEEN'
host=db.example port=22001
  libpq: host=db.example port=22001
  pgdsn2env: PGHOST=db.example PGPORT=22001
host = db.example port = 22001
  libpq: host=db.example port=22001
  pgdsn2env:
host = db.example port=22001
  libpq: host=db.example port=22001
  pgdsn2env: PGPORT=22001
postgresql://%2Frun%2Fpostgresql/db
  libpq: dbname=db host=/run/postgresql
  pgdsn2env: PGDATABASE=db PGHOST=%2Frun%2Fpostgresql
postgresql:///db?host=/run/postgresql
  libpq: dbname=db host=/run/postgresql
  pgdsn2env: PGDATABASE=db PGHOST=/run/postgresql
SEEN
