#!/usr/bin/env bash
# known_hosts for many machines behind one name: a line for every port, `[proxy.example]:*`, and a line
# that names several ports with the key that they share.
#
# Seen: `ssh-keygen -R '[proxy.example]:22001'` of OpenSSH 9.2 deletes both lines whole, with the ports
# that nobody asked to forget; `-F` shows what it would delete. The line with `@revoked` stays.
#
# Bitten: whoever follows the advice that ssh gives when the key of one machine has changed: from then on
# every machine behind the name is unknown. Have a line for each port, or put the shared ones where -R
# does not look: GlobalKnownHostsFile, or a second UserKnownHostsFile.
#
# Exit code: 0 if that is still so. Needs OpenSSH's client.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
ssh-keygen -q -t ed25519 -N '' -C '' -f key
key=$(cut -d' ' -f1,2 key.pub)
for names in '[proxy.example]:*' '[proxy.example]:22001,[proxy.example]:22002' '[proxy.example]:22003' \
    '@revoked [proxy.example]:22001'; do
    echo "$names $key"
done >known_hosts
known() { ssh-keygen -F "[proxy.example]:$1" -f known_hosts | grep -vc '^#' || true; }
{
    echo "lines for 22001 to 22004: $(known 22001) $(known 22002) $(known 22003) $(known 22004)"
    ssh-keygen -R '[proxy.example]:22001' -f known_hosts 2>&1 | sed -n 's/^# //p'
    echo "lines for 22001 to 22004: $(known 22001) $(known 22002) $(known 22003) $(known 22004)"
} | tee seen
diff seen - <<'SEEN'
lines for 22001 to 22004: 3 2 2 1
Host [proxy.example]:22001 found: line 1
Host [proxy.example]:22001 found: line 2
lines for 22001 to 22004: 1 0 1 0
SEEN
