#!/bin/sh
# Makes the two roles and the database of a ledger, once, when the image of PostgreSQL starts on an
# empty volume (it runs what lies in /docker-entrypoint-initdb.d, and then only).
#
# The passwords are those in the two pgpass files, as docs/how-to/deploy-external-postgresql.md has it.
set -eu

password() { # ROLE: the last field of its line; a password of ours holds no colon, quote or backslash
    sed -n "s/^[^#].*:fedledger:$1:\([^:'\\\\]*\)\$/\1/p" "${SECRETS_DIRECTORY:-/run/secrets}/pgpass-$1" | head -n 1
}

owner=$(password fedledger_owner)
service=$(password fedledger_service)
if [ -z "$owner" ] || [ -z "$service" ]; then
    echo "postgres-roles: no line HOST:PORT:fedledger:ROLE:PASSWORD in pgpass-ROLE" >&2
    exit 78
fi

# By standard input: a password in an argument is for every process to read.
psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres <<SQL
\\set owner '$owner'
\\set service '$service'
CREATE ROLE fedledger_owner LOGIN PASSWORD :'owner';
CREATE ROLE fedledger_service LOGIN PASSWORD :'service';
CREATE DATABASE fedledger OWNER fedledger_owner ENCODING 'UTF8' TEMPLATE template0;
REVOKE ALL ON DATABASE fedledger FROM PUBLIC;
GRANT CONNECT ON DATABASE fedledger TO fedledger_service;
SQL
