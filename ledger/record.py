"""Reads the record: what was written, as it was written, in pages. It writes and proves nothing."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import orjson
from psycopg import sql

from ledger.database import Reads
from ledger.errors import InvalidError, NotFoundError, UnavailableError
from ledger.history import History
from ledger.lookups import Lookup
from ledger.packing import INT8, UUIDS
from ledger.recorded import RecordedEvent
from ledger.terms import Question
from ledger.tlog.merkle import Frontier, root_of_subtrees

__all__ = ["EVERYTHING", "MAX_PAGE", "Filter", "Question", "Record", "RecordHead", "RecordedEvent"]

MAX_PAGE: Final = 1000
_AT_ONCE: Final = 250  # bodies to be compared with a question

ANYTHING: Final = Question()
_HEAD: Final = """SELECT size, frontier, last_recorded_at, projections_version, clock_timestamp()
    FROM ledger_head WHERE one"""
_MOVED: Final = Lookup("""
SELECT EXISTS (
    SELECT 1 FROM unnest($1::uuid[], $2::bigint[]) r(s, v), LATERAL (
        SELECT 1 FROM ledger_events e WHERE e.stream_id = r.s AND e.version = r.v + 1 LIMIT 1
    ) q
)""")
_EVENTS: Final = sql.SQL(
    """SELECT position, stream_id, version, topic, recorded_at, body, leaf FROM ledger_events
    WHERE {conditions} ORDER BY {order} LIMIT %s"""
)
# The fewest rows that make up the first %(size)s leaves: stored subtrees, then single leaves.
_SUBTREES: Final = """SELECT level, hash FROM (
        SELECT level, index, hash FROM ledger_nodes
        WHERE level = 24 AND index < %(size)s::int8 >> 24
           OR level = 16 AND index >= %(size)s::int8 >> 24 << 8 AND index < %(size)s::int8 >> 16
           OR level = 8 AND index >= %(size)s::int8 >> 16 << 8 AND index < %(size)s::int8 >> 8
        UNION ALL
        SELECT 0, position, leaf FROM ledger_events
        WHERE position > %(size)s::int8 >> 8 << 8 AND position <= %(size)s::int8
    ) AS subtree ORDER BY level DESC, index"""
_LAST_OF: Final = """SELECT position, stream_id, version, topic, recorded_at, body, leaf
    FROM ledger_events WHERE stream_id = %s AND topic = %s ORDER BY version DESC LIMIT 1"""
_VERSIONS_AT: Final = """SELECT stream_id, max(version), bool_or(topic = ANY(%s::text[]))
    FROM ledger_events WHERE stream_id = ANY(%s::uuid[]) AND position <= %s GROUP BY stream_id"""
_POSITION_AT: Final = """SELECT position FROM ledger_events WHERE recorded_at <= %s
    ORDER BY recorded_at DESC, position DESC LIMIT 1"""
_POSITION_BEFORE: Final = """SELECT position FROM ledger_events WHERE recorded_at < %s
    ORDER BY recorded_at DESC, position DESC LIMIT 1"""


@dataclass(frozen=True, slots=True)
class RecordHead:
    """The head row. `root`: 32 bytes. `database_time`: of the database's clock, just now."""

    size: int
    root: bytes
    last_recorded_at: datetime | None
    projections_version: int
    database_time: datetime


class VersionAt(NamedTuple):
    """A stream's version at a position, and whether a topic asked for stands in it by then."""

    version: int
    holds: bool


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events; every condition given must hold.

    `first`, `last`: positions, inclusive. `since` ≤ recorded_at < `until`. `question`: what the
    event must have beside that; its stream and topics use indexes, for all else the bodies of what
    the other conditions leave are read, about a million a second (`projections/search.py` knows a
    shorter way).
    """

    question: Question = ANYTHING
    first: int = 1
    last: int | None = None
    since: datetime | None = None
    until: datetime | None = None


EVERYTHING: Final = Filter()


class Record:
    """The record, read through a pool. Thread-safe; every method may raise UnavailableError."""

    def __init__(self, reads: Reads, history: History | None = None) -> None:
        """`history`: told of every head seen, so that a smaller one is noticed."""
        self._reads = reads
        self._history = history or History()

    def head(self) -> RecordHead:
        """Return the head. Raises UnavailableError (`lost-history`) when it went backwards."""
        seen = self._history.seen
        rows = self._reads.rows(_HEAD)
        if not rows:
            raise UnavailableError("the ledger has no head", code="storage-unavailable")
        ((size, edge, last, version, now),) = rows
        self._history.saw(size, seen)
        return RecordHead(size, Frontier(size, edge).root(), last, version, now)

    def root_at(self, size: int) -> bytes | None:
        """Return the root of the first `size` events as stored, 32 bytes; None if some are gone.

        At most some hundred rows whatever the size. It believes the stored leaves: that they are
        the bodies' is for `ledger/audit.py` to say.
        """
        rows = self._reads.rows(_SUBTREES, {"size": size})
        if sum(1 << level for level, _ in rows) != size:
            return None
        return root_of_subtrees((level, node) for level, node in rows)

    def at(self, position: int) -> RecordedEvent:
        """Return what stands at a position, from 1. Raises NotFoundError."""
        found = self.range(position, position, limit=1)
        if not found:
            raise NotFoundError("nothing is recorded at this position")
        return found[0]

    def range(self, first: int, last: int, *, limit: int = MAX_PAGE) -> list[RecordedEvent]:
        """Return positions first to last, inclusive, at most `limit`."""
        return self.page(Filter(first=first, last=last), limit=limit)

    def stream(
        self, stream_id: UUID, *, after_version: int = 0, limit: int = MAX_PAGE
    ) -> list[RecordedEvent]:
        """Return a stream's events in order, those after a version."""
        return self._select(
            [sql.SQL("stream_id = %s"), sql.SQL("version > %s")],
            [stream_id, after_version],
            sql.SQL("version"),
            limit,
        )

    def moved(self, versions: Mapping[UUID, int]) -> bool:
        """Whether one of these streams, at least one, has more events than this version."""
        streams = UUIDS.array([UUIDS.item(one) for one in versions])
        seen = INT8.array([INT8.item(one) for one in versions.values()])
        ((moved,),) = self._reads.look(_MOVED, streams, seen)
        return bool(moved)

    def page(
        self,
        wanted: Filter = EVERYTHING,
        *,
        after: int | None = None,
        newest_first: bool = False,
        limit: int = 100,
    ) -> list[RecordedEvent]:
        """Return the next `limit` events after the position `after`, in the order asked for.

        Stable while events are appended: `after` is the last position of the page before.
        """
        limit = min(limit, MAX_PAGE)
        # Streams and topics SQL compares itself. Of all else it lets through what may match; what does
        # is said in one place.
        groups = [] if _is_exact(wanted.question) else wanted.question.groups()
        at_once = max(limit, _AT_ONCE) if groups else limit
        order = sql.SQL("position DESC" if newest_first else "position")
        beyond = sql.SQL("position < %s" if newest_first else "position > %s")
        conditions, values = self._conditions(wanted)
        found: list[RecordedEvent] = []
        while True:
            more = ([], []) if after is None else ([beyond], [after])
            rows = self._select([*conditions, *more[0]], [*values, *more[1]], order, at_once)
            found += (one for one in rows if not groups or one.answers(groups))
            if len(found) >= limit or len(rows) < at_once:
                return found[:limit]
            after = rows[-1].position

    def these(self, positions: Sequence[int]) -> list[RecordedEvent]:
        """Return what stands at these positions, in the ledger's order; missing ones are left out."""
        return self._select(
            [sql.SQL("position = ANY(%s::int8[])")],
            [list(positions)],
            sql.SQL("position"),
            len(positions),
        )

    def all(self, wanted: Filter = EVERYTHING) -> Iterator[RecordedEvent]:
        """Yield every matching event in order, page by page."""
        after: int | None = None
        while page := self.page(wanted, after=after, limit=MAX_PAGE):
            yield from page
            after = page[-1].position

    def last_of(self, stream_id: UUID, topic: str) -> RecordedEvent | None:
        """Return a stream's last event of a topic, None if it has none."""
        rows = self._reads.rows(_LAST_OF, (stream_id, topic))
        return RecordedEvent(*rows[0]) if rows else None

    def versions_at(
        self, streams: Collection[UUID], topics: Sequence[str], position: int
    ) -> dict[UUID, VersionAt]:
        """Return what stood of these streams at a position; a stream that began later is missing."""
        rows = self._reads.rows(_VERSIONS_AT, (list(topics), list(streams), position))
        return {stream: VersionAt(version, holds) for stream, version, holds in rows}

    def position_at(self, moment: datetime) -> int:
        """Return the last position recorded at or before a moment; 0 when there is none."""
        return self._position(self._reads.rows(_POSITION_AT, (moment,)))

    @staticmethod
    def _position(rows: Sequence[tuple[Any, ...]]) -> int:
        return int(rows[0][0]) if rows else 0

    def bounds(self, wanted: Filter) -> tuple[int, int | None]:
        """Return the first and last position that a filter's positions and times leave."""
        first, last = wanted.first, wanted.last
        if wanted.since is not None:
            before = self._position(self._reads.rows(_POSITION_BEFORE, (wanted.since,)))
            first = max(first, before + 1)
        if wanted.until is not None:
            before = self._position(self._reads.rows(_POSITION_BEFORE, (wanted.until,)))
            last = before if last is None else min(last, before)
        return first, last

    def _conditions(self, wanted: Filter) -> tuple[list[sql.Composable], list[object]]:
        # A moment is turned into a position first: one index then serves every order and page.
        first, last = self.bounds(wanted)
        found: list[tuple[str, list[object]]] = [("position >= %s", [first])]
        if last is not None:
            found.append(("position <= %s", [last]))
        found += _possible(wanted.question)
        return (
            [sql.SQL(condition) for condition, _ in found],
            [value for _, values in found for value in values],
        )

    def _select(
        self,
        conditions: Sequence[sql.Composable],
        values: Sequence[object],
        order: sql.Composable,
        limit: int,
    ) -> list[RecordedEvent]:
        query = _EVENTS.format(conditions=sql.SQL(" AND ").join(conditions), order=order)
        rows = self._reads.rows(query, [*values, limit])
        return [RecordedEvent(*row) for row in rows]


_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# Bodies are canonical JSON: a string has one spelling, so bytes can be searched instead of parsed.
_HOLDS: Final = "position(%s::bytea IN body) > 0"
_HAS_REASON: Final = "position('\"reason\":null}'::bytea IN body) = 0"


def _is_exact(question: Question) -> bool:
    return replace(question, streams=(), topics=(), asked_too=True) == ANYTHING


def _possible(question: Question) -> Iterator[tuple[str, list[object]]]:
    """Conditions that every event which answers the question fulfils, and few others do."""
    if question.streams:
        yield "stream_id = ANY(%s::uuid[])", [list(question.streams)]
    if len(question.topics) == 1:
        # Said so, the index of topics has them in the order of their positions.
        yield "topic = %s", [question.topics[0]]
    elif question.topics:
        yield "topic = ANY(%s::text[])", [list(question.topics)]
    for text in (question.actor_id, question.correlation_id):
        if text is not None:
            yield _HOLDS, [_needle(text)]
    if question.mentions:
        yield _mentions(question.mentions)
    if question.words is not None:
        yield _HAS_REASON, []


def _mentions(names: Sequence[str]) -> tuple[str, list[object]]:
    streams = [UUID(name) for name in names if _UUID.fullmatch(name)]
    conditions = ["stream_id = ANY(%s::uuid[])", *([_HOLDS] * len(names))]
    return f"({' OR '.join(conditions)})", [streams, *map(_needle, names)]


def _needle(text: str) -> bytes:
    try:
        return orjson.dumps(text)
    except orjson.JSONEncodeError:
        raise InvalidError("a text is not Unicode") from None
