"""The SQL of the one statement that appends, by which parts it needs. It computes no value.

Everything it adds is selected FROM head: no row of it can appear unless the compare-and-swap of the
head row succeeded.
"""

from collections.abc import Sequence
from functools import cache
from typing import Final, NamedTuple, TypeAlias

from ledger.appends import InlineProjection
from ledger.packing import BYTEA, INT8, TEXT, TIMESTAMPTZ, UUIDS, Kind

MANY: Final = -1
"""Rows of a part."""

CHANNEL: Final = "ledger_events"
"""NOTIFY channel of `_END`; the payload is the new size in decimal."""


class Shape(NamedTuple):
    """How many rows each part of a statement has: none, one, or MANY.

    A part without rows is left out rather than executed empty. The values of one row travel as they are
    and not as arrays, which saves a tenth of an append's time; of many, each column is an array. Of
    `reads`, each up to MOST_READS is a condition with values of its own.
    """

    events: int
    nodes: int
    claims: int
    calls: int
    tables: tuple[tuple[InlineProjection, int], ...]
    reads: int


Columns: TypeAlias = Sequence[tuple[str, Kind]]
"""Names of a part's values and of what type they are, in the order of a row's items."""

FIXED: Final = ("projections_version", "skew")
SCALARS: Final = ("expected", "expected_edge", "size", "edge", "last", "now")
"""What every statement is given before its parts: as long as a session lasts, then for each."""

EVENTS: Final[Columns] = (
    ("streams", UUIDS),
    ("versions", INT8),
    ("topics", TEXT),
    ("bodies", BYTEA),
    ("times", TIMESTAMPTZ),
    ("leaves", BYTEA),
)
READS: Final[Columns] = (("read_streams", UUIDS), ("read_versions", INT8))
MOST_READS: Final = 4
"""Of a single append, each as a condition of its own: most commands read no more."""
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


def _taken(columns: Columns, rows: int) -> list[str]:
    """The columns' values: of the one row, or what takes the arrays apart, in step.

    In the SELECT list, because as functions in FROM each would fill a tuplestore first: an eighth of
    the statement's time.
    """
    form = "unnest(%({})s::{}[])" if rows == MANY else "%({})s::{}"
    return [form.format(name, kind.name) for name, kind in columns]


# The head row is the lock that serializes the appends of all processes. In READ COMMITTED a statement
# that waited for the head row sees its newest version when it compares, and the older snapshot in what
# was read; the comparison then fails, because the head has moved on, so a success means that the reads
# were compared with every event up to the expected size, and no other.
_MOVED: Final = """SELECT FROM ledger_events e
          WHERE e.stream_id = {stream} AND e.version = {version} + 1"""
_STILL: Final = f"""
      AND NOT EXISTS ({_MOVED})"""
_ALL_STILL: Final = f"""
      AND NOT EXISTS (
          SELECT FROM (SELECT unnest(%(read_streams)s::uuid[]) AS stream_id,
                              unnest(%(read_versions)s::int8[]) AS version) r,
          LATERAL ({_MOVED.format(stream="r.stream_id", version="r.version")} LIMIT 1) q)"""
_CLOCK: Final = """abs(extract(epoch FROM statement_timestamp() - %(now)s::timestamptz))
          <= %(skew)s::float8"""
_HEAD: Final = """head AS (
    UPDATE ledger_head
    SET size = %(size)s::int8, frontier = %(edge)s::bytea, last_recorded_at = %(last)s::timestamptz
    WHERE one AND size = %(expected)s::int8 AND frontier = %(expected_edge)s::bytea
      AND projections_version = %(projections_version)s::int8
      AND {clock}{still}
    RETURNING size
)"""
_EVENT: Final = """event AS (
    INSERT INTO ledger_events (position, stream_id, version, topic, body, recorded_at, leaf)
    SELECT {positions}, {values} FROM head
)"""
_ONE: Final = "%(size)s::int8"
_ALL: Final = "generate_series(%(expected)s::int8 + 1, %(size)s::int8)"
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
# One row if it appended, else none.
_END: Final = """
SELECT pg_notify('ledger_events', size::text) FROM head"""

_REFUSAL: Final = """SELECT {clock},
    ARRAY(SELECT number
          FROM unnest($3::uuid[], $4::int8[]) WITH ORDINALITY AS r(stream_id, version, number)
          WHERE EXISTS ({moved}))"""
REFUSAL: Final = _REFUSAL.format(
    clock=_CLOCK % {"now": "$1", "skew": "$2"},
    moved=_MOVED.format(stream="r.stream_id", version="r.version"),
)
"""Why nothing was appended: whether the clocks agree, and the numbers (from 1) of the reads that have
moved on. Neither: the head was another's. Asked afterwards, so that nobody waits for an answer that is
nearly always empty; what has moved by then has moved, and whoever read it decides anew."""


@cache
def statement(shape: Shape) -> bytes:
    """The SQL of a shape; one object each, because its text is what a prepared plan is found by.

    `$1` and so on stand for FIXED, SCALARS, then the columns of EVENTS, NODES, CLAIMS, CALLS, the tables and
    READS, as far as it has them: in that order.
    """

    given = (
        (
            _EVENT.replace("{positions}", _ALL if shape.events == MANY else _ONE),
            EVENTS,
            shape.events,
        ),
        (_NODE, NODES, shape.nodes),
        (_CLAIM, CLAIMS, shape.claims),
        (_CALL, CALLS, shape.calls),
    )
    parts = [
        _HEAD.format(clock=_CLOCK, still=_still(shape.reads)),
        *(
            form.format(values=", ".join(_taken(columns, rows)))
            for form, columns, rows in given
            if rows
        ),
        *(_row_part(table, rows) for table, rows in shape.tables),
    ]
    numbers = {name: f"${number}" for number, name in enumerate(_names(shape), 1)}
    return (("WITH " + ", ".join(parts) + _END) % numbers).encode()


def _still(reads: int) -> str:
    """The condition that nothing read has moved on."""
    if reads == MANY:
        return _ALL_STILL
    return "".join(
        _STILL.format(stream=f"%({stream})s::uuid", version=f"%({version})s::int8")
        for stream, version in map(_read, range(reads))
    )


def _read(number: int) -> tuple[str, str]:
    """The names of one read's values."""
    stream, version = (f"{name}_{number}" for name, _ in READS)
    return stream, version


def _names(shape: Shape) -> list[str]:
    given = [
        EVENTS,
        *([NODES] if shape.nodes else []),
        *([CLAIMS] if shape.claims else []),
        *([CALLS] if shape.calls else []),
        *(columns_of(table) for table, _ in shape.tables),
        *([READS] if shape.reads == MANY else []),
    ]
    reads = [name for number in range(shape.reads) for name in _read(number)]
    return [*FIXED, *SCALARS, *(name for columns in given for name, _ in columns), *reads]


def _row_part(table: InlineProjection, rows: int) -> str:
    taken = _taken(columns_of(table), rows)
    values = (f"{one}::{kind}" for one, (_, kind) in zip(taken, table.columns, strict=True))
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
