#!/usr/bin/env bash
# known_hosts with hashed names (`HashKnownHosts yes`) where one key is known by two names, as a machine
# reached directly and through a forwarded port has it. sshd(8), SSH_KNOWN_HOSTS FILE FORMAT: only one
# hashed name may stand on a line, and a comment may follow the key.
#
# Seen: sorthosts 0.1.2 writes both hashed names on one line with a comma between, and ssh-keygen finds
# neither of them in it. A line with a comment is left out of the file, which a message tells. It exits with 0.
#
# Bitten: after sorting `~/.ssh/known_hosts` ssh asks again whether to trust these machines, and a job
# with `StrictHostKeyChecking yes` fails. Sort the lines with sort(1): ssh takes any line that fits.
#
# Exit code: 0 if that is still so. Needs python3 with venv, the registry of Python packages and ssh-keygen.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check sorthosts==0.1.2
for key in one two; do ssh-keygen -q -t ed25519 -N '' -C '' -f "$key"; done
one=$(cut -d ' ' -f 1,2 one.pub)
two=$(cut -d ' ' -f 1,2 two.pub)
printf '%s\n' "board-1 $one" "[proxy.example]:22001 $one" "board-2 $two" >hashed
ssh-keygen -q -H -f hashed >/dev/null 2>&1
printf '%s\n' "board-3 $one" "board-4 $two" "board-5 $two added by hand" >plain
for file in hashed plain; do venv/bin/sorthosts -i "$file" -o "$file.sorted" >/dev/null; done
for name in board-1 '[proxy.example]:22001' board-2 board-3 board-4 board-5; do
    echo "$name:$(for file in hashed hashed.sorted plain plain.sorted; do
        ! ssh-keygen -F "$name" -f "$file" >/dev/null || echo -n " $file"
    done)"
done | tee seen
diff seen - <<'SEEN'
board-1: hashed
[proxy.example]:22001: hashed
board-2: hashed hashed.sorted
board-3: plain plain.sorted
board-4: plain plain.sorted
board-5: plain
SEEN
