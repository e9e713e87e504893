# Packages of several releases of Debian, for the scripts beside. Sourced, with `series` and `cache` set; sets `suite`.
# Environment: FLOWTOP_DEBIAN_ARCHIVE  URL of a Debian archive, where the machine's own sources name none (Ubuntu)

say() { echo "vm: $*" >&2; }

# The Debian release that has this series.
case $series in
    5.10) suite=bullseye ;;
    6.1) suite=bookworm ;;
    6.12) suite=trixie ;;
    newest) suite=sid ;;
    *) say "no Debian release is known for Linux $series"; exit 64 ;;
esac

# The Debian archive this machine takes its packages from, or the one named in FLOWTOP_DEBIAN_ARCHIVE.
debian_archive() {
    local archive=${FLOWTOP_DEBIAN_ARCHIVE:-}
    [ -n "$archive" ] || archive=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' |
        grep -m 1 '/debian/*$')
    [ -n "$archive" ] || { say "no Debian archive known here: name one in FLOWTOP_DEBIAN_ARCHIVE (a URL)"; return 70; }
    echo "$archive"
}

# Where linux-image-amd64 is not of this series (another Debian, Ubuntu), ask for its release's with an apt
# configuration of our own: this machine's sources stay as they are.
private_apt_options() {
    local apt=$cache/apt-$suite archive
    archive=$(debian_archive)
    mkdir -p "$apt/lists/partial" "$apt/archives/partial"
    cat >"$apt/sources.list" <<LIST
deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive $suite main
LIST
    apt_options=(-o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=- -o Dir::Etc::preferencesparts=-
        -o "Dir::State::lists=$apt/lists" -o "Dir::Cache::archives=$apt/archives" -o APT::Architecture=amd64
        -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o "APT::Sandbox::User=root")
    apt-get "${apt_options[@]}" -qq update >&2
}
