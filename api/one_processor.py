"""Keeps a serving process's threads on one processor. It starts no thread and chooses no number.

Only one of an interpreter's threads runs at a time. Where they stand on several processors, each turn
is handed from one to another, which takes longer than most turns do (ADR 0020).
"""

import os
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_STATE: Final = Path("/proc/thread-self/stat")
_PROCESSOR: Final = 36  # of its fields behind the name: proc(5), "processor", number 39


@contextmanager
def on_one_processor() -> Iterator[None]:
    """Every thread of this process, and those they start, on one processor until the end.

    On the one this thread runs on: where others work, the system has seldom put it. What was started
    before as a process of its own (the private PostgreSQL) goes where it likes. Where the system
    cannot do this, nothing is done: it is for speed alone.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    _keep_to({_one_of(allowed)})
    try:
        yield
    finally:
        _keep_to(allowed)


def _one_of(allowed: Collection[int]) -> int:
    """The processor this thread ran on last, if that is known and allowed."""
    with suppress(OSError):
        here = int(_STATE.read_text().rpartition(")")[2].split()[_PROCESSOR])
        if here in allowed:
            return here
    return min(allowed)


def _keep_to(processors: Collection[int]) -> None:
    for thread in threading.enumerate():
        # A thread may have ended, and a container may forbid it: then it stays as it is.
        with suppress(OSError):
            if thread.native_id is not None:
                os.sched_setaffinity(thread.native_id, processors)
