#!/usr/bin/env bash
# A text file of metrics whose lines have their labels in different orders, as files have that several
# scripts add to. The format gives the order no meaning; promtool has no word against it.
#
# Seen: promtext-cli 0.2.0, which adds a value to such a file, writes every line of a metric with the names
# of the first line and its own values, in the order they stood in: `{job="copy",board="b2"}` behind
# `{board="b1",job="copy"}` becomes `{board="copy",job="b2"}`. It reports success.
#
# Bitten: who adds the time of a backup to a file of others: a metric that was not touched moves to a series
# that nobody looks at, and its alert for the old one goes silent. Keep one file for each script.
#
# Exit code: 0 if that is still so. Needs python3 with venv, the registry of Python packages and promtool.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check promtext-cli==0.2.0 prometheus-client==0.26.0
cd "$dir"
cat >file.prom <<'METRICS'
# HELP backup_bytes Size of the last backup.
# TYPE backup_bytes gauge
backup_bytes{board="b1",job="copy"} 1.0
backup_bytes{job="copy",board="b2"} 2.0
METRICS
{
    promtool check metrics <file.prom && echo 'promtool: valid'
    venv/bin/promtext file.prom other_bytes 3 --docs 'Another metric.'
    cat file.prom
} 2>&1 | tee seen
diff seen - <<'SEEN'
promtool: valid
# HELP backup_bytes Size of the last backup.
# TYPE backup_bytes gauge
backup_bytes{board="b1",job="copy"} 1.0
backup_bytes{board="copy",job="b2"} 2.0
# HELP other_bytes Another metric.
# TYPE other_bytes gauge
other_bytes 3.0
SEEN
