"""Lets a command be ended from outside as Ctrl-C ends it: the stack unwinds, what is open is closed."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Final

ENDING: Final[Sequence[signal.Signals]] = (signal.SIGTERM, signal.SIGHUP)
"""What ends a process that does not care."""


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt, until the block ends."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
