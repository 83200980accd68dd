"""Making up a past: how many events a second the generator writes that other sections stand on.

What the product itself fills afterwards, histories and words, is timed apart from it: followed as they
are while it serves, or for the sections that only ask, the histories rebuilt.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg
from measuring import verdict

from api.reconciliation import reconcile
from projections.follower import Follower
from projections.history import HISTORY
from projections.rebuild import rebuild
from projections.registry import FOLLOWED, SOURCES
from support.appending import real_clock
from support.databases import Database
from support.past import Past, furnish, generate

GOAL: Final = 20_000.0
"""Events a second; half of it is the floor, for a machine that is busy."""


def rate(database: Database, events: int) -> Past:
    """Print how fast `events` events are made up and written."""
    print(f"\nMaking up a past of {events} events", flush=True)
    began = time.process_time()
    past = generate(database.owner_dsn, events, progress=progress(events))
    _tell(past, time.process_time() - began)
    with _timed("followed", past.events):
        _follow(database)
    return past


def furnished(database: Database, home: Path, events: int) -> Past:
    """A past with all that is asked of it, and what a service on it needs in `home`."""
    print(f"\nFurnishing a past of {events} events", flush=True)
    began = time.process_time()
    past = furnish(database.owner_dsn, home, events, progress=progress(events))
    _tell(past, time.process_time() - began)
    # What has ended since, a service puts on record in rounds: all at once here, or it would do so
    # while it is asked.
    while reconcile(database.service_dsn, home, real_clock, ()).done["expired"]:
        pass
    with _timed("histories rebuilt:", past.events):
        rebuild(database.owner_dsn, next(one for one in SOURCES if one.followed == HISTORY))
    with _timed("words followed:", past.events):
        _follow(database)
    with psycopg.connect(database.superuser_dsn, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
    return past


def _tell(past: Past, worked: float) -> None:
    print(
        f"  {past.events} events, {past.first:%Y-%m-%d} to {past.last:%Y-%m-%d},"
        f" {past.events / worked:.0f} per second of this process's processor time"
    )
    verdict("events a second", past.events / past.seconds, GOAL, GOAL / 2)


def _follow(database: Database) -> None:
    """Fill all that is filled after the commit and not there yet."""
    follower = Follower(database.service_dsn, FOLLOWED)
    follower.follow()
    follower.close()


@contextmanager
def _timed(what: str, events: int) -> Iterator[None]:
    began, cpu = time.perf_counter(), time.process_time()
    yield
    took, worked = time.perf_counter() - began, time.process_time() - cpu
    print(
        f"  {what} {events / took:.0f} events a second,"
        f" {events / worked:.0f} per second of this process's processor time",
        flush=True,
    )


def progress(events: int) -> Callable[[int], None]:
    """Shows on a terminal how far it is, at most once a second."""
    shown = time.monotonic()

    def show(position: int) -> None:
        nonlocal shown
        if time.monotonic() - shown >= 1 and sys.stderr.isatty():
            shown = time.monotonic()
            print(f"\r  {position / events:4.0%}", end="", file=sys.stderr, flush=True)

    return show
