"""The head row for whoever swaps the tables: read it, lock it, say of which release the tables are.

Appends move it in their one statement (`ledger/statement.py`); nothing here does.
"""

from typing import Any, Final, NamedTuple

from psycopg import Connection

_READ: Final = "SELECT size, projections_version FROM ledger_head WHERE one"
_LOCK: Final = f"{_READ} FOR UPDATE"
_RELEASE: Final = """UPDATE ledger_head SET projections_version = %s
    WHERE one AND projections_version <> %s"""


class HeadState(NamedTuple):
    """How many events there are, and of which release's shape the current-state tables are."""

    size: int
    release: int


def read_head(connection: Connection[Any], *, lock: bool = False) -> HeadState:
    """Return the head; with `lock`, nobody appends until the transaction ends.

    Raises:
        LookupError: there is none.
    """
    row = connection.execute(_LOCK if lock else _READ).fetchone()
    if row is None:
        raise LookupError("the ledger has no head")
    return HeadState(row[0], row[1])


def set_release(connection: Connection[Any], release: int) -> None:
    """Say of which release the tables are from here on: appends of any other are refused."""
    connection.execute(_RELEASE, [release, release])
