"""Reads the record stream by stream, whole, for whoever folds all of it. It folds and keeps nothing.

Rows arrive while the server goes on reading, a page at a time: memory does not grow with the record.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

import psycopg

from ledger.events import Event
from ledger.mapper import read_event

_PAGE: Final = 100  # rows: as many as are still in the processor's cache when they are read

# The stream as 16 bytes: comparing and making a UUID per row costs as much as reading its body.
_STREAMS: Final = """SELECT uuid_send(stream_id), version, topic, body, position FROM ledger_events
    WHERE position <= %(upto)s AND stream_id > %(after)s AND stream_id <= %(last)s
    ORDER BY stream_id, version"""
_CHOSEN: Final = """SELECT uuid_send(stream_id), version, topic, body, position FROM ledger_events
    WHERE position <= %(upto)s AND stream_id = ANY(%(chosen)s) ORDER BY stream_id, version"""
# Neither distinct nor in order: who may not sort would walk the index of all streams for that.
_TOUCHED: Final = "SELECT stream_id FROM ledger_events WHERE position > %s AND position <= %s"

FIRST: Final = UUID(int=0)
"""Before every stream: to begin at the beginning."""
LAST: Final = UUID(int=2**128 - 1)
"""No stream is behind it."""


class StoredStream(NamedTuple):
    """One stream's id and its rows. They are read once, and before the next stream is taken."""

    id: UUID
    rows: Iterator[tuple[Any, ...]]

    def events(self) -> Iterator[Event]:
        """The events, validated one by one. Taking one may raise StoredEventError."""
        stream_id = self.id
        return (
            read_event(stream_id, version, topic, body)
            for _, version, topic, body, _position in self.rows
        )

    def placed_events(self) -> Iterator[tuple[int, Event]]:
        """As `events`, each with its position."""
        stream_id = self.id
        return (
            (position, read_event(stream_id, version, topic, body))
            for _, version, topic, body, position in self.rows
        )


def all_streams(
    connection: psycopg.Connection[Any], *, upto: int, after: UUID = FIRST, last: UUID = LAST
) -> Generator[StoredStream, None, None]:
    """Yield the streams behind `after`, up to `last`, in order of their ids, each with its events at
    positions up to `upto`. One statement, so one view of the record; the connection is busy with it
    until the generator has ended or is closed, which whoever may stop half-way must do."""
    return _streams(connection, _STREAMS, {"upto": upto, "after": after, "last": last})


def these_streams(
    connection: psycopg.Connection[Any], chosen: Sequence[UUID], *, upto: int
) -> Generator[StoredStream, None, None]:
    """Yield the chosen streams as `all_streams` does."""
    return _streams(connection, _CHOSEN, {"upto": upto, "chosen": list(chosen)})


def touched_streams(connection: psycopg.Connection[Any], after: int, upto: int) -> list[UUID]:
    """The streams with events at positions after `after` up to `upto`."""
    return sorted({row[0] for row in connection.execute(_TOUCHED, [after, upto])})


def _streams(
    connection: psycopg.Connection[Any], query: str, values: dict[str, object]
) -> Generator[StoredStream, None, None]:
    cursor = connection.cursor(binary=True)
    rows = cast("Generator[Any, None, None]", cursor.stream(query.encode(), values, size=_PAGE))
    # Left alone half-way, a stream of rows keeps its connection locked: not even closing that works.
    with cursor, closing(rows):
        for key, group in groupby(rows, itemgetter(0)):
            yield StoredStream(UUID(bytes=key), group)
