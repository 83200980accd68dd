"""The SQL of the one statement that appends, by which parts it needs. It computes no value.

Everything it adds is selected FROM head: no row of it can appear unless the compare-and-swap of the
head row succeeded.
"""

import re
from functools import cache
from typing import Final, NamedTuple

from psycopg import sql

from ledger.appends import InlineProjection

CHANNEL: Final = "ledger_events"
"""NOTIFY channel of `_END`; the payload is the new size in decimal."""


class Shape(NamedTuple):
    """Which parts a statement has; the rest is left out rather than executed empty."""

    tables: tuple[InlineProjection, ...]
    reads: bool
    nodes: bool
    claims: bool
    idempotency: bool


# The head row is the lock that serializes the appends of all processes. In READ COMMITTED a statement that waited for the head row sees its newest version when it compares,
# and the older snapshot in `moved`; the comparison then fails, because the head has moved on, so
# a success means that `moved` saw every event up to the expected size, and no other.
_MOVED: Final = """moved AS MATERIALIZED (
    SELECT r.number
    FROM unnest(%(read_streams)::uuid[], %(read_versions)::int8[])
         WITH ORDINALITY AS r(stream_id, version, number),
         LATERAL (SELECT FROM ledger_events e
                  WHERE e.stream_id = r.stream_id AND e.version = r.version + 1 LIMIT 1) q
)"""
_NOTHING_MOVED: Final = "moved AS (SELECT 0::int8 AS number WHERE false)"
_HEAD: Final = """clock AS MATERIALIZED (
    SELECT abs(extract(epoch FROM statement_timestamp() - %(now)::timestamptz)) <= %(skew)::float8
           AS good
), head AS (
    UPDATE ledger_head
    SET size = %(size)::int8, frontier = %(edge)::bytea, last_recorded_at = %(last)::timestamptz
    WHERE one AND size = %(expected)::int8 AND frontier = %(expected_edge)::bytea
      AND projections_version = %(projections_version)::int8
      AND (SELECT good FROM clock) AND NOT EXISTS (SELECT FROM moved)
    RETURNING size
), event AS (
    INSERT INTO ledger_events (position, stream_id, version, topic, recorded_at, body, leaf)
    SELECT %(expected)::int8 + u.number, u.stream_id, u.version, u.topic, u.recorded_at, u.body,
           u.leaf
    FROM head, unnest(%(streams)::uuid[], %(versions)::int8[], %(topics)::text[],
                      %(times)::timestamptz[], %(bodies)::bytea[], %(leaves)::bytea[])
         WITH ORDINALITY AS u(stream_id, version, topic, recorded_at, body, leaf, number)
)"""
_NODES: Final = """node AS (
    INSERT INTO ledger_nodes (level, index, hash)
    SELECT u.level, u.index, u.hash
    FROM head, unnest(%(levels)::int8[], %(indexes)::int8[], %(hashes)::bytea[])
         AS u(level, index, hash)
)"""
_CLAIMS: Final = """claim AS (
    INSERT INTO ledger_claims (kind, key, stream_id, position)
    SELECT u.kind, u.key, u.stream_id, u.position
    FROM head, unnest(%(claim_kinds)::text[], %(claim_keys)::text[], %(claim_streams)::uuid[],
                      %(claim_positions)::int8[]) AS u(kind, key, stream_id, position)
)"""
_IDEMPOTENCY: Final = """call AS (
    INSERT INTO ledger_idempotency
        (credential, method, path, key, body_sha256, first_position, events)
    SELECT u.credential, u.method, u.path, u.key, u.body_sha256, u.first_position, u.events
    FROM head, unnest(%(call_credentials)::text[], %(call_methods)::text[],
                      %(call_paths)::text[], %(call_keys)::text[], %(call_digests)::text[],
                      %(call_firsts)::int8[], %(call_counts)::int8[])
         AS u(credential, method, path, key, body_sha256, first_position, events)
)"""
_ROWS: Final = sql.SQL("""{name} AS (
    INSERT INTO {table} ({columns})
    SELECT {values} FROM head, json_to_recordset({rows}::json) AS u({types})
    ON CONFLICT ({key}) {resolution}
)""")
_END: Final = """
SELECT (SELECT size FROM head), (SELECT good FROM clock), ARRAY(SELECT number FROM moved),
       (SELECT pg_notify('ledger_events', head.size::text) FROM head)"""

_PARAMETER: Final = re.compile(r"%\((\w+)\)s?")


class Statement(NamedTuple):
    """SQL with `$1` … and the names of the values that go there."""

    text: bytes
    names: tuple[str, ...]


@cache
def statement(shape: Shape) -> Statement:
    """The SQL of a shape; one object each, because its text is what a prepared plan is found by."""
    parts = [
        _MOVED if shape.reads else _NOTHING_MOVED,
        _HEAD,
        *([_NODES] if shape.nodes else []),
        *([_CLAIMS] if shape.claims else []),
        *([_IDEMPOTENCY] if shape.idempotency else []),
        *(_rows_part(table).as_string() for table in shape.tables),
    ]
    text = "WITH " + ", ".join(parts) + _END
    names = tuple(dict.fromkeys(_PARAMETER.findall(text)))
    numbers = {name: f"${number}" for number, name in enumerate(names, 1)}
    return Statement(_PARAMETER.sub(lambda found: numbers[found[1]], text).encode(), names)


def _rows_part(table: InlineProjection) -> sql.Composed:
    comma = sql.SQL(", ")
    others = [name for name in table.names if name not in table.key]
    resolution = (
        sql.SQL("DO UPDATE SET ")
        + comma.join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in others)
        if others
        else sql.SQL("DO NOTHING")
    )
    return _ROWS.format(
        name=sql.Identifier(f"row_{table.table}"),
        table=sql.Identifier(table.table),
        columns=comma.join(map(sql.Identifier, table.names)),
        values=comma.join(
            # jsonb travels as text inside the JSON, so that its own quoting stays what it is.
            sql.SQL("u.{}::jsonb" if kind == "jsonb" else "u.{}").format(sql.Identifier(name))
            for name, kind in table.columns
        ),
        rows=sql.Placeholder(f"rows_{table.table}"),
        types=comma.join(
            sql.Identifier(name) + sql.SQL(" text" if kind == "jsonb" else f" {kind}")
            for name, kind in table.columns
        ),
        key=comma.join(map(sql.Identifier, table.key)),
        resolution=resolution,
    )
