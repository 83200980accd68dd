"""Compares tables with a fresh fold, row by row, while writes go on. It changes nothing.

Record and tables are read side by side in the order of streams, in one view of the database: each
stream is folded, and its rows are held against those that name it. Memory is that of one stream.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import Connection, sql

from ledger.appends import InlineProjection
from ledger.audit import Violation
from ledger.canonical import MAX_INTEGER
from ledger.database import conninfo
from ledger.streams import all_streams
from projections.comparing import comparable, row_name
from projections.holding import hold
from projections.replay import FoldError, Row
from projections.sources import Source, Told

_PAGE: Final = 1000  # rows of a table at a time
_TELL_EVERY: Final = 1000  # streams
_PROGRESS: Final = "SELECT position FROM projection_progress WHERE name = %s"
_BEYOND: Final = UUID(int=2**128 - 1)

Values = tuple[object, ...]


def check_tables(
    dsn: str,
    source: Source,
    complain: Callable[[Violation], object],
    tell: Callable[[int, int], object] | None = None,
) -> int:
    """Compare the tables of `source` with the events; return how many events were folded.

    Tables that are filled after the commit are compared as of the position they have come to.

    `complain` is told each difference as it is found. `tell`: events folded, events in all; now and
    then. `check_ledger` looks at the record, too, and at all of it in its own way.

    Raises:
        psycopg.Error: the database cannot be read.
    """
    with _view(dsn) as reading:
        hold(reading, [table.table for table in source.tables])
        with _view(dsn) as beside, ExitStack() as open_cursors:
            _see(beside, _export(reading))
            stored = {table: _Stored(beside, table, open_cursors) for table in source.tables}
            comparison = _Comparison(stored, complain)
            upto = _position(reading, source)
            return _compare(reading, source, upto, comparison, tell or _tell_nobody)


def _tell_nobody(events: int, all_events: int) -> None:
    pass


def _compare(
    reading: Connection[Any],
    source: Source,
    upto: int,
    comparison: "_Comparison",
    tell: Callable[[int, int], object],
) -> int:
    size = min(upto, _size(reading))
    events = 0
    with closing(all_streams(reading, upto=upto)) as streams:
        for number, stream in enumerate(streams):
            try:
                told = source.rows(stream)
            except FoldError as error:
                comparison.complain(Violation(f"stream {stream.id}", str(error)))
                told = Told(0, [])
            comparison.stream(stream.id, told.rows)
            events += told.events
            if number % _TELL_EVERY == 0:
                tell(events, size)
    comparison.finish()
    tell(size, size)
    return events


@contextmanager
def _view(dsn: str) -> Iterator[Connection[Any]]:
    with psycopg.connect(conninfo(dsn, "-c timezone=UTC")) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        yield connection


def _see(connection: Connection[Any], snapshot: str) -> None:
    connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(snapshot))


def _export(connection: Connection[Any]) -> str:
    """Let another connection see what this transaction sees: return the snapshot's name."""
    row = connection.execute("SELECT pg_export_snapshot()").fetchone()
    return str(row[0]) if row else ""


def _position(connection: Connection[Any], source: Source) -> int:
    """Up to where the tables should be right. In one view of the database that is everything."""
    if source.followed is None:
        return MAX_INTEGER
    row = connection.execute(_PROGRESS, [source.followed]).fetchone()
    return int(row[0]) if row else 0


def _size(connection: Connection[Any]) -> int:
    row = connection.execute("SELECT size FROM ledger_head").fetchone()
    return int(row[0]) if row else 0


class _Comparison:
    """All tables, each read once in the order of streams."""

    def __init__(
        self,
        stored: Mapping[InlineProjection, "_Stored"],
        complain: Callable[[Violation], object],
    ) -> None:
        self._stored = stored
        self.complain = complain

    def stream(self, stream_id: UUID, rows: Iterable[tuple[InlineProjection, Row]]) -> None:
        """Hold a stream's rows against those that name it."""
        expected: dict[InlineProjection, dict[Values, Values]] = {}
        for table, row in rows:
            values = comparable(table, row)
            expected.setdefault(table, {})[_key(table, values)] = values
        for table, stored in self._stored.items():
            self._hold(table, expected.get(table, {}), stored.upto(stream_id))

    def finish(self) -> None:
        """What names no stream there is."""
        for table, stored in self._stored.items():
            self._hold(table, {}, stored.upto(_BEYOND))

    def _hold(
        self, table: InlineProjection, expected: dict[Values, Values], stored: Iterator[Row]
    ) -> None:
        for row in stored:
            values = comparable(table, row, stored=True)
            wanted = expected.pop(_key(table, values), None)
            if wanted != values:
                what = (
                    "no event is behind it" if wanted is None else _different(table, wanted, values)
                )
                self._say(table, values, what)
        for values in expected.values():
            self._say(table, values, "is missing")

    def _say(self, table: InlineProjection, values: Values, what: str) -> None:
        self.complain(Violation(row_name(table, values), what))


class _Stored:
    """One table's rows, in the order of the streams they name."""

    def __init__(
        self, connection: Connection[Any], table: InlineProjection, open_cursors: ExitStack
    ) -> None:
        query = sql.SQL("SELECT {} FROM {} ORDER BY {}").format(
            sql.SQL(", ").join(map(sql.Identifier, table.names)),
            sql.Identifier(table.table),
            sql.Identifier(table.stream),
        )
        self._at = table.names.index(table.stream)
        cursor = open_cursors.enter_context(connection.cursor(name=f"stored_{table.table}"))
        cursor.itersize = _PAGE
        self._rows = iter(cursor.execute(query))
        self._next = next(self._rows, None)

    def upto(self, stream_id: UUID) -> Iterator[Row]:
        """The rows not given before that name this stream or one before it."""
        while self._next is not None and self._next[self._at] <= stream_id:
            row, self._next = self._next, next(self._rows, None)
            yield row


def _key(table: InlineProjection, values: Values) -> Values:
    return tuple(values[table.names.index(name)] for name in table.key)


def _different(table: InlineProjection, wanted: Values, found: Values) -> str:
    names = [
        name for name, one, other in zip(table.names, wanted, found, strict=True) if one != other
    ]
    return f"differs from its events in {', '.join(names)}"
