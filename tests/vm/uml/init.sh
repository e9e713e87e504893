#!/usr/bin/env bash
# The first process of the machine that run_on_uml.sh boots. Its results directory is in the kernel's command line.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
for place in /dev/shm /run /mnt; do mount -t tmpfs tmpfs "$place"; done
mount -t cgroup2 cgroup /sys/fs/cgroup
# The file system is the host's, read-only; what can be written is in memory, and in the results directory.
results=$(sed 's/.*flowtop_results=\([^ ]*\).*/\1/' /proc/cmdline)
mount -t hostfs none /media -o "$results"
mkdir /mnt/etc
cp -a /etc/. /mnt/etc
mount --bind /mnt/etc /etc
echo "$results/any_alignment.so" >/etc/ld.so.preload
printf '#!/bin/sh\nexec %s -d %s "$@"\n' "$(command -v modprobe)" "$results/root" >/mnt/modprobe
chmod +x /mnt/modprobe
echo /mnt/modprobe >/proc/sys/kernel/modprobe
export PATH=/mnt:$PATH
ip link set lo up
modprobe -a tun ipv6
. /media/environment
mapfile -t arguments </media/arguments
export FLOWTOP_PROGRAM_CACHE=/mnt/programs TMPDIR=/mnt HOME=/mnt TERM=dumb PYTHONDONTWRITEBYTECODE=1 HYPOTHESIS_STORAGE_DIRECTORY=/mnt/hypothesis
cd "$FLOWTOP_REPOSITORY" || poweroff -f
uname -r >/media/release
"$FLOWTOP_PYTHON" -m pytest -p no:cacheprovider --junitxml=/media/junit.xml "${arguments[@]}" >/media/output 2>&1
echo $? >/media/status
poweroff -f
