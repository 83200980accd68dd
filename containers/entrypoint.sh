#!/bin/sh
# Looks whether each secret is there, then becomes the command. It makes, changes and prints nothing.
#
#   REQUIRED_SECRETS   names of files in /run/secrets, separated by spaces
#
# Docker puts them there, from the files that the compose file names, in development as in production.
set -eu

directory=${SECRETS_DIRECTORY:-/run/secrets}

refuse() {
    echo "entrypoint: the secret $1 $2: $directory/$1" >&2
    echo "entrypoint: on the host it is a file of that name in SECRETS_DIR, readable for user $(id -u);" >&2
    echo "entrypoint: for development: cp containers/secrets/$1.example containers/secrets/$1" >&2
    exit 78 # EX_CONFIG: starting it again changes nothing
}

[ $# -gt 0 ] || {
    echo "entrypoint: no command to run" >&2
    exit 64
}
for name in ${REQUIRED_SECRETS:-}; do
    [ -f "$directory/$name" ] || refuse "$name" "is missing"
    [ -r "$directory/$name" ] || refuse "$name" "cannot be read"
    [ -s "$directory/$name" ] || refuse "$name" "is empty"
done
exec "$@"
