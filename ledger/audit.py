"""Recomputes the record from its bodies: entries, leaves, tree, streams, claims, calls.

Plain and complete rather than fast: everything from position 1, nothing taken on trust. It knows no
current-state table (`projections/verify.py`) and no signature.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import orjson
import psycopg

from ledger.canonical import CanonicalError, canonical_json
from ledger.claims import claims_of
from ledger.events import Event
from ledger.mapper import StoredEventError
from ledger.record import RecordedEvent
from ledger.tlog.entry import EntryError, leaf_hash, parse_entry
from ledger.tlog.merkle import Frontier, Node, root_of

_EVENTS: Final = """SELECT position, stream_id, version, topic, recorded_at, body, leaf
    FROM ledger_events WHERE position > {after} ORDER BY position"""
_HEAD: Final = "SELECT size, frontier, last_recorded_at FROM ledger_head"
_NODES: Final = """SELECT level, index, hash FROM ledger_nodes
    WHERE ((index + 1) << level) > {after} ORDER BY level, index"""
_CLAIMS: Final = """SELECT kind, key, stream_id, position FROM ledger_claims
    WHERE position > {after} ORDER BY position"""
_CALLS: Final = """SELECT key, first_position, events FROM ledger_idempotency
    WHERE first_position > {after} ORDER BY first_position"""

_EDGE: Final = """SELECT hash FROM ledger_nodes
    WHERE level = %s AND index >= %s AND index < %s ORDER BY index"""
_BEFORE: Final = """SELECT stream_id, max(version) FROM ledger_events WHERE position <= %(after)s
    AND stream_id IN (SELECT stream_id FROM ledger_events WHERE position > %(after)s) GROUP BY 1"""
_STORED_EVERY: Final = 256  # leaves per stored subtree of the lowest level kept


class Violation(NamedTuple):
    """`where`: a position, a table's row or the head. `what`: in words, without stored values."""

    where: str
    what: str


class Place(NamedTuple):
    """Of which append an event is."""

    stream_id: UUID
    recorded_at: datetime


def rows(connection: psycopg.Connection[Any], query: str) -> Iterator[tuple[Any, ...]]:
    """Yield a query's rows without holding them all; within the connection's transaction."""
    with connection.cursor(name="audit") as cursor:
        cursor.itersize = 1000
        yield from cursor.execute(query.encode())


class Since(NamedTuple):
    """Where a check of the newest events begins: what lies before it is taken on trust.

    `frontier`: of the tree up to there. `versions`: of the streams that go on, up to there.
    """

    frontier: Frontier
    versions: Mapping[UUID, int]


def since(connection: psycopg.Connection[Any], newest: int) -> Since:
    """Begin so that at least the `newest` events follow, where subtree roots are stored.

    Roots that are missing or wrong give a frontier that leads to another head.
    """
    row = connection.execute(_HEAD).fetchone()
    after = max(0, row[0] - newest if row else 0) // _STORED_EVERY * _STORED_EVERY
    if after == 0:
        return Since(Frontier(), {})
    edge, covered = b"", 0
    for bit in reversed(range(after.bit_length())):
        if after >> bit & 1:
            level = bit // 8 * 8  # the highest kept that is not above this subtree
            span = (level, covered >> level, (covered + (1 << bit)) >> level)
            edge += root_of([row[0] for row in connection.execute(_EDGE, span)])
            covered += 1 << bit
    versions = dict(connection.execute(_BEFORE, {"after": after}).fetchall())
    return Since(Frontier(after, edge), versions)


class Audit:
    """One pass over the record. Feed it with `events`, then `finish`; `violations` grows."""

    def __init__(
        self,
        claimed: Callable[[Event], Iterable[tuple[str, str]]] = claims_of,
        since: Since | None = None,
    ) -> None:
        """From position 1, or `since` there."""
        self.violations: list[Violation] = []
        self.frontier = since.frontier if since else Frontier()
        self._after = self.frontier.size
        self._claimed = claimed
        self._last: datetime | None = None
        self._versions: dict[UUID, int] = dict(since.versions) if since else {}
        self._types: dict[UUID, str] = {}
        self._ids: set[UUID] = set()
        self._nodes: list[Node] = []
        self._places: list[Place] = []
        self._claims: dict[tuple[str, str], Place] = {}

    def complain(self, where: str, what: str) -> None:
        self.violations.append(Violation(where, what))

    def events(self, connection: psycopg.Connection[Any]) -> Iterator[Event]:
        """Check every event and yield those that can be read."""
        for values in self._rows(connection, _EVENTS):
            row = RecordedEvent(*values)
            self._check_place(row)
            self._check_leaf(row)
            event = self._read(row)
            if event is not None:
                yield event

    def finish(self, connection: psycopg.Connection[Any]) -> None:
        """Compare what follows from the events with the rows that stand beside them."""
        self._check_head(list(rows(connection, _HEAD)))
        stored = [Node(*node) for node in self._rows(connection, _NODES)]
        if stored != sorted(self._nodes):
            self.complain("ledger_nodes", "not the subtree roots of these events")
        self._check_claims(self._rows(connection, _CLAIMS))
        for key, position, count in self._rows(connection, _CALLS):
            first = position - self._after
            places = self._places[first - 1 : first - 1 + count] if first > 0 < count else []
            if len(places) != count or len({place.recorded_at for place in places}) != 1:
                self.complain(f"idempotency key {key!r}", "does not name the events of one append")

    def _rows(self, connection: psycopg.Connection[Any], query: str) -> Iterator[tuple[Any, ...]]:
        return rows(connection, query.format(after=self._after))

    def _check_place(self, row: RecordedEvent) -> None:
        where = f"position {row.position}"
        if row.position != self.frontier.size + 1:
            self.complain(where, f"stands where {self.frontier.size + 1} is expected")
        if self._last is not None and row.recorded_at < self._last:
            self.complain(where, "recorded before its predecessor")
        expected = self._versions.get(row.stream_id, 0) + 1
        if row.version != expected:
            self.complain(where, f"version {row.version} of its stream where {expected} is due")
        self._last = row.recorded_at
        self._versions[row.stream_id] = row.version
        self._places.append(Place(row.stream_id, row.recorded_at))

    def _check_leaf(self, row: RecordedEvent) -> None:
        where = f"position {row.position}"
        try:
            entry = row.entry
            parse_entry(entry)
        except StoredEventError:
            self.complain(where, "unknown topic")
        except (EntryError, UnicodeEncodeError):
            self.complain(where, "its values make no entry")
        else:
            if leaf_hash(entry) != row.leaf:
                self.complain(where, "the leaf is not that of these values")
            if self._types.setdefault(row.stream_id, row.stream_type) != row.stream_type:
                self.complain(where, "a topic of another stream type")
        self._nodes += self.frontier.append(row.leaf)

    def _read(self, row: RecordedEvent) -> Event | None:
        where = f"position {row.position}"
        try:
            event = row.event
            canonical = canonical_json(orjson.loads(row.body))
        except (StoredEventError, CanonicalError) as error:
            self.complain(where, f"the body cannot be read: {type(error).__name__}")
            return None
        if canonical != row.body:
            self.complain(where, "the body is not canonical")
        if event.id in self._ids:
            self.complain(where, "an event id that was used before")
        self._ids.add(event.id)
        for claim in self._claimed(event):
            self._claims.setdefault(claim, self._places[-1])
        return event

    def _check_head(self, found: list[tuple[Any, ...]]) -> None:
        if len(found) != 1:
            self.complain("ledger_head", f"{len(found)} rows instead of one")
            return
        size, edge, last = found[0]
        if size != self.frontier.size:
            self.complain("ledger_head", f"says {size} events, there are {self.frontier.size}")
        elif edge != self.frontier.edge():
            self.complain("ledger_head", "the frontier is not that of these leaves")
        if last != self._last:
            self.complain("ledger_head", "the last time is not that of the last event")

    def _check_claims(self, stored: Iterable[tuple[Any, ...]]) -> None:
        missing = dict(self._claims)
        for kind, key, stream_id, at in stored:
            where, position = f"claim {kind} at position {at}", at - self._after
            expected = missing.pop((kind, key), None)
            if expected is None:
                self.complain(where, "no event claims this")
            elif expected.stream_id != stream_id:
                self.complain(where, "held by another stream than claims it")
            elif not 0 < position <= len(self._places) or self._places[position - 1] != expected:
                self.complain(where, "not the append that claims it")
        if self._after:
            return  # the others may have been claimed before we began
        for (kind, _), place in missing.items():
            self.complain(f"claim {kind} of stream {place.stream_id}", "is missing")
