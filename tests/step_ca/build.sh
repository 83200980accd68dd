#!/bin/sh
# Builds the real step-ca that tests use, from Debian's own packages, and prints where it is.
#
#   tests/step_ca/build.sh          build it unless it is there; about a minute, as root at first
#   tests/step_ca/build.sh --path   only say where it is; fails if it is not there
#
# It stands in the user's cache, outside the checkout, once per state of these sources and of
# Debian's package: whatever changes, the old binary is not used again.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
library=golang-github-smallstep-certificates-dev
cache=${XDG_CACHE_HOME:-$HOME/.cache}/fedledger/step-ca

say() { echo "build.sh: $*" >&2; }

version() { dpkg-query -Wf '${Status} ${Version}' "$library" 2>/dev/null | sed -n 's/^install ok installed //p'; }

target() { # the binary of these sources and the installed version
    digest=$(cat "$here/launcher.go" "$here/build.sh" | sha256sum | cut -c1-16)
    echo "$cache/$(version | tr -c 'A-Za-z0-9.\n' -)-$digest/step-ca"
}

if [ "${1:-}" = --path ]; then
    if [ -z "$(version)" ] || [ ! -x "$(target)" ]; then
        say "step-ca is not built; run tests/step_ca/build.sh (as root, once)"
        exit 1
    fi
    target
    exit
fi

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9 # of several at once, one builds

if [ -z "$(version)" ] || [ ! -x /usr/bin/go ]; then
    if [ "$(id -u)" != 0 ]; then
        say "not installed: apt-get install --no-install-recommends $library golang-go"
        exit 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q >&2
    apt-get install -y -q --no-install-recommends "$library" golang-go >&2
fi

binary=$(target)
if [ ! -x "$binary" ]; then
    say "building $binary"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work/src/step-ca" "${binary%/*}"
    cp "$here/launcher.go" "$work/src/step-ca/main.go"
    # GOPATH mode: Debian's sources stand there, and nothing is fetched from anywhere.
    GO111MODULE=off CGO_ENABLED=0 GOPATH="$work:/usr/share/gocode" GOCACHE="$work/cache" \
        /usr/bin/go build -trimpath -ldflags='-s -w' -o "$binary.new" step-ca >&2
    mv "$binary.new" "$binary" # whole or not at all
fi
echo "$binary"
