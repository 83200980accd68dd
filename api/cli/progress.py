"""How far long work has come: one line on stderr that rewrites itself, for people only."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_EVERY: Final = 0.2  # seconds


@contextmanager
def progress(what: str, total: int, *, unit: str = "events") -> Iterator[Callable[[int], None]]:
    """Yield what is told: for bytes the size of each part, else how far it has come of `total`.

    Without a terminal nothing is written: logs and programs want none of it.
    """
    shown = sys.stderr.isatty()
    adds = unit == "bytes"
    begun = last = time.monotonic()
    done = 0

    def tell(value: int) -> None:
        nonlocal done, last
        done = done + value if adds else value
        now = time.monotonic()
        if shown and now - last >= _EVERY:
            last = now
            _write(what, done, total, unit, now - begun)

    yield tell
    if shown and last > begun:
        _write(what, done, total, unit, time.monotonic() - begun)
        sys.stderr.write("\n")


def _write(what: str, done: int, total: int, unit: str, seconds: float) -> None:
    share = min(100, 100 * done // max(1, total))
    rate = done / max(seconds, 0.001)
    left = max(0, total - done) / max(rate, 0.001)
    sys.stderr.write(f"\r{what} {share:3d} %  {rate:,.0f} {unit}/s  {left:.0f} s left   ")
    sys.stderr.flush()
