"""The table `federation_alarms`: one row per alarm, its only writer and its SQL."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from psycopg import Connection, sql
from psycopg.rows import class_row

from ledger.alarms import Alarm
from ledger.appends import InlineProjection
from ledger.canonical import canonical_json


@dataclass(frozen=True, slots=True)
class AlarmRow:
    """An alarm, open while `acknowledged_at` is None. `about`: ids of what it concerns."""

    id: UUID
    version: int
    kind: str
    about: list[str]
    detail: str
    raised_at: datetime
    raised_by: str
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    acknowledged_because: str | None


def rows(alarm: Alarm) -> Iterable[tuple[object, ...]]:
    """The alarm's one row, in the order of `PROJECTION.columns`."""
    return (
        (
            alarm.id,
            alarm.version,
            alarm.kind,
            canonical_json(alarm.about).decode(),
            alarm.detail,
            alarm.raised_at,
            alarm.raised_by,
            alarm.acknowledged_at,
            alarm.acknowledged_by,
            alarm.acknowledged_because,
        ),
    )


PROJECTION: Final = InlineProjection(
    table="federation_alarms",
    state=Alarm,
    columns=(
        ("id", "uuid"),
        ("version", "bigint"),
        ("kind", "text"),
        ("about", "jsonb"),
        ("detail", "text"),
        ("raised_at", "timestamptz"),
        ("raised_by", "text"),
        ("acknowledged_at", "timestamptz"),
        ("acknowledged_by", "text"),
        ("acknowledged_because", "text"),
    ),
    key=("id",),
    rows=rows,
)

_SELECT: Final = sql.SQL("""
SELECT id, version, kind, about, detail, raised_at, raised_by, acknowledged_at, acknowledged_by,
       acknowledged_because
FROM federation_alarms
""")
_BY_ID: Final = _SELECT + sql.SQL("WHERE id = %s")
_PAGE: Final = sql.SQL("WHERE {conditions} ORDER BY raised_at DESC, id DESC LIMIT %(limit)s")
_OPEN: Final = sql.SQL("acknowledged_at IS NULL")
_AFTER: Final = sql.SQL(
    "(raised_at, id) < ((SELECT raised_at FROM federation_alarms WHERE id = %(after)s), %(after)s)"
)
_COUNT_OPEN: Final = sql.SQL("SELECT count(*) FROM federation_alarms WHERE ") + _OPEN

_OPEN_ABOUT: Final = (
    sql.SQL("SELECT FROM federation_alarms WHERE kind = %s AND about ? %s AND ") + _OPEN
)


def by_id(connection: Connection[Any], alarm_id: UUID) -> AlarmRow | None:
    """The alarm of this id, None if there is none."""
    with connection.cursor(row_factory=class_row(AlarmRow)) as cursor:
        return cursor.execute(_BY_ID, [alarm_id]).fetchone()


def page(
    connection: Connection[Any],
    *,
    open_only: bool = False,
    kind: str | None = None,
    about: str | None = None,
    after: UUID | None = None,
    limit: int,
) -> list[AlarmRow]:
    """Up to `limit` alarms, newest first, from the one behind `after` (an id of the page before)."""
    conditions = [_OPEN if open_only else sql.SQL("true")]
    if kind is not None:
        conditions.append(sql.SQL("kind = %(kind)s"))
    if about is not None:
        conditions.append(sql.SQL("about ? %(about)s"))
    if after is not None:
        conditions.append(_AFTER)
    query = _SELECT + _PAGE.format(conditions=sql.SQL(" AND ").join(conditions))
    values = {"kind": kind, "about": about, "after": after, "limit": limit}
    with connection.cursor(row_factory=class_row(AlarmRow)) as cursor:
        return cursor.execute(query, values).fetchall()


def count_open(connection: Connection[Any]) -> int:
    """How many alarms wait for somebody."""
    row = connection.execute(_COUNT_OPEN).fetchone()
    return int(row[0]) if row else 0


def is_open_about(connection: Connection[Any], kind: str, about: str) -> bool:
    """Whether an alarm of this kind about this id waits for somebody."""
    return connection.execute(_OPEN_ABOUT, [kind, about]).fetchone() is not None
