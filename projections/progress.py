"""How far a rebuild is, in two tables beside those being built: one row of all, one of each slice.

A slice is a range of streams' ids that one process copies. Because its row is written in the same
transaction as what it tells of, whoever is killed goes on from where the rows are. The tables go when
the rebuild does.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias
from uuid import UUID

from psycopg import Connection, Error, sql
from psycopg.rows import class_row

from ledger.streams import FIRST, LAST

Phase: TypeAlias = Literal["copying", "indexing", "catching-up", "swapped"]

_MAKE: Final = sql.SQL("""
CREATE TABLE {table} (
    one         boolean     NOT NULL DEFAULT true PRIMARY KEY CHECK (one),
    phase       text        NOT NULL,
    fingerprint text        NOT NULL,
    base        bigint      NOT NULL,
    caught_up   bigint      NOT NULL,
    aborting    boolean     NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE {slices} (
    number      integer     PRIMARY KEY,
    after       uuid        NOT NULL,
    last        uuid        NOT NULL,
    events      bigint      NOT NULL DEFAULT 0,
    rows        bigint      NOT NULL DEFAULT 0,
    changed_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
GRANT USAGE ON SCHEMA {schema} TO fedledger_service;
GRANT SELECT ON {table}, {slices} TO fedledger_service
""")
_BEGIN: Final = sql.SQL("""INSERT INTO {}
    (phase, fingerprint, base, caught_up, aborting)
    VALUES ('copying', %(fingerprint)s, %(base)s, %(base)s, false)""")
_CUT: Final = sql.SQL("INSERT INTO {} (number, after, last) VALUES (%s, %s, %s)")
_READ: Final = sql.SQL("""SELECT phase, fingerprint, base, caught_up, s.events, s.rows, aborting,
    started_at, greatest(changed_at, s.changed) AS changed_at
    FROM {table}, (SELECT sum(events)::int8 AS events, sum(rows)::int8 AS rows,
                   max(changed_at) AS changed FROM {slices}) s""")
_WRITE: Final = sql.SQL("""UPDATE {} SET phase = %s, caught_up = %s, changed_at = clock_timestamp()
    RETURNING aborting""")
_OPEN: Final = sql.SQL("SELECT number FROM {} WHERE after < last ORDER BY number")
_SLICE: Final = sql.SQL("SELECT after, last FROM {} WHERE number = %s")
_ADVANCE: Final = sql.SQL("""UPDATE {slices} SET after = %s, events = events + %s, rows = rows + %s,
    changed_at = clock_timestamp() WHERE number = %s RETURNING (SELECT aborting FROM {table})""")
_ABORT: Final = sql.SQL("UPDATE {} SET aborting = true")
_IS_THERE: Final = "SELECT to_regclass(%s) IS NOT NULL"
_TAKE: Final = "SELECT pg_advisory_lock(hashtext(%s), %s)"
_LEAVE: Final = "SELECT pg_advisory_unlock(hashtext(%s), %s)"


class RebuildError(Exception):
    """The tables were not rebuilt, and the live ones are untouched; the text says what to do."""


class RebuildAbortedError(RebuildError):
    """Somebody asked for the rebuild to be given up."""

    def __init__(self, text: str = "the rebuild was given up") -> None:
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class Progress:
    """A rebuild as it stands.

    `base`: the position the tables are copied at first; `caught_up`: the position they are right at,
    once they are copied. `fingerprint`: of what is being built, so that another release does not go on
    with it. `events`, `rows`: copied so far, in all slices.
    """

    phase: Phase
    fingerprint: str
    base: int
    caught_up: int
    events: int
    rows: int
    aborting: bool
    started_at: datetime
    changed_at: datetime

    @property
    def share(self) -> float:
        """How much of the copying is done, 0 to 1."""
        return 1.0 if self.phase != "copying" else min(1.0, self.events / max(1, self.base))


def make(
    connection: Connection[Any], schema: str, fingerprint: str, base: int, slices: int
) -> None:
    """Make the rows for a rebuild that begins, in its schema, to be copied in so many slices."""
    names = {"table": _table(schema), "slices": _slices(schema), "schema": sql.Identifier(schema)}
    connection.execute(_MAKE.format(**names))
    connection.execute(_BEGIN.format(_table(schema)), {"fingerprint": fingerprint, "base": base})
    ends = [FIRST, *(UUID(int=LAST.int * (number + 1) // slices) for number in range(slices))]
    for number in range(slices):
        connection.execute(_CUT.format(_slices(schema)), [number, ends[number], ends[number + 1]])


def read(connection: Connection[Any], schema: str) -> Progress | None:
    """The rebuild that has begun in this schema, None if there is none we could go on with."""
    name = _slices(schema).as_string(connection)  # a release that knew none left none
    row = connection.execute(_IS_THERE, [name]).fetchone()
    if not row or not row[0]:
        return None
    query = _READ.format(table=_table(schema), slices=_slices(schema))
    with connection.cursor(row_factory=class_row(Progress)) as cursor:
        return cursor.execute(query).fetchone()


def write(connection: Connection[Any], schema: str, progress: Progress) -> None:
    """Write how far it is with all. Raises RebuildAbortedError: somebody asks to give it up."""
    query = _WRITE.format(_table(schema))
    _go_on(connection.execute(query, [progress.phase, progress.caught_up]).fetchone())


def ask_to_abort(connection: Connection[Any], schema: str) -> None:
    """Ask whoever is rebuilding to give up at the next step."""
    connection.execute(_ABORT.format(_table(schema)))


# ---- slices ------------------------------------------------------------------------------------


def open_slices(connection: Connection[Any], schema: str) -> list[int]:
    """The numbers of the slices that are not copied to their end."""
    return [row[0] for row in connection.execute(_OPEN.format(_slices(schema)))]


@contextmanager
def slice_taken(
    connection: Connection[Any], schema: str, number: int
) -> Iterator[tuple[UUID, UUID]]:
    """Have a slice to oneself: the stream it is copied up to, and the last of it.

    A process that has lost who started it may be at it for a moment still: it is waited for.
    """
    connection.execute(_TAKE, [schema, number])
    try:
        row = connection.execute(_SLICE.format(_slices(schema)), [number]).fetchone()
        if row is None:
            raise RebuildAbortedError
        yield row[0], row[1]
    finally:
        # Left to the connection's end where it does not answer any more.
        with suppress(Error):
            connection.execute(_LEAVE, [schema, number])


def advance(
    connection: Connection[Any], schema: str, number: int, after: UUID, events: int, rows: int
) -> None:
    """Write that a slice is copied up to a stream: so many more events and rows.

    Raises:
        RebuildAbortedError: somebody asks to give it up.
    """
    query = _ADVANCE.format(slices=_slices(schema), table=_table(schema))
    _go_on(connection.execute(query, [after, events, rows, number]).fetchone())


def _go_on(row: tuple[Any, ...] | None) -> None:
    if row is None or row[0]:
        raise RebuildAbortedError


def _table(schema: str) -> sql.Identifier:
    return sql.Identifier(schema, "progress")


def _slices(schema: str) -> sql.Identifier:
    return sql.Identifier(schema, "slices")
