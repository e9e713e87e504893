#!/bin/sh
# Builds flowtop's Debian package for the release of Debian or Ubuntu that this runs on.
#   flowtop/packaging/deb.sh [DIRECTORY]     (build/deb)
# From the wheel of this tree and wheels that have the hashes of requirements.txt. It is in no directory of its own at the top of
# the sources, and in no wheel: it is for who packages flowtop, and comes with the sdist.
# Needs debhelper, build-essential, python3-venv, and the network for the wheels. Not root.
set -eu
out=$(mkdir -p "${1:-build/deb}" && cd "${1:-build/deb}" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
source=$(cd "$here/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umask 022

/usr/bin/python3 -m venv "$work/venv"
pip=$work/venv/bin/pip
tree=$work/flowtop
mkdir -p "$tree/wheels"
"$pip" download --quiet --require-hashes --only-binary :all: --dest "$tree/wheels" -r "$here/requirements.txt"
"$pip" install --quiet --no-index --find-links "$tree/wheels" hatchling click markdown-it-py
(cd "$source" && "$pip" wheel --quiet --no-deps --no-build-isolation --wheel-dir "$tree/wheels" .)

version=$(basename "$tree"/wheels/flowtop-*.whl | cut -d- -f2)
. /etc/os-release
# The same time as in the wheel, so that the same sources make the same package.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-1580601600}
export SOURCE_DATE_EPOCH PIP="$pip"
cp -R "$here/debian" "$tree/debian"
cat >"$tree/debian/changelog" <<CHANGELOG
flowtop ($version-1~$ID$VERSION_ID) unstable; urgency=medium

  * See flowtop help changes.

 -- The flowtop authors <flowtop@localhost>  $(date -R -u -d "@$SOURCE_DATE_EPOCH")
CHANGELOG
mkdir -p "$tree/debian/source"
echo '3.0 (native)' >"$tree/debian/source/format"
(cd "$tree" && dpkg-buildpackage --build=binary --no-sign)
cp "$work"/flowtop_*.deb "$out/"
ls -l "$out"/flowtop_*.deb
