#!/usr/bin/env bash
# Debian control files: a dependency on a version that ends in a tilde, `libselinux1 (>= 3.1~)`, so that
# a backport of 3.1 will do. Debian Policy, 5.6.12: a tilde may stand in a version, and sorts before its end.
#
# Seen: debian-inspector 31.1.1 reads the dependency, and raises 'Invalid version string: "3.1~"' once it is
# asked whether a version meets it. A plus or a full stop at the end is refused, too; behind a revision the
# tilde is fine. dpkg 1.21 takes all of them.
#
# Bitten: tools that check dependencies of Debian's packages with it: of Debian 12's packages, coreutils has
# such a one, and it ends the check. Have `dpkg --compare-versions` compare.
#
# Exit code: 0 if that is still so. Needs python3 with venv, the registry of Python packages and dpkg.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check debian-inspector==31.1.1
cat >"$dir/probe.py" <<'PY'
import subprocess
from debian_inspector import deps

for version in ("3.1", "3.1~", "3.1-1~", "3.1+", "3.1."):
    needed = deps.parse_depends(f"libselinux1 (>= {version})")
    try:
        met = needed.matches("libselinux1", "3.1")
    except ValueError as error:
        met = error
    dpkg = subprocess.run(["dpkg", "--compare-versions", "3.1", "ge", version])
    print(f"3.1 for {needed}: {met}; dpkg: {dpkg.returncode == 0}")
PY
"$dir/venv/bin/python" "$dir/probe.py" | tee "$dir/seen"
diff "$dir/seen" - <<'SEEN'
3.1 for libselinux1 (>= 3.1): True; dpkg: True
3.1 for libselinux1 (>= 3.1~): Invalid version string: "3.1~"; dpkg: True
3.1 for libselinux1 (>= 3.1-1~): False; dpkg: False
3.1 for libselinux1 (>= 3.1+): Invalid version string: "3.1+"; dpkg: False
3.1 for libselinux1 (>= 3.1.): Invalid version string: "3.1."; dpkg: False
SEEN
