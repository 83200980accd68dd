"""Writes a made-up past: events, leaves, tree, claims, head and current state, as fast as COPY takes.

It uses the ledger's own entries and tree, and none of its locking: it is alone with an empty
database, as the owner.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import islice
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import sql

from ledger.canonical import format_time
from ledger.packing import BYTEA, INT8, TEXT, TIMESTAMPTZ, UUIDS, Kind, framed, packed
from ledger.tlog.entry import entry_text, leaf_hash
from ledger.tlog.merkle import Frontier
from projections.registry import INLINE
from support.past_stencils import Line

_TICK: Final = timedelta(microseconds=1)
_SENT: Final = 64  # rows sent at once, or a few more
_TOGETHER: Final = 200  # times, after which other tables are written
_EMPTY: Final = "SELECT FROM ledger_head WHERE size = 0"
_HEAD: Final = "UPDATE ledger_head SET size = %s, frontier = %s, last_recorded_at = %s"


class _Table(NamedTuple):
    name: str
    columns: Sequence[str]
    kinds: Sequence[Kind]

    def copy(self, connection: psycopg.Connection[Any], rows: Iterable[bytes]) -> None:
        """Write packed rows, joined or not."""
        query = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(
            sql.Identifier(self.name), sql.SQL(", ").join(map(sql.Identifier, self.columns))
        )
        with connection.cursor() as cursor, cursor.copy(query) as copying:
            for part in framed(rows):
                copying.write(part)


_EVENTS: Final = _Table(
    "ledger_events",
    ("stream_id", "version", "topic", "body", "position", "recorded_at", "leaf"),
    (UUIDS, INT8, TEXT, BYTEA, INT8, TIMESTAMPTZ, BYTEA),
)
_CLAIMS: Final = _Table(
    "ledger_claims", ("kind", "key", "stream_id", "position"), (TEXT, TEXT, UUIDS, INT8)
)
_LEVEL: Final = Kind("int2", 21, lambda level: b"\x00\x00\x00\x02" + level.to_bytes(2, "big"))
_NODES: Final = _Table("ledger_nodes", ("level", "index", "hash"), (_LEVEL, INT8, BYTEA))
_BESIDE: Final = {
    table.name: table
    for table in (
        _CLAIMS,
        _NODES,
        *(_Table(state.table, state.names, state.kinds) for state in INLINE),
    )
}


class Told(NamedTuple):
    """An append of one copy. Sorted by time, then by copy, then by its place in the mould, number 0."""

    at: datetime
    copy: int
    place: int
    lines: Sequence[Line]


@dataclass(slots=True)
class Press:
    """What is written so far, and what waits to be written beside the events."""

    frontier: Frontier = field(default_factory=Frontier)
    last: datetime | None = None
    _waiting: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    """Packed rows by table."""

    def write(self, dsn: str, told: Iterator[Told], progress: Callable[[int], object]) -> None:
        """Write a whole past in one transaction. ValueError if anything is recorded there already."""
        with psycopg.connect(dsn) as connection, ThreadPoolExecutor(1) as hand:
            if connection.execute(_EMPTY).fetchone() is None:
                raise ValueError("a past can only be made up in an empty ledger")
            events, before = self._events(told), -1
            written = hand.submit(_write_beside, connection, {})
            while before < self.frontier.size:
                before = self.frontier.size
                made = deque(islice(_meanwhile(events, written), _TOGETHER))
                written.result()
                _EVENTS.copy(connection, _drained(made, events))
                waiting, self._waiting = self._waiting, defaultdict(list)
                written = hand.submit(_write_beside, connection, waiting)
                progress(self.frontier.size)
            written.result()
            connection.execute(_HEAD, [self.frontier.size, self.frontier.edge(), self.last])

    def _events(self, told: Iterator[Told]) -> Iterator[bytes]:
        """Rows of events, some joined."""
        rows: list[bytes] = []
        for at, _, _, lines in told:
            self.last = at if self.last is None else max(at, self.last + _TICK)
            rows += self._rows(lines, format_time(self.last), TIMESTAMPTZ.item(self.last))
            if len(rows) >= _SENT:
                yield b"".join(rows)
                rows.clear()
        yield b"".join(rows)

    def _rows(self, lines: Iterable[Line], moment: str, item: bytes) -> Iterator[bytes]:
        frontier, waiting = self.frontier, self._waiting
        for fact, stream_id, version, body, event, claims, rows in lines:
            position, digest = frontier.size + 1, sha256(body).hexdigest()
            leaf = leaf_hash(
                entry_text(position, fact.STREAM, stream_id, version, fact.TOPIC, moment, digest)
            )
            number = INT8.item(position)
            for node in frontier.append(leaf):
                waiting[_NODES.name].append(packed(_NODES.kinds, node))
            for claim in claims:
                waiting[_CLAIMS.name].append(claim + number)
            for table, row in rows:
                waiting[table].append(row)
            yield b"".join((event, number, item, BYTEA.item(leaf)))


def _write_beside(connection: psycopg.Connection[Any], waiting: Mapping[str, list[bytes]]) -> None:
    for name, rows in waiting.items():
        _BESIDE[name].copy(connection, [b"".join(rows)])


def _meanwhile(rows: Iterator[bytes], written: Future[None]) -> Iterator[bytes]:
    """What can be made before that is written: the server is busy with its indexes."""
    while not written.done() and (row := next(rows, None)):
        yield row


def _drained(made: deque[bytes], rows: Iterator[bytes]) -> Iterator[bytes]:
    """What is made, and as many more, in order: two are taken as one is made, for the server is faster."""
    for row in islice(rows, _TOGETHER):
        made.append(row)
        yield made.popleft()
        if made:
            yield made.popleft()
    yield from made
