"""What an append will be, worked out before the database is asked: positions, times, leaves.

Because all of it is known beforehand, the outcome can be told afterwards by one leaf even when the
answer was lost. It opens no connection.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple, TypeAlias

from ledger.appends import Append, InlineProjection
from ledger.canonical import format_id, format_time
from ledger.packing import BYTEA, INT8, TIMESTAMPTZ, UUIDS, integer, value_of
from ledger.packing import moment as single_moment
from ledger.statement import (
    CALLS,
    CLAIMS,
    EVENTS,
    NODES,
    READS,
    Columns,
    Shape,
    columns_of,
    statement,
)
from ledger.tlog.entry import entry_text, leaf_hash
from ledger.tlog.merkle import Frontier, Node

_TICK: Final = timedelta(microseconds=1)

_Items: TypeAlias = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Head:
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
    readers: Sequence[Sequence[int]]  # per read of the statement, the appends that need it


@dataclass(slots=True)
class _Places:
    """How far a plan has come."""

    frontier: Frontier
    last: datetime
    nodes: list[Node] = field(default_factory=list)
    written: list[Written] = field(default_factory=list)
    leaves: list[bytes] = field(default_factory=list)
    events: list[_Items] = field(default_factory=list)  # in the order of EVENTS


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
    reads = _reads(appends)
    tables = _rows(appends)
    parts: list[tuple[Columns, Sequence[_Items]]] = [
        (EVENTS, places.events),
        (NODES, [_node(node) for node in places.nodes]),
        (CLAIMS, _claims(appends, places.written)),
        (CALLS, _calls(appends, places.written)),
        *((columns_of(table), rows) for table, rows in tables.items()),
    ]
    _, nodes, claims, calls, *_ = lengths = [len(rows) for _, rows in parts]
    single = max(lengths) == 1
    shape = Shape(tuple(tables), bool(reads), bool(nodes), bool(claims), bool(calls), single)
    values: list[bytes | None] = [
        integer(head.size),
        head.frontier.edge(),
        integer(after.size),
        after.frontier.edge(),
        single_moment(places.last),
        single_moment(now),
    ]
    for columns, rows in parts:
        values += _alone(rows) if single else _arrays(columns, rows)
    values += _arrays(READS, [(UUIDS.item(of), INT8.item(version)) for of, version in reads])
    first, last = places.leaves[0], places.leaves[-1]
    return Plan(statement(shape), values, after, places.written, first, last, list(reads.values()))


def _alone(rows: Sequence[_Items]) -> list[bytes | None]:
    return [value_of(item) for items in rows for item in items]


def _arrays(columns: Columns, rows: Sequence[_Items]) -> list[bytes]:
    return [
        kind.array(items)
        for (_, kind), items in zip(columns, zip(*rows, strict=True), strict=False)
    ]


def _place(
    append: Append, places: _Places, now: datetime, stream_type: Callable[[str], str]
) -> None:
    """Give the append its positions, its time and its leaves, after all that were placed before."""
    frontier = places.frontier
    places.last = max(now, places.last + _TICK)
    places.written.append(Written(frontier.size + 1, places.last))
    moment, time = format_time(places.last), TIMESTAMPTZ.item(places.last)
    for event, digest, items in zip(
        append.events, append.digests, append.packed.events, strict=True
    ):
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
        places.nodes += frontier.append(leaf)
        places.leaves.append(leaf)
        places.events.append((*items, time, BYTEA.item(leaf)))


def _node(node: Node) -> _Items:
    return INT8.item(node.level), INT8.item(node.number), BYTEA.item(node.hash)


def _reads(appends: Sequence[Append]) -> dict[tuple[object, int], list[int]]:
    reads: dict[tuple[object, int], list[int]] = {}
    for number, append in enumerate(appends):
        for read in append.reads.items():
            reads.setdefault(read, []).append(number)
    return reads


def _rows(appends: Sequence[Append]) -> dict[InlineProjection, list[_Items]]:
    """The current-state rows of all, by table, always in one order.

    The statement's text is its cache key, and the order that locks are taken in.
    """
    rows: dict[InlineProjection, list[_Items]] = {}
    for append in appends:
        for table, some in append.packed.rows.items():
            rows.setdefault(table, []).extend(some)
    return {table: rows[table] for table in sorted(rows, key=lambda table: table.table)}


def _claims(appends: Sequence[Append], written: Sequence[Written]) -> list[_Items]:
    return [
        (*items, INT8.item(place.first_position + claim.event))
        for append, place in zip(appends, written, strict=True)
        for claim, items in zip(append.claims, append.packed.claims, strict=True)
    ]


def _calls(appends: Sequence[Append], written: Sequence[Written]) -> list[_Items]:
    return [
        (*items, INT8.item(place.first_position), INT8.item(len(append.events)))
        for append, place in zip(appends, written, strict=True)
        for items in append.packed.calls
    ]


def tables_of(appends: Sequence[Append]) -> list[str]:
    """The current-state tables these appends write, in the order locks are taken."""
    return sorted({table.table for append in appends for table in append.packed.rows})
