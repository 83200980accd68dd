"""The table `federation_enrollment_rejections`: one row per note of a failed redemption, and its SQL.

It counts what a token's lock and a rate limit need; the notes themselves are read in the record.
"""

from collections.abc import Iterable
from typing import Any, Final

from psycopg import Connection, sql

from ledger.appends import InlineProjection
from ledger.events import EnrollmentRejected
from ledger.notes import Note


def rows(note: Note) -> Iterable[tuple[object, ...]]:
    """One row if the note is of a rejection, none for other notes."""
    fact = note.fact
    if not isinstance(fact, EnrollmentRejected):
        return ()
    return ((note.id, fact.cause, fact.accessor, note.source, fact.grant_id, fact.count, note.at),)


PROJECTION: Final = InlineProjection(
    table="federation_enrollment_rejections",
    state=Note,
    columns=(
        ("id", "uuid"),
        ("cause", "text"),
        ("accessor", "text"),
        ("source", "text"),
        ("grant_id", "uuid"),
        ("count", "bigint"),
        ("at", "timestamptz"),
    ),
    key=("id",),
    rows=rows,
)

_FAILURES: Final = sql.SQL("""
SELECT cause, sum(count)::int8 FROM federation_enrollment_rejections
WHERE accessor = %s GROUP BY cause
""")


def failures_by_cause(connection: Connection[Any], accessor: str) -> dict[str, int]:
    """How many redemptions of this token failed, by cause."""
    return dict(connection.execute(_FAILURES, [accessor]).fetchall())
