"""Builds the tables anew from the events, beside the live ones, then puts them in their place.

1. make: tables like the live ones, empty, in a schema of their own (`projections/beside.py`)
2. copy: every stream up to a position is folded, its rows copied in, a chunk per transaction, by
   several processes at once (`projections/copying.py`)
3. index: constraints, indexes, statistics, as the live tables have them, two tables at a time
4. catch up: the streams that have moved on since are folded again, until few are left
5. swap: one short transaction sends autovacuum away, locks the live tables, then the head; catches up;
   moves the tables

Nobody waits for 1 to 4. In 5 everybody waits, for as long as `pause` says at most: what takes longer is
given up and tried again. Killed anywhere, the next call goes on from the last chunk, or begins anew if
what is to be built is no longer the same. Memory is that of a chunk for each process, however many streams
there are.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Final

import psycopg
from psycopg import Connection

from ledger.appends import InlineProjection
from ledger.head import read_head, set_release
from projections import copying
from projections import progress as progress_of
from projections.beside import Beside, ShapeError
from projections.copying import Errand, connected, without_collecting
from projections.filling import Filling, UnfoldableError
from projections.progress import Progress, RebuildAbortedError, RebuildError
from projections.registry import RELEASE
from projections.sources import Source, columns_of

__all__ = ["CHUNK", "RebuildAbortedError", "RebuildError", "Rebuilt", "abort", "rebuild"]

CHUNK: Final = 20_000
"""Events per transaction of copying: what a kill costs, and what memory holds, for each process."""
_NEAR: Final = 50  # events that may be left for the swap itself
_ROUNDS: Final = 100  # of catching up before a swap is tried all the same
_LOCK_TIMEOUT: Final = 0.05  # seconds for a lock: longer, and those behind us wait too long
_VACUUM_GIVES_WAY: Final = 5.0  # seconds: `deadlock_timeout`, which is one, and some
_LOCK: Final = int.from_bytes(sha256(b"fedledger.rebuild").digest()[:8], "big", signed=True)

_TURN: Final = "SELECT pg_try_advisory_lock(%s)"
_TURN_OVER: Final = "SELECT pg_advisory_unlock(%s)"
_FOLLOWED: Final = "SELECT FROM projection_progress WHERE name = %s FOR UPDATE"
_POSITION: Final = """INSERT INTO projection_progress (name, position, release) VALUES (%s, %s, %s)
    ON CONFLICT (name) DO UPDATE SET (position, release) = (excluded.position, excluded.release)"""


class _NotNowError(Exception):
    """The swap would have kept others waiting for too long."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What became of it. `position`: of the swap; `pause`: seconds for which others had to wait.

    `events`, `rows`: copied, by an interrupted call before this one too; `seconds`: of this one.
    """

    position: int
    events: int
    rows: int
    seconds: float
    pause: float
    attempts: int
    resumed: bool


@dataclass(slots=True)
class _Work:
    """The parts of one call."""

    writing: Connection[Any]
    reading: Connection[Any]
    filling: Filling
    beside: Beside
    source: Source
    errand: Errand
    release: int  # what the head says afterwards
    pause: float  # seconds others may be kept waiting
    tell: Callable[[Progress], object]
    now: Progress


def rebuild(
    owner_dsn: str,
    source: Source,
    *,
    release: int = RELEASE,
    pause: float = 0.1,
    patience: float = 300.0,
    chunk: int = CHUNK,
    processes: int | None = None,
    tell: Callable[[Progress], object] = lambda _: None,
) -> Rebuilt:
    """Rebuild the tables of `source`, or go on with a rebuild of them that was interrupted.

    `release`: of which the tables are afterwards. `pause`: seconds others may have to
    wait for the swap; `patience`: seconds to try it for. `processes`: that copy, unless the rebuild was
    begun with another number, or the registry does not have the source; None: as many as the processors and the events are worth. `tell`: is told
    how far it is, about twice a second.

    Raises:
        RebuildError: another one runs; a newer release's tables; a stream that does not fold; the
            swap never got its moment. RebuildAbortedError: it was given up on request.
        psycopg.Error: the database says no.
    """
    began = time.monotonic()
    with (
        connected(owner_dsn) as writing,
        connected(owner_dsn) as reading,
        _turn(writing),
        without_collecting(),
    ):
        beside = _beside(writing, source)
        now, resumed = _begin(writing, beside, source, release, processes)
        filling = Filling(reading, writing, source, beside)
        errand = Errand(owner_dsn, source.name, now.base, chunk)
        work = _Work(writing, reading, filling, beside, source, errand, release, pause, tell, now)
        try:
            if work.now.phase == "copying":
                _copy(work)
            if work.now.phase == "indexing":
                _index(work)
            waited, attempts = _swap_in_time(work, patience)
        except (ShapeError, UnfoldableError) as error:
            raise RebuildError(f"{error}; run fedledger doctor --all") from error
        with writing.transaction():
            beside.remove()
    return Rebuilt(
        position=work.now.caught_up,
        events=work.now.events,
        rows=work.now.rows,
        seconds=time.monotonic() - began,
        pause=waited,
        attempts=attempts,
        resumed=resumed,
    )


def abort(owner_dsn: str, source: Source, *, patience: float = 30.0) -> bool:
    """Give up a rebuild: stop who is at it, drop what was built. Return whether there was one.

    Raises:
        RebuildError: whoever is at it did not stop within `patience` seconds.
    """
    with connected(owner_dsn) as connection:
        beside = _beside(connection, source)
        if not beside.begun:
            return False
        if progress_of.read(connection, beside.schema) is not None:
            progress_of.ask_to_abort(connection, beside.schema)
        deadline = time.monotonic() + patience
        while not _has_turn(connection):
            if time.monotonic() > deadline:
                raise RebuildError(
                    "the running rebuild does not stop; end its process, then repeat"
                )
            time.sleep(0.1)
        with connection.transaction():
            beside.remove()
    return True


# ---- 1. make, or go on -------------------------------------------------------------------------


def _has_turn(connection: Connection[Any]) -> bool:
    row = connection.execute(_TURN, [_LOCK]).fetchone()
    return bool(row and row[0])


@contextmanager
def _turn(connection: Connection[Any]) -> Iterator[None]:
    if not _has_turn(connection):
        raise RebuildError("another rebuild is running: wait for it, or abort it")
    try:
        yield
    finally:
        # Not left to the connection's end: the server notices that a moment after our next call.
        with suppress(psycopg.Error):
            connection.execute(_TURN_OVER, [_LOCK])


def _beside(connection: Connection[Any], source: Source) -> Beside:
    return Beside(connection, source.name, [table.table for table in source.tables])


def _begin(
    connection: Connection[Any],
    beside: Beside,
    source: Source,
    release: int,
    processes: int | None,
) -> tuple[Progress, bool]:
    """Return the progress to go on from, and whether there was any."""
    size, present = read_head(connection)
    if present > release:
        raise RebuildError(
            f"the tables are those of a newer release ({present}, this one has {release}); "
            "rebuild with that release"
        )
    fingerprint = _fingerprint(beside, source.tables, present, release)
    before = progress_of.read(connection, beside.schema)
    if before is not None and before.fingerprint == fingerprint and before.phase != "swapped":
        if before.aborting:
            raise RebuildAbortedError("this rebuild is being given up; abort it, then begin anew")
        return before, True
    with connection.transaction():
        beside.remove()  # of another release, or swapped and not yet tidied up
        beside.make()
        slices = copying.processes_for(source, size, processes)
        progress_of.make(connection, beside.schema, fingerprint, size, slices)
    begun = progress_of.read(connection, beside.schema)
    if begun is None:
        raise RebuildError("the rebuild was removed while it began; begin anew")
    return begun, False


def _fingerprint(
    beside: Beside, tables: Sequence[InlineProjection], present: int, release: int
) -> str:
    """Of all that decides what is built: the releases, the columns we write, the live tables' shape."""
    said = [
        f"{present} to {release}",
        *columns_of(tables),
        *(f"{name} {sorted(shape.items())}" for name, shape in beside.shapes()),
    ]
    return sha256("\n".join(said).encode()).hexdigest()


# ---- 2. copy, 3. index -------------------------------------------------------------------------


def _copy(work: _Work) -> None:
    copying.copy(work.errand, work.filling, work.writing, lambda: _look(work))
    _look(work)
    with work.writing.transaction():
        _advance(work, replace(work.now, phase="indexing"))


def _look(work: _Work) -> None:
    """Tell how far all processes are."""
    now = progress_of.read(work.writing, work.beside.schema)
    if now is None or now.aborting:
        raise RebuildAbortedError
    work.now = now
    work.tell(now)


def _advance(work: _Work, then: Progress) -> None:
    progress_of.write(work.writing, work.beside.schema, then)
    work.now = then
    work.tell(then)


def _index(work: _Work) -> None:
    """Finish the tables, two at a time: nothing else is going on, and a server has processors."""
    left = iter(work.beside.largest_first())
    with ThreadPoolExecutor(1) as other:
        second = other.submit(_finish, work.reading, _beside(work.reading, work.source), left)
        try:
            _finish(work.writing, work.beside, left)
            second.result()
        except BaseException:
            for _ in left:  # the other begins with no more of them
                pass
            work.reading.cancel_safe()
            raise
    with work.writing.transaction():
        _advance(work, replace(work.now, phase="catching-up"))


def _finish(connection: Connection[Any], beside: Beside, names: Iterator[str]) -> None:
    for name in names:
        # A transaction each: killed, the next call finds the finished ones finished.
        with connection.transaction():
            if beside.differences(name):
                beside.finish(name)


# ---- 4. catch up, 5. swap ----------------------------------------------------------------------


def _swap_in_time(work: _Work, patience: float) -> tuple[float, int]:
    """Catch up and swap, again and again until it goes fast enough; return the pause and the tries."""
    deadline = time.monotonic() + patience
    attempts = 0
    while True:
        _catch_up(work)
        attempts += 1
        try:
            return _swap(work), attempts
        except (
            _NotNowError,
            psycopg.errors.LockNotAvailable,
            psycopg.errors.QueryCanceled,
        ) as error:
            if time.monotonic() > deadline:
                raise RebuildError(
                    f"in {attempts} attempts the tables could not be swapped without making others "
                    f"wait longer than {work.pause:g} s; call it again at a quieter time, or allow "
                    "a longer pause"
                ) from error
        # Those who waited behind us go first, and not always at the same beat.
        time.sleep(random.uniform(0.05, 0.3))  # noqa: S311 - no secret


def _catch_up(work: _Work) -> None:
    """Follow the appends until so few are left that the swap can take them along."""
    for _ in range(_ROUNDS):
        size, _release = read_head(work.writing)
        behind = size - work.now.caught_up
        if behind:
            _catch_up_to(work, size)
        if behind <= _NEAR:
            return


def _catch_up_to(work: _Work, size: int) -> None:
    streams = work.filling.touched(work.now.caught_up, size)
    with work.writing.transaction():
        work.filling.catch_up(streams, size)
        _advance(work, replace(work.now, caught_up=size))


def _swap(work: _Work) -> float:
    """Swap in one transaction; return for how many seconds others had to wait.

    The tables are locked before the head: appends lock in that order, too, and the other order has
    been seen to deadlock. Tables that are filled after the commit have their follower instead.

    Raises:
        _NotNowError, LockNotAvailable, QueryCanceled: nothing happened; it would have taken too long.
    """
    before, connection = work.now, work.writing
    try:
        with connection.transaction():
            # A vacuum of a large table goes on for minutes, and gives way to nobody who is in a hurry.
            _limit(connection, _VACUUM_GIVES_WAY)
            work.beside.keep_vacuum_away()
            began = time.monotonic()
            _limit(connection, min(_LOCK_TIMEOUT, work.pause))
            size = _lock(work, began)
            if size - work.now.caught_up > _NEAR:
                raise _NotNowError
            work.beside.check_columns()
            with work.filling.limited(_left(work, began)):
                _catch_up_to(work, size)
            work.beside.take_the_place()
            _put_down(work, size)
            _advance(work, replace(work.now, phase="swapped"))
            _left(work, began)
    except BaseException:
        work.now = before
        raise
    return time.monotonic() - began


def _lock(work: _Work, began: float) -> int:
    """Stop whoever writes these tables; return the position they are right at."""
    connection, followed = work.writing, work.source.followed
    if followed is not None:
        connection.execute(_FOLLOWED, [followed])
    work.beside.lock()
    _limit(connection, _left(work, began))
    size, _release = read_head(connection, lock=followed is None)
    return size


def _put_down(work: _Work, size: int) -> None:
    """Write down what the tables are now: of which release, or up to which position."""
    if work.source.followed is None:
        set_release(work.writing, work.release)
    else:
        work.writing.execute(_POSITION, [work.source.followed, size, work.release])


def _left(work: _Work, began: float) -> float:
    """The seconds left for the swap. Raises _NotNowError when there are none."""
    left = began + work.pause - time.monotonic()
    if left <= 0:
        raise _NotNowError
    return left


def _limit(connection: Connection[Any], seconds: float) -> None:
    """Let no lock and no statement of this transaction take longer than this."""
    milliseconds = max(1, round(seconds * 1000))
    connection.execute(f"SET LOCAL lock_timeout = {milliseconds}".encode())
    connection.execute(f"SET LOCAL statement_timeout = {milliseconds}".encode())
