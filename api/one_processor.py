"""Keeps a serving process's threads on one processor while others leave it one (ADR 0020).

Only one of an interpreter's threads runs at a time. Where they stand on several processors, each turn
is handed from one to another, which takes longer than most turns do. Where the machine is busy it is
worse to wait for one processor than to take whichever is free: then the system places them.

While they share one, a thread that is woken also waits until the one that runs has come to its end
(SCHED_BATCH, sched(7)): it could do nothing before, for that one has the interpreter.
"""

import os
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import structlog

_logger: Final = structlog.get_logger("fedledger.placing")

FIRST_SECONDS: Final = 0.2
LOOK_SECONDS: Final = 1.0
MARGIN: Final = 0.3
"""Of a processor: what others may do on ours, and how much less elsewhere before we move there."""

_TIMES: Final = Path("/proc/stat")


@contextmanager
def on_one_processor() -> Iterator[None]:
    """Every thread of this process, and those they start, as `choice` says, until the end.

    At first where the system puts them; soon after, then each second, the choice is made. What was
    started before as a process of its own (the private PostgreSQL) goes where it likes. Where the
    system cannot do this, nothing is done: it is for speed alone.
    """
    if not hasattr(os, "sched_setaffinity") or len(allowed := os.sched_getaffinity(0)) == 1:
        yield
        return
    _logger.info("threads share a processor while others leave one")
    over, policy = threading.Event(), os.sched_getscheduler(0)
    placing = threading.Thread(target=_place, args=(allowed, policy, over), name="placing")
    placing.start()
    try:
        yield
    finally:
        over.set()
        placing.join()
        _keep_to(allowed, policy)


def choice(now: int | None, busy: Mapping[int, float], own: float) -> int | None:
    """Return the processor to share, or None to let the system place the threads.

    `now`: the one they share, if they do. `busy`: how much of each processor was in use of late, from 0
    to 1; `own`: how many processors this process used. It is the one where others do least, which is
    also away from a program that is bound to ours; none if they do much everywhere.
    """
    if now is None:
        # What others did is known in sum only: it fits on the processors left, or not. A little more
        # may be, so that a database that needs one is no reason; less than what lets go again.
        fits = sum(busy.values()) - own <= len(busy) - 1 + MARGIN / 2
        return min(busy, key=lambda one: busy[one]) if fits else None
    beside = {one: share - (own if one == now else 0) for one, share in busy.items()}
    best = min(beside, key=lambda one: beside[one])
    if beside[best] > MARGIN:
        return None
    return best if beside[best] + MARGIN < beside[now] else now


def _place(allowed: Collection[int], policy: int, over: threading.Event) -> None:
    """Look now and then, and move when there is reason to. `policy`: how threads were scheduled."""
    # Whoever asked for something else than what is usual has a reason.
    shared = os.SCHED_BATCH if policy == os.SCHED_OTHER else policy
    now: int | None = None
    wait = FIRST_SECONDS
    before, used, then = _in_use(allowed), time.process_time(), time.monotonic()
    while not over.wait(wait):
        after, mine, moment = _in_use(allowed), time.process_time(), time.monotonic()
        took = moment - then
        busy = {one: (after[one] - before[one]) / took for one in after if one in before}
        if len(busy) == len(allowed) and (next_ := choice(now, busy, (mine - used) / took)) != now:
            _keep_to(*((allowed, policy) if next_ is None else ({next_}, shared)))
            _logger.debug("threads were moved", processor=next_)
            now = next_
        wait, before, used, then = LOOK_SECONDS, after, mine, moment


def _in_use(allowed: Collection[int]) -> dict[int, float]:
    """Seconds that each processor was in use so far, also by what runs beside this machine on it."""
    found: dict[int, float] = {}
    tick = os.sysconf("SC_CLK_TCK")
    with suppress(OSError):
        for line in _TIMES.read_text().splitlines():
            name, *times = line.split()
            if name[:3] == "cpu" and name[3:].isdigit() and int(name[3:]) in allowed:
                # proc(5): user, nice, system, idle, iowait, irq, softirq, steal
                user, nice, system, _, _, irq, softirq, steal = map(int, times[:8])
                found[int(name[3:])] = (user + nice + system + irq + softirq + steal) / tick
    return found


def _keep_to(processors: Collection[int], policy: int) -> None:
    for thread in threading.enumerate():
        # A thread may have ended, and a container may forbid it: then it stays as it is.
        with suppress(OSError):
            if thread.native_id is not None:
                os.sched_setaffinity(thread.native_id, processors)
                if policy in (os.SCHED_OTHER, os.SCHED_BATCH):  # others have priorities
                    os.sched_setscheduler(thread.native_id, policy, os.sched_param(0))
