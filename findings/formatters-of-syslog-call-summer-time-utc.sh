#!/usr/bin/env bash
# syslog: the time of a message on a host in London, in summer. RFC 5424, 6.2.3: an offset of `Z` says that
# the time is UTC; summer time there has +01:00.
#
# Seen: syslog-rfc5424-formatter 1.2.3 and rfc5424syslog 0.0.1 for Python's logging write the local time with
# a `Z` wherever standard time is UTC (London, Lisbon, Dublin): from March to October every message is an
# hour ahead. In a zone whose standard time differs from UTC, in summer or not, they write the offset.
#
# Bitten: who lines up the logs of several hosts, or alerts on what is late: these hosts are an hour in the
# future for half of the year, and right when one looks in winter. Run such programs with TZ=UTC.
#
# Exit code: 0 if that is still so. Needs python3 (3.11) with venv and the registry of Python packages.
# Gives today a summer time of its own.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check \
    syslog-rfc5424-formatter==1.2.3 rfc5424syslog==0.0.1
cat >"$dir/probe.py" <<'PY'
import logging
import os
from datetime import datetime, timezone

import rfc5424syslog
import syslog_rfc5424_formatter

record = logging.LogRecord("app", logging.INFO, "", 1, "text", (), None)
record.created = int(record.created) + 0.25
for name, formatter in (
    ("syslog-rfc5424-formatter", syslog_rfc5424_formatter.RFC5424Formatter()),
    ("rfc5424syslog", rfc5424syslog.RFC5424Formatter("1 %(isotime)s")),
):
    stamp = formatter.format(record).split(" ")[1]
    ahead = datetime.fromisoformat(stamp) - datetime.fromtimestamp(record.created, timezone.utc)
    print(os.environ["TZ"].split(",")[0], name, stamp[26:], round(ahead.total_seconds()))
PY
# From the day before yesterday to the day after tomorrow.
summer=$(TZ=UTC python3 -c 'import time; day = time.gmtime().tm_yday - 1
print(f"{(day - 2) % 365}/0,{(day + 2) % 365}/0")')
for zone in "GMT0BST,$summer" GMT0 "CET-1CEST,$summer"; do
    TZ=$zone "$dir/venv/bin/python" "$dir/probe.py"
done | tee "$dir/seen"
diff "$dir/seen" - <<'SEEN'
GMT0BST syslog-rfc5424-formatter Z 3600
GMT0BST rfc5424syslog Z 3600
GMT0 syslog-rfc5424-formatter Z 0
GMT0 rfc5424syslog Z 0
CET-1CEST syslog-rfc5424-formatter +02:00 0
CET-1CEST rfc5424syslog +02:00 0
SEEN
