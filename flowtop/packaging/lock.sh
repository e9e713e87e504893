#!/bin/sh
# Makes requirements.txt (what flowtop runs and is built with) and requirements-test.txt (the tests' as well) anew: the newest
# versions within the bounds of pyproject.toml, with the hash of each file, for Python 3.11 and later on every machine.
# Needs uv. Names of hosts are not written: whoever installs chooses where files come from, the hashes say which.
set -eu
cd "$(dirname "$0")/../.."
here=flowtop/packaging
build=$(mktemp)
trap 'rm -f "$build"' EXIT
# What builds the wheel is installed beside it, as pip checks no hashes of what it fetches for a build of its own.
python3 -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' >"$build"
lock() {
    output=$1
    shift
    uv pip compile --quiet --universal --python-version 3.11 --upgrade --generate-hashes --no-header --no-annotate \
        --no-emit-index-url --no-emit-find-links --output-file "$output" "$@" pyproject.toml "$build"
}
lock $here/requirements.txt
lock $here/requirements-test.txt --extra test --constraints $here/requirements.txt
