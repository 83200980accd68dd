"""The tables `…_history`: every current-state row with the positions at which it held.

A row is what the table's own `rows` gives for the stream folded that far, so the present table is
the part of its history that has no end. Filled after the commit; how the past is read is in
`projections/as_of.py`.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from uuid import UUID

from psycopg import Connection, sql

from ledger.appends import InlineProjection
from ledger.events import TOPICS, Event
from ledger.folds import FOLDS
from ledger.mapper import read_event
from ledger.packing import INT8, copied
from ledger.reading import Fold
from ledger.record import RecordedEvent

HISTORY: Final = "history"
"""The name under which the histories of all tables are followed together."""
NO_END: Final = 2**63 - 1
"""`to_position` of a row that still holds."""
_REMEMBERED: Final = 5000  # streams; some ten thousand bytes each

_STREAMS: Final = """SELECT stream_id, version, topic, body, position FROM ledger_events
    WHERE stream_id = ANY(%s) AND position < %s ORDER BY stream_id, version"""
_END: Final = sql.SQL("""UPDATE {table} h SET to_position = u.until
    FROM unnest(%s::{kind}[], %s::int8[], %s::int8[]) AS u(key, since, until)
    WHERE h.{key} = u.key AND h.from_position = u.since AND h.to_position = {no_end}""")
_COPY: Final = sql.SQL("COPY {table} ({columns}) FROM STDIN (FORMAT binary)")


class HistoryError(RuntimeError):
    """The history is not that of these events: rows that must be there are not."""


def history_of(table: InlineProjection) -> str:
    """The name of a table's history."""
    return f"{table.table}_history"


class Since(NamedTuple):
    """A row, and the position from which on it holds."""

    row: tuple[object, ...]
    position: int


Rows = dict[object, Since]
"""By key. Keys have one column."""


@dataclass(slots=True)
class Story:
    """One stream folded so far, and its rows in each of its tables."""

    state: Any = None
    version: int = 0
    rows: dict[InlineProjection, Rows] = field(default_factory=dict)


class Changes(NamedTuple):
    """What is to be written to one history."""

    ended: list[tuple[object, int, int]]  # key, from, to: of rows that stand there
    begun: list[tuple[tuple[object, ...], int]]  # row, from


class Histories:
    """Tells the history of each table; what it does not know yet of a stream it is given."""

    def __init__(
        self, inline: Sequence[InlineProjection], folds: Mapping[type, Fold] = FOLDS
    ) -> None:
        for table in inline:
            if len(table.key) != 1:
                raise ValueError(f"{table.table}: a key of one column is needed")
        kinds = {fold.stream_type: (kind, fold) for kind, fold in folds.items()}
        self.tables = tuple(inline)
        self._of = {
            stream_type: (fold, [table for table in inline if table.state is kind])
            for stream_type, (kind, fold) in kinds.items()
        }
        self._places = {table: table.names.index(table.key[0]) for table in inline}

    def shows(self, topic: str) -> bool:
        """Whether any table shows the streams of this topic."""
        return bool(self._of[TOPICS[topic].STREAM][1])

    def tell(
        self, story: Story, event: Event, position: int
    ) -> Iterable[tuple[InlineProjection, object, Since | None, tuple[object, ...]]]:
        """Let one more event happen: (table, key, the row before, the row now) of what changed."""
        fold, tables = self._of[event.data.STREAM]
        earlier = story.state
        story.state = fold.evolve(earlier, event)
        story.version = event.originator_version
        if not story.rows:
            story.rows = {table: {} for table in tables}
        for table, before in story.rows.items():
            place = self._places[table]
            for row in table.touched(earlier, story.state):
                key = row[place]
                old = before.get(key)
                if old is None or old.row != row:
                    before[key] = Since(row, position)
                    yield table, key, old, row


class HistoryWriter:
    """Writes the histories, batch by batch. It remembers the streams it met last."""

    def __init__(self, histories: Histories, remembered: int = _REMEMBERED) -> None:
        self._histories = histories
        self._remembered = remembered
        self._stories: OrderedDict[UUID, Story] = OrderedDict()

    def __call__(self, connection: Connection[Any], events: Sequence[RecordedEvent]) -> None:
        """Write what follows from the next events.

        Raises:
            HistoryError: the history does not fit these events; nothing of it may be kept.
        """
        wanted = [one for one in events if self._histories.shows(one.topic)]
        self._recall(connection, wanted)
        changes = {table: Changes([], []) for table in self._histories.tables}
        for one in wanted:
            self._tell(changes, one)
        for table, some in changes.items():
            _store(connection, table, some)
        while len(self._stories) > self._remembered:
            self._stories.popitem(last=False)

    def _tell(self, changes: Mapping[InlineProjection, Changes], one: RecordedEvent) -> None:
        story = self._stories[one.stream_id]
        for table, key, old, row in self._histories.tell(story, one.event, one.position):
            ended, begun = changes[table]
            if old is not None:
                ended.append((key, old.position, one.position))
            begun.append((row, one.position))
        self._stories.move_to_end(one.stream_id)

    def _recall(self, connection: Connection[Any], wanted: Sequence[RecordedEvent]) -> None:
        """Fold the streams that go on here up to here, unless they are remembered so."""
        unknown: list[UUID] = []
        first: dict[UUID, int] = {}
        for one in wanted:
            if one.stream_id not in first:
                first[one.stream_id] = one.version
                known = self._stories.get(one.stream_id)
                if known is None or known.version != one.version - 1:
                    self._stories[one.stream_id] = Story()
                    if one.version > 1:
                        unknown.append(one.stream_id)
        if not unknown:
            return
        rows = connection.execute(_STREAMS, [unknown, wanted[0].position], binary=True)
        for stream_id, version, topic, body, position in rows:
            event = read_event(stream_id, version, topic, body)
            for _ in self._histories.tell(self._stories[stream_id], event, position):
                pass


def _store(connection: Connection[Any], table: InlineProjection, changes: Changes) -> None:
    name, (key,) = sql.Identifier(history_of(table)), table.key
    place = table.names.index(key)
    # What began and ended in this batch never stands there without its end.
    ends = {(end[0], end[1]): end[2] for end in changes.ended}
    begun = [
        (*row, position, ends.pop((row[place], position), NO_END))
        for row, position in changes.begun
    ]
    if ends:
        query = _END.format(
            table=name,
            key=sql.Identifier(key),
            kind=sql.SQL(dict(table.columns)[key]),
            no_end=sql.Literal(NO_END),
        )
        keys, froms = zip(*ends, strict=True)
        ended = connection.execute(query, [list(keys), list(froms), list(ends.values())])
        if ended.rowcount != len(ends):
            raise HistoryError(f"{table.table}: {len(ends) - ended.rowcount} rows are missing")
    if begun:
        columns = [*table.names, "from_position", "to_position"]
        copy = _COPY.format(table=name, columns=sql.SQL(", ").join(map(sql.Identifier, columns)))
        with connection.cursor().copy(copy) as into:
            for part in copied([*table.kinds, INT8, INT8], begun):
                into.write(part)
