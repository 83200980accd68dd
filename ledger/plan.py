"""What an append will be, worked out before the database is asked: positions, times, leaves.

Because all of it is known beforehand, the outcome can be told afterwards by one leaf even when the
answer was lost. It opens no connection.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple, TypeAlias
from uuid import UUID

from ledger.appends import Append, InlineProjection
from ledger.canonical import format_id, format_time
from ledger.packing import BYTEA, INT8, LENGTH, NULL, TIMESTAMPTZ, UUIDS, integer
from ledger.packing import moment as single_moment
from ledger.statement import (
    CALLS,
    CLAIMS,
    EVENTS,
    MANY,
    MOST_READS,
    NODES,
    READS,
    Columns,
    Shape,
    columns_of,
    statement,
)
from ledger.tlog.entry import entry_text, leaf_hash
from ledger.tlog.merkle import Frontier

_TICK: Final = timedelta(microseconds=1)

_Items: TypeAlias = tuple[bytes, ...]

Reads: TypeAlias = Mapping[tuple[UUID, int], Sequence[int]]
"""What was read, (stream, version), and the numbers (from 0) of the appends that need it."""


class Head(NamedTuple):
    """The head row: how many events, the tree's right edge, and when the last one was recorded."""

    frontier: Frontier
    last_recorded_at: datetime | None

    @property
    def size(self) -> int:
        return self.frontier.size


class Written(NamedTuple):
    """Where an append stands: its first position, and the time all its events share."""

    first_position: int
    recorded_at: datetime


class Plan(NamedTuple):
    """One execution of the statement: what it is given and what is true if it commits."""

    statement: bytes
    values: Sequence[bytes | None]  # in binary form: all but FIXED
    after: Head
    written: Sequence[Written]
    first_leaf: bytes
    last_leaf: bytes
    reads: Reads


@dataclass(slots=True)
class _Places:
    """How far a plan has come, and the rows of each part so far."""

    frontier: Frontier
    last: datetime
    written: list[Written] = field(default_factory=list)
    leaves: list[bytes] = field(default_factory=list)
    events: list[_Items] = field(default_factory=list)
    nodes: list[_Items] = field(default_factory=list)
    claims: list[_Items] = field(default_factory=list)
    calls: list[_Items] = field(default_factory=list)
    rows: dict[InlineProjection, list[_Items]] = field(default_factory=dict)


def plan(
    head: Head, appends: Sequence[Append], now: datetime, stream_type: Callable[[str], str]
) -> Plan:
    """Work out the statement that appends `appends`, in this order, at `head`.

    `stream_type`: topic → stream type, as it stands in the entry.
    """
    places = _Places(head.frontier.copy(), head.last_recorded_at or now - _TICK)
    for append in appends:
        _place(append, places, now, stream_type)
    after = Head(places.frontier, places.last)
    # Always in one order: the statement's text is its cache key, and the order locks are taken in.
    tables = sorted(places.rows, key=_name)
    parts: list[tuple[Columns, Sequence[_Items]]] = [
        (EVENTS, places.events),
        (NODES, places.nodes),
        (CLAIMS, places.claims),
        (CALLS, places.calls),
        *[(columns_of(table), places.rows[table]) for table in tables],
    ]
    # Several appends together are of more mixtures than a session could keep statements prepared for.
    alone = len(appends) == 1
    counts = [len(rows) if len(rows) < 2 and (alone or not rows) else MANY for _, rows in parts]
    values: list[bytes | None] = [
        integer(head.size),
        head.frontier.edge(),
        integer(after.size),
        after.frontier.edge(),
        single_moment(places.last),
        single_moment(now),
    ]
    for (columns, rows), count in zip(parts, counts, strict=True):
        values += _arrays(columns, rows) if count == MANY else _alone(rows)
    reads = _reads(appends)
    each = alone and len(reads) <= MOST_READS
    looked = [(UUIDS.item(stream), INT8.item(version)) for stream, version in reads]
    values += _alone(looked) if each else _arrays(READS, looked)
    events, nodes, claims, calls, *others = counts
    shape = Shape(
        events,
        nodes,
        claims,
        calls,
        tuple(zip(tables, others, strict=True)),
        len(reads) if each or not reads else MANY,
    )
    first, last = places.leaves[0], places.leaves[-1]
    return Plan(statement(shape), values, after, places.written, first, last, reads)


def _name(table: InlineProjection) -> str:
    return table.table


def _alone(rows: Sequence[_Items]) -> list[bytes | None]:
    """The only row's values, if there is one."""
    return [None if item == NULL else item[LENGTH:] for items in rows for item in items]


def _arrays(columns: Columns, rows: Sequence[_Items]) -> list[bytes]:
    """One array per column, if there are rows."""
    return [kind.array(items) for (_, kind), items in zip(columns, zip(*rows))]  # noqa: B905 - there are no rows, or rows of these columns


def _place(
    append: Append, places: _Places, now: datetime, stream_type: Callable[[str], str]
) -> None:
    """Give the append its positions, its time and its leaves, after all that were placed before."""
    frontier = places.frontier
    first = frontier.size + 1
    places.last = max(now, places.last + _TICK)
    places.written.append(Written(first, places.last))
    moment, time = format_time(places.last), TIMESTAMPTZ.item(places.last)
    packed = append.packed
    for event, digest, items in zip(append.events, append.digests, packed.events, strict=True):
        entry = entry_text(
            frontier.size + 1,
            stream_type(event.topic),
            format_id(event.stream_id),
            event.version,
            event.topic,
            moment,
            digest,
        )
        leaf = leaf_hash(entry)
        places.leaves.append(leaf)
        places.events.append((*items, time, BYTEA.item(leaf)))
        for level, number, root in frontier.append(leaf):
            places.nodes.append((INT8.item(level), INT8.item(number), BYTEA.item(root)))
    for claim, items in zip(append.claims, packed.claims, strict=True):
        places.claims.append((*items, INT8.item(first + claim.event)))
    for items in packed.calls:
        places.calls.append((*items, INT8.item(first), INT8.item(len(append.events))))
    for table, some in packed.rows.items():
        places.rows.setdefault(table, []).extend(some)


def _reads(appends: Sequence[Append]) -> Reads:
    reads: dict[tuple[UUID, int], list[int]] = {}
    for number, append in enumerate(appends):
        for read in append.reads.items():
            reads.setdefault(read, []).append(number)
    return reads


def tables_of(appends: Sequence[Append]) -> list[str]:
    """The current-state tables these appends write, in the order locks are taken."""
    return sorted({table.table for append in appends for table in append.packed.rows})
