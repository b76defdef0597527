#!/usr/bin/env bash
# A time as systemd.time(7) has it, every hour: `*-*-* *:00:00`, or `hourly`.
#
# Seen: justnow 0.1.4 never gives 23 o'clock where the hour is a `*`: 22:00 is followed by 0:00, on every
# day and without an error. Written out, `*-*-* 23:00:00`, the hour is there. systemd 252 gives all 24.
#
# Bitten: schedulers that run on such expressions: what is due every hour, or every five minutes, stays away
# for an hour and more each night. List the hours.
#
# Exit code: 0 if that is still so. Needs python3 with venv, the registry of Python packages and
# systemd-analyze.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check justnow==0.1.4 lark-parser==0.9.0
cat >"$dir/probe.py" <<'PY'
import sys
from datetime import datetime
from justnow.parser import EventParser

times = EventParser(event=sys.argv[1], reference_date=datetime(2026, 1, 20, 21, 50))
print("justnow:", *(f"{next(times):%H:%M}" for _ in range(4)))
PY
for event in '*-*-* *:00:00' '*-*-* *:00,30:00' '*-*-* 21,22,23,00:00:00'; do
    echo "$event"
    "$dir/venv/bin/python" -W ignore "$dir/probe.py" "$event"
    TZ=UTC systemd-analyze calendar --iterations=4 --base-time='2026-01-20 21:50:00' "$event" |
        sed -nE 's/.*(elapse|Iter.*): .* ([0-9]{2}:[0-9]{2}):00 UTC$/\2/p' |
        paste -sd ' ' | sed 's/^/systemd: /'
done | tee "$dir/seen"
diff "$dir/seen" - <<'SEEN'
*-*-* *:00:00
justnow: 22:00 00:00 01:00 02:00
systemd: 22:00 23:00 00:00 01:00
*-*-* *:00,30:00
justnow: 22:00 22:30 00:00 00:30
systemd: 22:00 22:30 23:00 23:30
*-*-* 21,22,23,00:00:00
justnow: 22:00 23:00 00:00 21:00
systemd: 22:00 23:00 00:00 21:00
SEEN
