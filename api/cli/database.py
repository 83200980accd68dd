"""`fedledger database`: the passwords of the private PostgreSQL.

A database of one's own is not touched: its roles belong to whoever runs it, so only the way is told.
"""

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import click

from api.cli import output
from api.cli.exits import CommandError, Exit

if TYPE_CHECKING:
    from api.settings import Settings

_SERVICE: Final = "fedledger_service"


@click.group("database")
def database() -> None:
    """The database this ledger is kept in."""


@database.command("rotate")
def rotate() -> None:
    """Give the private PostgreSQL's roles new passwords; what runs keeps running.

    Cut short, run it again, or any other command that acts on this machine: it is finished first.
    """
    from api.cli.machine import explained
    from api.settings import load
    from api.wiring import WiringError
    from migrations.embedded import Embedded

    with explained():
        settings = load()
        if not settings.embedded:
            raise _not_ours(settings)
        if not (settings.home / "data" / "PG_VERSION").exists():
            raise WiringError(f"there is no ledger in {settings.home}: run fedledger init")
        with Embedded(settings.home, bindir=settings.pg_bindir) as postgres:
            roles = postgres.rotate_passwords()
    output.show_pairs([(role, str(settings.home / f"{role}.pgpass")) for role in roles])
    output.note(
        "New passwords are in these files, and each was tried. Running services need no restart: "
        "they read the file when they connect. The old ones open nothing any more."
    )


def _not_ours(settings: "Settings") -> CommandError:
    """Say how it is done where the roles are somebody else's; the names are the DSN's own."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    role = "fedledger_login"
    with suppress(psycopg.Error):  # its message may quote a piece of the DSN
        dsn = settings.dsn.get_secret_value() if settings.dsn else ""
        role = str(conninfo_to_dict(dsn).get("user") or role)
    second = role.removesuffix("_2") if role.endswith("_2") else f"{role}_2"
    # The tables' rights hang on fedledger_service: where that role logs in itself, it stays.
    end = f'ALTER ROLE "{role}" NOLOGIN' if role == _SERVICE else f'DROP ROLE "{role}"'
    return CommandError(
        Exit.REFUSED,
        "This database is not fedledger's own; nothing was changed",
        "Without a gap, as one who may create roles:\n"
        f'  CREATE ROLE "{second}" LOGIN IN ROLE {_SERVICE};\n'
        f'  \\password "{second}"\n'
        "  -- let FEDLEDGER_DSN name it, restart each service, run fedledger doctor, then:\n"
        f"  {end};\n"
        "Of the owner's role, with a moment in which migrations cannot connect:\n"
        "  \\password (in psql, connected as that role)",
        "Put passwords into a passfile (0600) that the DSN names, never into the DSN itself.",
    )
