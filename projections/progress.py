"""How far a rebuild is: one row beside the tables being built, written with what it tells of.

Because it is written in the same transaction as the rows, whoever is killed goes on from where the
rows are. The table goes when the rebuild does.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias
from uuid import UUID

from psycopg import Connection, sql
from psycopg.rows import class_row

from ledger.streams import FIRST

Phase: TypeAlias = Literal["copying", "indexing", "catching-up", "swapped"]

_MAKE: Final = sql.SQL("""
CREATE TABLE {table} (
    one         boolean     NOT NULL DEFAULT true PRIMARY KEY CHECK (one),
    phase       text        NOT NULL,
    fingerprint text        NOT NULL,
    base        bigint      NOT NULL,
    after       uuid        NOT NULL,
    caught_up   bigint      NOT NULL,
    events      bigint      NOT NULL,
    rows        bigint      NOT NULL,
    aborting    boolean     NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
GRANT USAGE ON SCHEMA {schema} TO fedledger_service;
GRANT SELECT ON {table} TO fedledger_service
""")
_BEGIN: Final = sql.SQL("""INSERT INTO {}
    (phase, fingerprint, base, after, caught_up, events, rows, aborting)
    VALUES ('copying', %(fingerprint)s, %(base)s, %(after)s, %(base)s, 0, 0, false)""")
_READ: Final = sql.SQL("""SELECT phase, fingerprint, base, after, caught_up, events, rows, aborting,
    started_at, changed_at FROM {}""")
_WRITE: Final = sql.SQL("""UPDATE {} SET phase = %(phase)s, after = %(after)s,
    caught_up = %(caught_up)s, events = %(events)s, rows = %(rows)s, changed_at = clock_timestamp()
    RETURNING aborting""")
_ABORT: Final = sql.SQL("UPDATE {} SET aborting = true")
_IS_THERE: Final = "SELECT to_regclass(%s) IS NOT NULL"


@dataclass(frozen=True, slots=True)
class Progress:
    """A rebuild as it stands.

    `base`: the position the tables are copied at first; `after`: the last stream copied so far;
    `caught_up`: the position they are right at, once they are copied. `fingerprint`: of what is
    being built, so that another release does not go on with it. `events`, `rows`: copied so far.
    """

    phase: Phase
    fingerprint: str
    base: int
    after: UUID
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


def _table(schema: str) -> sql.Identifier:
    return sql.Identifier(schema, "progress")


def make(connection: Connection[Any], schema: str, fingerprint: str, base: int) -> None:
    """Make the row for a rebuild that begins, in its schema."""
    connection.execute(_MAKE.format(table=_table(schema), schema=sql.Identifier(schema)))
    values = {"fingerprint": fingerprint, "base": base, "after": FIRST}
    connection.execute(_BEGIN.format(_table(schema)), values)


def read(connection: Connection[Any], schema: str) -> Progress | None:
    """The rebuild that has begun in this schema, None if there is none."""
    name = _table(schema)
    row = connection.execute(_IS_THERE, [name.as_string(connection)]).fetchone()
    if not row or not row[0]:
        return None
    with connection.cursor(row_factory=class_row(Progress)) as cursor:
        return cursor.execute(_READ.format(name)).fetchone()


def write(connection: Connection[Any], schema: str, progress: Progress) -> bool:
    """Write how far it is; return whether somebody asks to give it up."""
    values = {
        "phase": progress.phase,
        "after": progress.after,
        "caught_up": progress.caught_up,
        "events": progress.events,
        "rows": progress.rows,
    }
    row = connection.execute(_WRITE.format(_table(schema)), values).fetchone()
    return row is None or bool(row[0])


def ask_to_abort(connection: Connection[Any], schema: str) -> None:
    """Ask whoever is rebuilding to give up at the next step."""
    connection.execute(_ABORT.format(_table(schema)))
