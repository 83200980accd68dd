"""The SQL of the one statement that appends, by which parts it needs. It computes no value.

Everything it adds is selected FROM head: no row of it can appear unless the compare-and-swap of the
head row succeeded.
"""

import re
from collections.abc import Sequence
from functools import cache
from typing import Final, NamedTuple, TypeAlias

from ledger.appends import InlineProjection
from ledger.packing import BYTEA, INT8, TEXT, TIMESTAMPTZ, UUIDS, Kind

CHANNEL: Final = "ledger_events"
"""NOTIFY channel of `_END`; the payload is the new size in decimal."""


class Shape(NamedTuple):
    """Which parts a statement has; the rest is left out rather than executed empty."""

    tables: tuple[InlineProjection, ...]
    reads: bool
    nodes: bool
    claims: bool
    idempotency: bool


Columns: TypeAlias = Sequence[tuple[str, Kind]]
"""Names of the statement's values and what they are arrays of, in the order of a row's items."""

EVENTS: Final[Columns] = (
    ("streams", UUIDS),
    ("versions", INT8),
    ("topics", TEXT),
    ("bodies", BYTEA),
    ("times", TIMESTAMPTZ),
    ("leaves", BYTEA),
)
READS: Final[Columns] = (("read_streams", UUIDS), ("read_versions", INT8))
NODES: Final[Columns] = (("levels", INT8), ("indexes", INT8), ("hashes", BYTEA))
CLAIMS: Final[Columns] = (
    ("claim_kinds", TEXT),
    ("claim_keys", TEXT),
    ("claim_streams", UUIDS),
    ("claim_positions", INT8),
)
CALLS: Final[Columns] = (
    ("call_credentials", TEXT),
    ("call_methods", TEXT),
    ("call_paths", TEXT),
    ("call_keys", TEXT),
    ("call_digests", TEXT),
    ("call_firsts", INT8),
    ("call_counts", INT8),
)


@cache
def columns_of(table: InlineProjection) -> Columns:
    return [
        (f"{table.table}.{name}", kind) for name, kind in zip(table.names, table.kinds, strict=True)
    ]


def _taken(columns: Columns) -> str:
    """What takes the arrays apart, in step.

    In the SELECT list, because as functions in FROM each would fill a tuplestore first: an eighth of
    the statement's time.
    """
    return ", ".join(f"unnest(%({name})::{kind.name}[])" for name, kind in columns)


# The head row is the lock that serializes the appends of all processes. In READ COMMITTED a statement
# that waited for the head row sees its newest version when it compares, and the older snapshot in
# `moved`; the comparison then fails, because the head has moved on, so a success means that `moved`
# saw every event up to the expected size, and no other.
_MOVED: Final = """moved AS NOT MATERIALIZED (
    SELECT r.number
    FROM (SELECT unnest(%(read_streams)::uuid[]) AS stream_id,
                 unnest(%(read_versions)::int8[]) AS version,
                 generate_subscripts(%(read_streams)::uuid[], 1)::int8 AS number) r,
         LATERAL (SELECT FROM ledger_events e
                  WHERE e.stream_id = r.stream_id AND e.version = r.version + 1 LIMIT 1) q
)"""
_CLOCK: Final = """abs(extract(epoch FROM statement_timestamp() - %(now)::timestamptz))
          <= %(skew)::float8"""
_HEAD: Final = """head AS (
    UPDATE ledger_head
    SET size = %(size)::int8, frontier = %(edge)::bytea, last_recorded_at = %(last)::timestamptz
    WHERE one AND size = %(expected)::int8 AND frontier = %(expected_edge)::bytea
      AND projections_version = %(projections_version)::int8
      AND {clock}{still}
    RETURNING size
)"""
_EVENT: Final = """event AS (
    INSERT INTO ledger_events (position, stream_id, version, topic, body, recorded_at, leaf)
    SELECT generate_series(%(expected)::int8 + 1, %(size)::int8), {values} FROM head
)"""
_NODE: Final = """node AS (
    INSERT INTO ledger_nodes (level, index, hash) SELECT {values} FROM head
)"""
_CLAIM: Final = """claim AS (
    INSERT INTO ledger_claims (kind, key, stream_id, position) SELECT {values} FROM head
)"""
_CALL: Final = """call AS (
    INSERT INTO ledger_idempotency
        (credential, method, path, key, body_sha256, first_position, events)
    SELECT {values} FROM head
)"""
_ROW: Final = """{name} AS (
    INSERT INTO {table} ({columns}) SELECT {values} FROM head
    ON CONFLICT ({key}) {resolution}
)"""
# What has moved is looked for again only if the head was not: in the same snapshot, so the same.
_END: Final = """
SELECT head.size, {clock}, CASE WHEN head.size IS NULL THEN {moved} END,
       CASE WHEN head.size IS NOT NULL THEN pg_notify('ledger_events', head.size::text) END
FROM (SELECT) one_row LEFT JOIN head ON true"""
_STILL: Final = " AND NOT EXISTS (SELECT FROM moved)"
_NUMBERS: Final = "ARRAY(SELECT number FROM moved)"

_PARAMETER: Final = re.compile(r"%\(([\w.]+)\)s?")


class Statement(NamedTuple):
    """SQL with `$1` … and the names of the values that go there."""

    text: bytes
    names: tuple[str, ...]


@cache
def statement(shape: Shape) -> Statement:
    """The SQL of a shape; one object each, because its text is what a prepared plan is found by."""
    parts = [
        *([_MOVED] if shape.reads else []),
        _HEAD.format(clock=_CLOCK, still=_STILL if shape.reads else ""),
        _EVENT.format(values=_taken(EVENTS)),
        *([_NODE.format(values=_taken(NODES))] if shape.nodes else []),
        *([_CLAIM.format(values=_taken(CLAIMS))] if shape.claims else []),
        *([_CALL.format(values=_taken(CALLS))] if shape.idempotency else []),
        *(_row_part(table) for table in shape.tables),
    ]
    end = _END.format(clock=_CLOCK, moved=_NUMBERS if shape.reads else "'{}'::int8[]")
    text = "WITH " + ", ".join(parts) + end
    names = tuple(dict.fromkeys(_PARAMETER.findall(text)))
    numbers = {name: f"${number}" for number, name in enumerate(names, 1)}
    return Statement(_PARAMETER.sub(lambda found: numbers[found[1]], text).encode(), names)


def _row_part(table: InlineProjection) -> str:
    values = (
        f"{_taken([taken])}::{kind}"
        for taken, (_, kind) in zip(columns_of(table), table.columns, strict=True)
    )
    changes = (f"{name} = excluded.{name}" for name in _quoted(table.names, without=table.key))
    resolution = ", ".join(changes)
    return _ROW.format(
        name=f"row_{table.table}",
        table=table.table,
        columns=", ".join(_quoted(table.names)),
        values=", ".join(values),
        key=", ".join(_quoted(table.key)),
        resolution=f"DO UPDATE SET {resolution}" if resolution else "DO NOTHING",
    )


def _quoted(names: Sequence[str], without: Sequence[str] = ()) -> list[str]:
    """Identifiers of plain letters (`InlineProjection` sees to that), safe if SQL has the word."""
    return [f'"{name}"' for name in names if name not in without]
