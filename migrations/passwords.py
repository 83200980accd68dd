"""The passwords of the private PostgreSQL's roles: a libpq password file each, and its change.

It starts no server and opens no connection. A change has three steps:

1. the new password is written beside the file in use: `<role>.next.pgpass`
2. the server is told its SCRAM verifier
3. the new file takes the place of the old one

After a kill between any two of them the file beside is still there, and `finish` repeats 2 and 3.
Connections that are open stay open; a new one reads the file at the moment it is made.
"""

import secrets
from pathlib import Path
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from migrations.server import sync_folder, write_private

_SECRET_BYTES = 24


class Passwords:
    """The password files under `home`, for the account that runs this process alone."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def file(self, role: str) -> Path:
        """The file in use: libpq's format, named by every DSN as its `passfile`."""
        return self._home / f"{role}.pgpass"

    def beside(self, role: str) -> Path:
        """The file of a change that is not finished."""
        return self._home / f"{role}.next.pgpass"

    def first(self, role: str) -> str:
        """Write a new password to the role's file and return it; nobody has heard of it yet."""
        password = secrets.token_urlsafe(_SECRET_BYTES)
        write_private(self.file(role), _line(role, password))
        return password

    def change(self, connection: psycopg.Connection[Any], role: str) -> None:
        """Give an existing role a new password. `connection`: the superuser's, autocommit."""
        write_private(self.beside(role), _line(role, secrets.token_urlsafe(_SECRET_BYTES)))
        self.finish(connection, role)

    def finish(self, connection: psycopg.Connection[Any], role: str) -> None:
        """Go on with a change that was cut short, if there is one; it may be repeated."""
        beside = self.beside(role)
        if not beside.exists():
            return
        password = beside.read_text("ascii").rstrip("\n").rpartition(":")[2]
        # The server gets the SCRAM verifier, never the password: it may log statements.
        verifier = connection.pgconn.encrypt_password(
            password.encode(), role.encode(), b"scram-sha-256"
        )
        statement = SQL("ALTER ROLE {} PASSWORD {}")
        connection.execute(statement.format(Identifier(role), Literal(verifier.decode())))
        # Between these two lines a new connection is refused: the file was on the disk before, so
        # that only this rename is in between.
        beside.rename(self.file(role))
        sync_folder(self._home)


def _line(role: str, password: str) -> str:
    return f"*:*:*:{role}:{password}\n"
