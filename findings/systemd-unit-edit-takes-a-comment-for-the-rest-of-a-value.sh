#!/usr/bin/env bash
# A unit file with a value over several lines, one of them commented out. The manual, systemd.syntax(7): after
# a line that ends in a backslash comments are ignored, and the line after them is the one that is joined; its
# example has two.
#
# Seen: systemd-unit-edit 0.1.0 for Python joins the comment, which is part of the value then. Without a
# backslash of its own it ends the value: the next line becomes a setting where it can be one, and where it
# cannot, as in that example, the file is refused as if its white space were wrong. systemd 252 takes all.
#
# Bitten: who reads commands or environments of units with it, to show or to compare them: variables that were
# taken out are there, or the last ones are missing. Look for comments behind such lines first.
#
# Exit code: 0 if that is still so. Needs python3 with venv, the registry of Python packages and
# systemd-analyze.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check systemd-unit-edit==0.1.0
cat >"$dir/probe.py" <<'PY'
import subprocess
import sys
from systemd_unit_edit import SystemdUnit

path = sys.argv[1] + "/probe.service"
for comment in ("", r"# C=3 \|", "# C=3|", "# C=3|  "):
    lines = rf"Environment=A=1 \|{comment}B=2"
    print(lines)
    with open(path, "w") as file:
        print("[Service]", "ExecStart=/bin/true", *lines.split("|"), sep="\n", file=file)
    if subprocess.run(["systemd-analyze", "verify", "--man=no", path]).returncode == 0:
        print("  systemd: valid")
    try:
        for entry in SystemdUnit.from_file(path).get_section("Service").entries():
            if entry.key() != "ExecStart":
                print(f"  {entry.key()} is {entry.value()}")
    except ValueError as error:
        print(" ", str(error).splitlines()[0])
PY
"$dir/venv/bin/python" "$dir/probe.py" "$dir" 2>&1 | tee "$dir/seen"
diff "$dir/seen" - <<'SEEN'
Environment=A=1 \|B=2
  systemd: valid
  Environment is A=1 B=2
Environment=A=1 \|# C=3 \|B=2
  systemd: valid
  Environment is A=1 # C=3 B=2
Environment=A=1 \|# C=3|B=2
  systemd: valid
  Environment is A=1 # C=3
  B is 2
Environment=A=1 \|# C=3|  B=2
  systemd: valid
  unexpected whitespace at start of line (should be indented continuation or blank line)
SEEN
