"""Fills the tables that are built beside the live ones: folds streams, copies their rows in.

It makes no table, takes no lock and decides nothing about when; `projections/rebuild.py` does.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, Final, Protocol
from uuid import UUID

from psycopg import Connection, sql

from ledger.appends import InlineProjection
from ledger.packing import copied
from ledger.streams import StoredStream, all_streams, these_streams, touched_streams
from projections.replay import FoldError, Row
from projections.sources import Source

_STREAMS_AT_ONCE: Final = 1000

Flushed = Callable[[UUID, int, int], None]
"""Told, within the transaction of each chunk: the last stream, the events and the rows of it."""


class Place(Protocol):
    """Where the tables to be filled stand."""

    def new(self, name: str) -> sql.Identifier: ...


class UnfoldableError(Exception):
    """A stream's events cannot be read, or do not follow from one another; the text names it."""


class Filling:
    """Two connections: `reading` is busy with the record while `writing` takes the rows."""

    def __init__(
        self, reading: Connection[Any], writing: Connection[Any], source: Source, place: Place
    ) -> None:
        self._reading = reading
        self._writing = writing
        self._source = source
        self._place = place

    def copy(self, upto: int, after: UUID, last: UUID, chunk: int, flushed: Flushed) -> None:
        """Copy every stream behind `after`, up to `last`, as it was at the position `upto`, about
        `chunk` events a transaction.

        Raises:
            UnfoldableError: naming the stream; the chunks before it are in.
        """
        held = _Held(self._source)
        with closing(all_streams(self._reading, upto=upto, after=after, last=last)) as streams:
            for stream in streams:
                held.take(stream)
                if held.events >= chunk:
                    self._flush(held, flushed)
        if held.events:
            self._flush(held, flushed)

    def _flush(self, held: "_Held", flushed: Flushed) -> None:
        with self._writing.transaction():
            rows = self._write(held)
            flushed(held.last, held.events, rows)
        held.clear()

    @contextmanager
    def limited(self, seconds: float) -> Iterator[None]:
        """Let no reading of the record take longer while others wait for us.

        Raises:
            psycopg.errors.QueryCanceled: one would have.
        """
        milliseconds = max(1, round(seconds * 1000))
        self._reading.execute(f"SET statement_timeout = {milliseconds}".encode())
        try:
            yield
        finally:
            self._reading.execute("RESET statement_timeout")

    def touched(self, after: int, upto: int) -> list[UUID]:
        """The streams that have moved on from `after` to `upto`."""
        return touched_streams(self._reading, after, upto)

    def catch_up(self, streams: Sequence[UUID], upto: int) -> None:
        """Replace all rows of these streams by what they are at `upto`, within the caller's transaction.

        Raises:
            UnfoldableError: naming the stream.
        """
        for first in range(0, len(streams), _STREAMS_AT_ONCE):
            some = streams[first : first + _STREAMS_AT_ONCE]
            held = _Held(self._source)
            with closing(these_streams(self._reading, some, upto=upto)) as found:
                for stream in found:
                    held.take(stream)
            for table in self._source.tables:
                self._delete(table, some)
            self._write(held)

    def _delete(self, table: InlineProjection, streams: Sequence[UUID]) -> None:
        query = sql.SQL("DELETE FROM {} WHERE {} = ANY(%s)").format(
            self._place.new(table.table), sql.Identifier(table.stream)
        )
        self._writing.execute(query, [list(streams)])

    def _write(self, held: "_Held") -> int:
        for table, rows in held.rows.items():
            if rows:
                self._copy_in(table, rows)
        return sum(map(len, held.rows.values()))

    def _copy_in(self, table: InlineProjection, rows: Sequence[Row]) -> None:
        query = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(
            self._place.new(table.table), sql.SQL(", ").join(map(sql.Identifier, table.names))
        )
        with self._writing.cursor() as cursor, cursor.copy(query) as copy:
            for part in copied(table.kinds, rows):
                copy.write(part)


class _Held:
    """The rows of some streams, on their way into their tables."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.rows: dict[InlineProjection, list[Row]] = {table: [] for table in source.tables}
        self.events = 0
        self.last = UUID(int=0)

    def take(self, stream: StoredStream) -> None:
        try:
            told = self._source.rows(stream)
        except FoldError as error:
            raise UnfoldableError(f"stream {stream.id}: {error}") from error
        for table, row in told.rows:
            self.rows[table].append(row)
        self.events += told.events
        self.last = stream.id

    def clear(self) -> None:
        for rows in self.rows.values():
            rows.clear()
        self.events = 0
