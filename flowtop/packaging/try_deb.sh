#!/bin/sh
# Tries a Debian package in a new root of this machine's release, which holds nothing else: it installs, its commands run, it captures
# in a network namespace of its own, and after a purge no file and no account is left that was not there before.
#   flowtop/packaging/try_deb.sh build/deb/flowtop_*.deb
# As root. Needs mmdebstrap, and the network. Takes minutes: not a part of the tests.
set -eu
deb=$1
. "$(dirname "$0")/new_root.sh"
root=$(mktemp -d)
finish() {
    for place in sys/fs/cgroup sys dev proc; do
        umount -l "$root/$place" 2>/dev/null || true
    done
    rm -rf --one-file-system "$root"
}
trap finish EXIT
# All there is, but for what packages' tools note of every installation.
there() {
    inside find / -xdev '(' -path /proc -o -path /sys -o -path /dev -o -path /tmp -o -path /var/lib/dpkg -o -path /var/lib/apt \
        -o -path /var/cache/apt -o -path /var/cache/debconf -o -path /var/log -o -path /run -o -name '*.deb' -o -path '/etc/*-' ')' -prune -o -print | sort
    inside cut -d: -f1 /etc/passwd /etc/group | sort
}

step "a new root of $VERSION_CODENAME"
new_root "$root"
for place in proc sys dev; do
    mount --rbind --make-rslave /$place "$root/$place"
done
# What it depends on is installed first, so that a purge shows what flowtop itself leaves.
inside apt-get -qq install -y --no-install-recommends adduser python3-bpfcc >/dev/null
there >"$root/tmp/before"

step "install"
cp "$deb" "$root/tmp/flowtop.deb"
inside apt-get -qq install -y --no-install-recommends /tmp/flowtop.deb
inside dpkg -s flowtop | grep -E '^(Status|Version|Installed-Size|Depends)'
inside id flowtop

step "flowtop --version, --check"
inside flowtop --version
inside flowtop-dump --help >/dev/null
inside flowtop --check || true  # this machine's faults are not the package's
inside flowtop --check | grep -E '^ok +(bcc|compiler|own code|confinement) '

step "three pings on loopback"
unshare --net sh -euc '
    ip link set lo up
    root=$1
    chroot "$root" /usr/bin/flowtop -b -o json -i lo >"$root/tmp/rounds" & flowtop=$!
    until [ -s "$root/tmp/rounds" ]; do kill -0 "$flowtop"; sleep 0.2; done
    ping -q -c 3 -i 0.2 127.0.0.1 >/dev/null
    kill -TERM "$flowtop"
    wait "$flowtop"' sh "$root"
python3 - "$root/tmp/rounds" <<'PYTHON'
import json, sys
last = json.loads(open(sys.argv[1]).readlines()[-1])
totals = last["totals"]
print({name: totals[name] for name in ("observedPackets", "accountedPackets", "observedOctets")}, last.get("confinement"))
assert totals["observedPackets"] == totals["accountedPackets"] == 12, totals  # each leaves and arrives
PYTHON

step "purge"
mkdir -p "$root/var/lib/flowtop/main/spool"
touch "$root/var/lib/flowtop/main/spool/left"
inside apt-get -qq purge -y flowtop
there >"$root/tmp/after"
diff "$root/tmp/before" "$root/tmp/after"
echo "nothing is left"
