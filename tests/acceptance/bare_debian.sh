#!/usr/bin/env bash
# Two commands on a bare Debian 12: unpack the tree, ./run COMMAND. As root, then as an ordinary
# user, each from nothing, in a system of minbase + python3 + python3-pip.
#
#   tests/acceptance/bare_debian.sh [COMMAND [ARGS]]     (default: demo --json)
#
# Needs root (chroot) and debootstrap, which it installs. The host's pip settings and certificates
# are used inside, so that it works wherever pip works. Nothing is left on the host: processes and
# mounts end with a namespace of their own.
set -euo pipefail
suite=bookworm
say() { echo "bare_debian: $*" >&2; }

if [ "${1-}" != --inside ]; then
    cd "$(dirname "$0")/../.."
    [ $# -gt 0 ] || set -- demo --json
    [ "$(id -u)" = 0 ] || { say "needs root to make a chroot"; exit 2; }
    if ! command -v debootstrap >/dev/null; then
        apt-get update -q >&2 && apt-get install -q -y --no-install-recommends debootstrap >&2
    fi
    work=$(mktemp -d /tmp/bare-debian-XXXXXX)
    # The mounts made inside are gone by then, so this reaches nothing of the host's.
    trap 'rm -rf --one-file-system "$work"' EXIT
    mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' 2>/dev/null |
        awk -v suite=$suite '$2 == suite && $1 ~ /\/debian\/?$/ {print $1; exit}')
    say "debootstrap"
    # From where this machine's own packages come; else debootstrap knows where.
    debootstrap --variant=minbase --include=python3,python3-pip "$suite" "$work/root" \
        ${mirror:+"$mirror"} >"$work/debootstrap.log" 2>&1 ||
        { tail -20 "$work/debootstrap.log" >&2; exit 1; }
    mkdir "$work/tree"
    if git rev-parse --git-dir >/dev/null 2>&1; then
        git ls-files -co --exclude-standard -z |
            while IFS= read -r -d '' file; do [ ! -e "$file" ] || printf '%s\0' "$file"; done |
            tar --null -T - -cf - | tar -xf - -C "$work/tree"
    else
        tar --exclude=./.venv --exclude='__pycache__' -cf - . | tar -xf - -C "$work/tree"
    fi
    unshare --mount --propagation private --pid --fork --kill-child \
        "$PWD/tests/acceptance/bare_debian.sh" --inside "$work" "$@" </dev/null
    exit
fi

# ------------------------------------------------------------ in namespaces of our own
work=$2 root=$2/root
shift 2
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"

copy_in() { # FILE [AS]: the same file at the same place inside, if there is one
    [ -f "$1" ] || return 0
    mkdir -p "$root$(dirname "${2-$1}")" && cp -L "$1" "$root${2-$1}"
}
copy_in /etc/resolv.conf
copy_in /etc/hosts
copy_in /etc/pip.conf
copy_in /etc/ssl/certs/ca-certificates.crt
for file in "${PIP_CERT-}" "${SSL_CERT_FILE-}" "${REQUESTS_CA_BUNDLE-}"; do copy_in "$file"; done
chroot "$root" useradd --create-home someone
user_pip=${XDG_CONFIG_HOME:-$HOME/.config}/pip/pip.conf
copy_in "$user_pip" /root/.config/pip/pip.conf
copy_in "$user_pip" /home/someone/.config/pip/pip.conf
cp -r "$work/tree" "$root/opt/fedledger"
cp -r "$work/tree" "$root/home/someone/fedledger"
chroot "$root" chown -R someone: /home/someone

if chroot "$root" sh -c 'command -v git || command -v make || command -v postgres ||
    command -v gcc || python3 -c "import ensurepip" 2>/dev/null'; then
    say "this system is not bare"
    exit 1
fi

kept=() # what pip needs of the environment, and nothing else
while IFS= read -r name; do kept+=("$name=${!name}"); done < <(compgen -e |
    grep -iE '^(PIP_.*|SSL_CERT_FILE|REQUESTS_CA_BUNDLE|https?_proxy|no_proxy)$' || true)

try() { # USER HOME FOLDER COMMAND...
    local user=$1 home=$2 folder=$3 begun=$SECONDS status=0
    shift 3
    say "as $user: ./run $*"
    chroot "$root" runuser -u "$user" -- env -i "${kept[@]}" HOME="$home" CI=true LANG=C.UTF-8 \
        PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin sh -c 'cd "$0" && exec ./run "$@"' \
        "$folder" "$@" || status=$?
    say "as $user: exit $status after $((SECONDS - begun)) s, installation included"
    [ $status = 0 ] || return $status
    local deadline=$((SECONDS + 20))
    while grep -lqsa '[p]ostgres' /proc/[0-9]*/cmdline; do
        [ $SECONDS -lt $deadline ] || { say "as $user: it left a server behind"; return 1; }
        sleep 0.2
    done
}
mount -t proc proc /proc # this namespace's processes, for the look above
try root /root /opt/fedledger "$@"
try someone /home/someone /home/someone/fedledger "$@"
say "both passed"
