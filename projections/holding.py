"""Keeps the tables where they are while a transaction reads them. It reads none itself.

A transaction of several queries sees the database as it was at its first one. A table that a rebuild
puts in place after that would show it the rows of the rebuild's last round but one. So the tables are
held before anything is seen; whoever swaps them waits, or whoever comes later does.
"""

from collections.abc import Iterable
from typing import Any, Final

from psycopg import Connection, sql

from projections.event_terms import TABLE
from projections.registry import INLINE

_HOLD: Final = sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE")
_BEGIN: Final = sql.SQL("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {}")

_FIRST: Final = min(table.table for table in INLINE)
# Of what is swapped together the one that a swap locks first: none of it is moved without that, and
# whoever holds it and comes to another never waits for a swap that waits for him.
_GATES: Final = (
    sql.Identifier(_FIRST), sql.Identifier("as_of", _FIRST), sql.Identifier(TABLE),
)  # fmt: skip
_BEGIN_HELD: Final = _BEGIN.format(_HOLD.format(sql.SQL(", ").join(_GATES))).as_bytes()


def begin_held(connection: Connection[Any]) -> None:
    """Begin a transaction that only reads and sees one state of all tables, in one round trip.

    `connection`: in autocommit mode. The caller ends the transaction.
    """
    connection.execute(_BEGIN_HELD)


def hold(connection: Connection[Any], tables: Iterable[str]) -> None:
    """Keep these tables where they are to the end of a transaction that has seen nothing yet."""
    names = sql.SQL(", ").join(map(sql.Identifier, tables))
    connection.execute(_HOLD.format(names))
