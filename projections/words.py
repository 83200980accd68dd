"""The index of words as one of the things that are rebuilt and compared: emptied, and held to the events.

It is not built beside: what it does not hold yet is looked for in the events themselves
(`projections/search.py`), so while it is filled again no answer is wrong or missing, some come late.
Whoever follows fills it (`projections/follower.py`), killed or not; what a row is `event_terms.py` knows.
"""

import random
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import psycopg
from psycopg import Connection

from ledger.audit import Violation, rows
from ledger.database import conninfo
from ledger.recorded import RecordedEvent
from projections.event_terms import BLOCK, NAME, TABLE, places_of, row, wrong_blocks
from projections.follower import progress
from projections.holding import hold
from projections.rebuild import RebuildError
from projections.registry import RELEASE

SOURCE: Final = "words"
"""What it is called beside `present` and `history`."""

_TELL_EVERY: Final = 5000  # events
_EVENTS: Final = """SELECT position, stream_id, version, topic, recorded_at, body, leaf
    FROM ledger_events WHERE position BETWEEN {first} AND {last} ORDER BY position"""
_ROWS: Final = f"SELECT term, block, positions FROM {TABLE}"  # noqa: S608 - a name of ours
_OF_BLOCK: Final = f"{_ROWS} WHERE block = %s"
_EMPTY: Final = f"""
    SET LOCAL lock_timeout = '50ms';
    SELECT FROM projection_progress WHERE name = '{NAME}' FOR UPDATE;
    TRUNCATE {TABLE};
    INSERT INTO projection_progress (name, position, release) VALUES ('{NAME}', 0, {RELEASE})
    ON CONFLICT (name) DO UPDATE SET (position, release) = (excluded.position, excluded.release)"""  # noqa: S608 - constants


def empty(owner_dsn: str, *, patience: float = 300.0) -> None:
    """Empty the index, so that it is filled again from the first event, as of this release.

    Its readers wait a twentieth of a second at most, then it is tried again for `patience` seconds.

    Raises:
        RebuildError: somebody reads it without an end. psycopg.Error: the database says no.
    """
    deadline = time.monotonic() + patience
    with psycopg.connect(conninfo(owner_dsn), autocommit=True) as connection:
        while True:
            try:
                with connection.transaction():
                    connection.execute(_EMPTY.encode())
            except psycopg.errors.LockNotAvailable as error:
                if time.monotonic() > deadline:
                    raise RebuildError(
                        f"{TABLE} is being read all the time; call it again at a quieter time"
                    ) from error
            else:
                return
            time.sleep(random.uniform(0.05, 0.3))  # noqa: S311 - no secret


def check_words(
    dsn: str, complain: Callable[[Violation], object], tell: Callable[[int, int], object]
) -> int:
    """Compare the index with the events, row by row; return how many events were read.

    `complain` is told of each block of positions with what is wrong in it: a term is kept as a hash,
    which says nothing to anybody. `tell`: events read, events in all; now and then.

    Raises:
        psycopg.Error: the database cannot be read.
    """
    with psycopg.connect(conninfo(dsn)) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        hold(connection, [TABLE])
        return compare(connection, complain, tell)


def compare(
    connection: Connection[Any],
    complain: Callable[[Violation], object],
    tell: Callable[[int, int], object] = lambda _done, _all: None,
) -> int:
    """As `check_words`, in a transaction that holds the table and sees one state of everything."""
    known = progress(connection, NAME, RELEASE)
    told = _told(_events(connection, 1, known), known, tell)
    for block in wrong_blocks(rows(connection, _ROWS), told):
        first, last = block * BLOCK + 1, (block + 1) * BLOCK
        expected = {
            row(term, block, offsets)
            for (term, _), offsets in places_of(
                _events(connection, first, min(last, known))
            ).items()
        }
        stored = set(connection.execute(_OF_BLOCK, [block]).fetchall())
        where = f"{TABLE}, positions {first} to {last}"
        complain(Violation(where, _different(expected, stored)))
    return known


def _events(connection: Connection[Any], first: int, last: int) -> Iterator[RecordedEvent]:
    query = _EVENTS.format(first=first, last=last)
    return (RecordedEvent(*found) for found in rows(connection, query))


def _told(
    events: Iterable[RecordedEvent], known: int, tell: Callable[[int, int], object]
) -> Iterator[RecordedEvent]:
    for event in events:
        yield event
        if event.position % _TELL_EVERY == 0 or event.position == known:
            tell(event.position, known)


Row = tuple[int, int, bytes]


def _different(expected: set[Row], stored: set[Row]) -> str:
    lacking = {one[0] for one in expected - stored}
    surplus = {one[0] for one in stored - expected}
    numbers = (
        (len(lacking - surplus), "are missing"),
        (len(lacking & surplus), "differ from their events"),
        (len(surplus - lacking), "have no event behind them"),
    )
    return "rows: " + ", ".join(f"{number} {what}" for number, what in numbers if number)
