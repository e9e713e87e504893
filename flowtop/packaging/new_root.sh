# A new root of this machine's release, for the scripts beside. Sourced; sets VERSION_CODENAME and the like (os-release).
. /etc/os-release
step() { printf '\n=== %s\n' "$*"; }
# In $root, with nothing of this environment.
inside() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 "$@"; }

# new_root DIRECTORY [PACKAGE,...]: the smallest set of packages, and these; those to come are found where this machine has its own.
new_root() {
    apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | sort -u | head -n 1 >"$1.site"
    mmdebstrap --quiet --variant=minbase ${2:+"--include=$2"} "$VERSION_CODENAME" "$1" "$(cat "$1.site")"
    rm -f "$1.site"
    cp /etc/resolv.conf "$1/etc/resolv.conf"
    for file in /etc/apt/apt.conf.d/*prox* /etc/ssl/certs/ca-certificates.crt; do
        [ ! -f "$file" ] || { mkdir -p "$1$(dirname "$file")" && cp "$file" "$1$file"; }
    done
    inside apt-get -qq update
}
