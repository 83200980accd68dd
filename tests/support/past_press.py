"""Writes a made-up past: events, leaves, tree, claims, head and current state, as fast as COPY takes.

It uses the ledger's own entries and tree, and none of its locking: it is alone with an empty
database, as the owner.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import chain, islice
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
_TOGETHER: Final = 10_000  # events between two of which other tables are written
_SENT: Final = 64  # rows sent at once
_EMPTY: Final = "SELECT FROM ledger_head WHERE size = 0"
_HEAD: Final = "UPDATE ledger_head SET size = %s, frontier = %s, last_recorded_at = %s"


class _Table(NamedTuple):
    name: str
    columns: Sequence[str]
    kinds: Sequence[Kind]

    def copy(self, connection: psycopg.Connection[Any], rows: Iterable[bytes]) -> None:
        query = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(
            sql.Identifier(self.name), sql.SQL(", ").join(map(sql.Identifier, self.columns))
        )
        parts = framed(rows)
        with connection.cursor() as cursor, cursor.copy(query) as copying:
            while part := b"".join(islice(parts, _SENT)):
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
    """An append of one copy. Sorted by time, then by copy; the mould is number 0."""

    at: datetime
    copy: int
    lines: Sequence[Line]


@dataclass(slots=True)
class Press:
    """What is written so far, and what waits to be written beside the events."""

    frontier: Frontier = field(default_factory=Frontier)
    last: datetime | None = None
    _waiting: dict[str, list[bytes]] = field(default_factory=dict)  # packed rows by table

    def write(self, dsn: str, told: Iterator[Told], progress: Callable[[int], object]) -> None:
        """Write a whole past in one transaction. ValueError if anything is recorded there already."""
        with psycopg.connect(dsn) as connection, ThreadPoolExecutor(1) as hand:
            if connection.execute(_EMPTY).fetchone() is None:
                raise ValueError("a past can only be made up in an empty ledger")
            events, before = self._events(told), -1
            written = hand.submit(_write_beside, connection, {})
            while before < self.frontier.size:
                before = self.frontier.size
                made = list(islice(_meanwhile(events, written), _TOGETHER))
                written.result()
                _EVENTS.copy(connection, chain(made, islice(events, _TOGETHER - len(made))))
                waiting, self._waiting = self._waiting, {}
                written = hand.submit(_write_beside, connection, waiting)
                progress(self.frontier.size)
            written.result()
            connection.execute(_HEAD, [self.frontier.size, self.frontier.edge(), self.last])

    def _events(self, told: Iterator[Told]) -> Iterator[bytes]:
        for at, _, lines in told:
            self.last = at if self.last is None else max(at, self.last + _TICK)
            moment, item = format_time(self.last), TIMESTAMPTZ.item(self.last)
            for line in lines:
                yield self._event(line, moment, item)

    def _event(self, line: Line, moment: str, item: bytes) -> bytes:
        fact, stream_id, version, body, event, claims, rows = line
        position, digest = self.frontier.size + 1, sha256(body).hexdigest()
        entry = entry_text(position, fact.STREAM, stream_id, version, fact.TOPIC, moment, digest)
        leaf = leaf_hash(entry)
        for node in self.frontier.append(leaf):
            self._wait(_NODES.name, packed(_NODES.kinds, node))
        number = INT8.item(position)
        for claim in claims:
            self._wait(_CLAIMS.name, claim + number)
        for table, row in rows:
            self._wait(table, row)
        return b"".join((event, number, item, BYTEA.item(leaf)))

    def _wait(self, table: str, row: bytes) -> None:
        self._waiting.setdefault(table, []).append(row)


def _write_beside(connection: psycopg.Connection[Any], waiting: Mapping[str, list[bytes]]) -> None:
    for name, rows in waiting.items():
        _BESIDE[name].copy(connection, rows)


def _meanwhile(rows: Iterator[bytes], written: Future[None]) -> Iterator[bytes]:
    """What can be made before that is written: the server is busy with its indexes."""
    while not written.done() and (row := next(rows, None)):
        yield row
