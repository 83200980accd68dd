"""What an append will be, worked out before the database is asked: positions, times, leaves.

Because all of it is known beforehand, the outcome can be told afterwards by one leaf even when the
answer was lost. It opens no connection.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from ledger.appends import Append, InlineProjection
from ledger.canonical import format_time
from ledger.statement import Shape, Statement, statement
from ledger.tlog.entry import entry_text, leaf_hash
from ledger.tlog.merkle import Frontier, Node

_TICK: Final = timedelta(microseconds=1)


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


@dataclass(frozen=True, slots=True)
class Plan:
    """One execution of the statement: what it is given and what is true if it commits."""

    statement: Statement
    values: dict[str, object]
    after: Head
    written: Sequence[Written]
    first_leaf: bytes
    last_leaf: bytes
    readers: Sequence[Sequence[int]]  # per read of the statement, the appends that need it


@dataclass(slots=True)
class _Columns:
    """The statement's arrays, one item per event."""

    streams: list[object] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    topics: list[str] = field(default_factory=list)
    times: list[datetime] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    leaves: list[bytes] = field(default_factory=list)


def plan(
    head: Head, appends: Sequence[Append], now: datetime, stream_type: Callable[[str], str]
) -> Plan:
    """Work out the statement that appends `appends`, in this order, at `head`.

    `stream_type`: topic → stream type, as it stands in the entry.
    """
    frontier, nodes = head.frontier.copy(), list[Node]()
    columns, written = _Columns(), list[Written]()
    last = head.last_recorded_at
    for append in appends:
        last = now if last is None else max(now, last + _TICK)
        written.append(Written(frontier.size + 1, last))
        moment = format_time(last)
        for event, digest in zip(append.events, append.digests, strict=True):
            entry = entry_text(
                frontier.size + 1,
                stream_type(event.topic),
                event.stream_id,
                event.version,
                event.topic,
                moment,
                digest,
            )
            leaf = leaf_hash(entry)
            nodes += frontier.append(leaf)
            columns.streams.append(event.stream_id)
            columns.versions.append(event.version)
            columns.topics.append(event.topic)
            columns.times.append(last)
            columns.bodies.append(event.body)
            columns.leaves.append(leaf)
    reads = _reads(appends)
    values: dict[str, Any] = {
        "expected": head.size,
        "expected_edge": head.frontier.edge(),
        "size": frontier.size,
        "edge": frontier.edge(),
        "last": last,
        "now": now,
        **{name: getattr(columns, name) for name in _Columns.__slots__},
    }
    shape = Shape(
        _add_rows(values, appends),
        _add(values, ("read_streams", "read_versions"), reads),
        _add(values, ("levels", "indexes", "hashes"), nodes),
        _add(values, _CLAIM_VALUES, _claims(appends, written)),
        _add(values, _CALL_VALUES, _calls(appends, written)),
    )
    return Plan(
        statement(shape),
        values,
        Head(frontier, last),
        written,
        columns.leaves[0],
        columns.leaves[-1],
        list(reads.values()),
    )


def _reads(appends: Sequence[Append]) -> dict[tuple[object, int], list[int]]:
    reads: dict[tuple[object, int], list[int]] = {}
    for number, append in enumerate(appends):
        for read in append.reads.items():
            reads.setdefault(read, []).append(number)
    return reads


def _add_rows(values: dict[str, Any], appends: Sequence[Append]) -> tuple[InlineProjection, ...]:
    rows: dict[InlineProjection, list[bytes]] = {}
    for append in appends:
        for table, some in append.rows.items():
            rows.setdefault(table, []).extend(some)
    # Always in one order: the statement's text is its cache key, and the order locks are taken in.
    tables = tuple(sorted(rows, key=lambda table: table.table))
    for table in tables:
        values[f"rows_{table.table}"] = (b"[" + b",".join(rows[table]) + b"]").decode()
    return tables


def _add(values: dict[str, Any], names: Sequence[str], rows: Iterable[tuple[object, ...]]) -> bool:
    """Add `rows` as one array per name; say whether there were any."""
    arrays = [list(array) for array in zip(*rows, strict=True)]
    values.update(zip(names, arrays, strict=False))
    return bool(arrays)


def _claims(appends: Sequence[Append], written: Sequence[Written]) -> Iterator[tuple[Any, ...]]:
    for append, place in zip(appends, written, strict=True):
        for kind, key, event in append.claims:
            yield kind, key, append.events[event].stream_id, place.first_position + event


def _calls(appends: Sequence[Append], written: Sequence[Written]) -> Iterator[tuple[Any, ...]]:
    for append, place in zip(appends, written, strict=True):
        if (call := append.idempotency) is not None:
            yield *call.name, call.body_sha256, place.first_position, len(append.events)


_CLAIM_VALUES: Final = ("claim_kinds", "claim_keys", "claim_streams", "claim_positions")
_CALL_VALUES: Final = (
    "call_credentials",
    "call_methods",
    "call_paths",
    "call_keys",
    "call_digests",
    "call_firsts",
    "call_counts",
)


def tables_of(appends: Sequence[Append]) -> list[str]:
    """The current-state tables these appends write, in the order locks are taken."""
    return sorted({table.table for append in appends for table in append.rows})
