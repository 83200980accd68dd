"""Making up a past: how many events a second the generator writes that other sections stand on."""

import sys
import time
from collections.abc import Callable
from typing import Final

from measuring import verdict

from support.databases import Database
from support.past import Past, generate

GOAL: Final = 20_000.0
"""Events a second; half of it is the floor, for a machine that is busy."""


def rate(database: Database, events: int) -> Past:
    """Print how fast `events` events are made up and written."""
    print(f"\nMaking up a past of {events} events", flush=True)
    past = generate(database.owner_dsn, events, progress=progress(events))
    print(f"  {past.events} events, {past.first:%Y-%m-%d} to {past.last:%Y-%m-%d}")
    verdict("events a second", past.events / past.seconds, GOAL, GOAL / 2)
    return past


def progress(events: int) -> Callable[[int], None]:
    """Shows on a terminal how far it is, at most once a second."""
    shown = time.monotonic()

    def show(position: int) -> None:
        nonlocal shown
        if time.monotonic() - shown >= 1 and sys.stderr.isatty():
            shown = time.monotonic()
            print(f"\r  {position / events:4.0%}", end="", file=sys.stderr, flush=True)

    return show
