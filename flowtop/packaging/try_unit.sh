#!/bin/sh
# Runs the systemd unit of a Debian package under systemd: a new root of this machine's release boots in a container with nothing but
# loopback; the unit starts, counts three pings and stops, is started again when it is killed and when it hangs, and leaves no process.
#   flowtop/packaging/try_unit.sh build/deb/flowtop_*.deb
# As root. Needs mmdebstrap, systemd-container, and the network. Takes minutes: not a part of the tests.
set -eu
deb=$1
. "$(dirname "$0")/new_root.sh"
root=$(mktemp -d)
trap 'rm -rf --one-file-system "$root"' EXIT

step "a new root of $VERSION_CODENAME, with systemd"
new_root "$root" systemd,systemd-sysv,dbus,iproute2,iputils-ping,procps,python3-bpfcc,adduser
cp "$deb" "$root/tmp/flowtop.deb"
inside apt-get -qq install -y --no-install-recommends /tmp/flowtop.deb >/dev/null

cat >"$root/root/try.sh" <<'TRY'
#!/bin/bash
# In the container: what is said here is shown at the end; the last line says whether all went well.
exec >/root/said 2>&1
trap 'echo "FAILED: $BASH_COMMAND"; systemctl poweroff' ERR
set -eE
unit=flowtop-export@main
of() { systemctl show --property "$1" --value $unit; }
until_is() { for _ in {1..300}; do [ "$(of "$1")" = "$2" ] && return; sleep 0.2; done; echo "$1 is $(of "$1"), not $2"; false; }
ip link set lo up
cat >/etc/flowtop/main.toml <<'TOML'
interface = ["lo"]
export = ["jsonl:/var/lib/flowtop/main/flows.jsonl"]
TOML
mkdir -p /etc/systemd/system/$unit.service.d
printf '[Service]\nWatchdogSec=4\nRestartSec=1\n' >/etc/systemd/system/$unit.service.d/soon.conf
systemctl daemon-reload

systemctl start $unit
echo "started; it runs as $(ps -o user= -p "$(of MainPID)"), its helpers as$(ps -o user= --ppid "$(of MainPID)" | sort | uniq -c | tr -s ' \n' ' ')"
grep -E '^(CapEff|NoNewPrivs|Seccomp):' "/proc/$(of MainPID)/status"
ping -q -c 3 -i 0.2 127.0.0.1 >/dev/null
sleep 6  # longer than the watchdog's time
[ "$(of NRestarts)" = 0 ]
systemctl stop $unit
[ "$(of Result)" = success ]
packets=$(grep -o '"packetDeltaCount":[0-9]*' /var/lib/flowtop/main/flows.jsonl | cut -d: -f2 | paste -sd+ | sed 's/.*/echo $((&))/' | bash)
echo "recorded $packets packets of three pings"
[ "$packets" = 12 ]  # three requests and three replies, each leaves and arrives

systemctl start $unit
kill -KILL "$(of MainPID)"
until_is NRestarts 1
until_is ActiveState active
echo "killed: it was started again"
kill -STOP "$(of MainPID)"
until_is NRestarts 2
until_is ActiveState active
echo "stood still: it was started again"
systemctl stop $unit
if pgrep -fa '/usr/bin/flowtop'; then false; fi
echo "nothing runs"
systemd-analyze --no-pager security $unit | tail -n 1
echo "all went well"
systemctl poweroff
TRY
chmod +x "$root/root/try.sh"
cat >"$root/etc/systemd/system/try.service" <<'UNIT'
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/root/try.sh
[Install]
WantedBy=multi-user.target
UNIT
inside systemctl --quiet enable try

step "systemd boots, and the unit"
# bpf(2) is not for containers by default; as on a host it is root's.
timeout 300 systemd-nspawn --quiet --register=no --keep-unit --directory "$root" --private-network --capability=all \
    --system-call-filter='bpf perf_event_open' --boot >"$root/root/boot" 2>&1 || true
cat "$root/root/said" || tail -n 20 "$root/root/boot"
inside journalctl --no-pager --quiet --directory /var/log/journal --unit 'flowtop-export@main' 2>/dev/null | tail -n 30 || true
[ "$(tail -n 1 "$root/root/said")" = "all went well" ]
