"""Making up a past: how many events a second the generator writes that other sections stand on.

What the product itself fills afterwards, histories and words, is timed apart from it.
"""

import sys
import time
from collections.abc import Callable
from typing import Final

from measuring import verdict

from projections.follower import Follower
from projections.registry import FOLLOWED
from support.databases import Database
from support.past import Past, generate

GOAL: Final = 20_000.0
"""Events a second; half of it is the floor, for a machine that is busy."""


def rate(database: Database, events: int) -> Past:
    """Print how fast `events` events are made up and written."""
    print(f"\nMaking up a past of {events} events", flush=True)
    began = time.process_time()
    past = generate(database.owner_dsn, events, progress=progress(events))
    worked = time.process_time() - began
    print(
        f"  {past.events} events, {past.first:%Y-%m-%d} to {past.last:%Y-%m-%d},"
        f" {past.events / worked:.0f} per second of this process's processor time"
    )
    verdict("events a second", past.events / past.seconds, GOAL, GOAL / 2)
    fill(database, past.events)
    return past


def fill(database: Database, events: int) -> None:
    """Fill all that is filled after the commit, and print how fast."""
    follower = Follower(database.service_dsn, FOLLOWED)
    began, cpu = time.perf_counter(), time.process_time()
    follower.follow()
    took, worked = time.perf_counter() - began, time.process_time() - cpu
    follower.close()
    print(
        f"  followed {events / took:.0f} events a second,"
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
