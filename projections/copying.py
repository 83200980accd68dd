"""Copies the rows of every stream into the tables beside, in slices: each by a process of its own.

Only one of an interpreter's threads folds at a time, so it takes several interpreters to use several
processors. The calling process copies the first slice itself; for each other one it starts
`python -m projections.copying`, which is told on stdin what to do, writes its own progress in its own
transactions, and ends with whoever started it. What comes before and after is for
`projections/rebuild.py` to say.
"""

import gc
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import IO, Any, Final, cast
from uuid import UUID

import psycopg
from psycopg import Connection

from ledger.database import conninfo
from projections import progress
from projections.beside import Beside, schema_for
from projections.filling import Filling, UnfoldableError
from projections.progress import RebuildAbortedError, RebuildError
from projections.registry import RELEASE, SOURCES
from projections.sources import Source, columns_of

MOST: Final = 4
"""Processes, unless somebody says so: each keeps one of the server's processors busy, too."""
WORTH: Final = 100_000
"""Events from which on a second process is worth its start, which takes most of a second."""
_LOOK: Final = 0.5  # seconds between two looks at how far the others are
_NICENESS: Final = 10  # of those that only copy: whoever serves meanwhile goes first
# A crash of the server may lose the last chunks, and their progress with them. Streams are read in the
# order of their index: to sort a slice of them would take the disk, and the server's processors. What
# must be sorted all the same counts as so dear that it would be compiled first, which takes 100 ms.
# What is written is sent to the disk bit by bit: where a checkpoint finds it all in the system's cache,
# the commits of others wait behind it.
_OPTIONS: Final = (
    "-c timezone=UTC -c synchronous_commit=off -c enable_sort=off -c jit=off"
    " -c backend_flush_after=256kB"
)


@dataclass(frozen=True, slots=True)
class Errand:
    """What a process is to copy.

    `dsn`: the owner's; `source`: its name; `base`: the position the tables are copied at; `chunk`:
    about how many events a transaction takes.
    """

    dsn: str = field(repr=False)  # it may hold a password
    source: str
    base: int
    chunk: int

    @property
    def schema(self) -> str:
        """Where the tables to be filled and the slices stand."""
        return schema_for(self.source)


def processes_for(source: Source, events: int, wanted: int | None = None) -> int:
    """How many processes should copy so many events, this one included; `wanted`: as somebody says."""
    if source not in SOURCES:
        return 1  # another process would find the registry's one of that name, and copy that
    if wanted is not None:
        return wanted
    return min(MOST, _processors()) if events >= WORTH else 1


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def copy(
    errand: Errand, filling: Filling, writing: Connection[Any], tell: Callable[[], object]
) -> None:
    """Copy what is not copied yet. `filling` writes by `writing`; `tell` is called now and then.

    Raises:
        UnfoldableError: naming the stream. RebuildAbortedError: somebody asked to give it up.
        RebuildError: another process has ended; what it had copied is kept.
    """
    numbers = progress.open_slices(writing, errand.schema)
    with _others(errand, numbers[1:]) as others:

        def look() -> None:
            for each in others:
                each.check()
            tell()

        for number in numbers[:1]:
            _copy_slice(errand, number, filling, writing, look)
        for each in others:
            while not each.wait():
                look()


def _copy_slice(
    errand: Errand,
    number: int,
    filling: Filling,
    writing: Connection[Any],
    tell: Callable[[], object],
) -> None:
    with progress.slice_taken(writing, errand.schema, number) as (after, last):

        def flushed(now: UUID, events: int, rows: int) -> None:
            progress.advance(writing, errand.schema, number, now, events, rows)
            tell()

        filling.copy(errand.base, after, last, errand.chunk, flushed)
        progress.advance(writing, errand.schema, number, last, 0, 0)


# ---- the other processes, seen from here -------------------------------------------------------


class _Other:
    """A process that copies one slice."""

    def __init__(self, errand: Errand, number: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "projections.copying"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for us to hear
        )
        # Not on the command line, where everybody could read the DSN. It stays open: its end is ours.
        stdin = cast("IO[str]", self._process.stdin)
        told = {"errand": asdict(errand), "number": number, "built": _built(errand.source)}
        stdin.write(json.dumps(told) + "\n")
        stdin.flush()

    def wait(self) -> bool:
        """Whether it has come to its end, a good one, after a moment. Raises as `check` does."""
        try:
            self._process.wait(_LOOK)
        except subprocess.TimeoutExpired:
            return False
        self.check()
        return True

    def check(self) -> None:
        """Raise what `copy` raises, if it has ended by that."""
        if not self._process.poll():  # it runs, or has done what it should
            return
        name, _, text = cast("IO[str]", self._process.stdout).read().partition(" ")
        if error := _TOLD.get(name):
            raise error(text.strip())
        raise RebuildError(
            f"a process that copied has ended ({text.strip() or self._process.returncode}); call it "
            "again: it goes on where it stopped"
        )

    def end(self) -> None:
        self._process.kill()
        with self._process:  # closes what is open
            pass


_TOLD: Final[dict[str, type[Exception]]] = {
    error.__name__: error for error in (UnfoldableError, RebuildAbortedError, RebuildError)
}


@contextmanager
def _others(errand: Errand, numbers: Sequence[int]) -> Iterator[Sequence[_Other]]:
    """Processes for these slices. None of them outlives the block."""
    others: list[_Other] = []
    try:
        others += (_Other(errand, number) for number in numbers)
        yield others
    finally:
        for each in others:
            each.end()


# ---- such a process itself ---------------------------------------------------------------------


@contextmanager
def connected(dsn: str) -> Iterator[Connection[Any]]:
    """A connection for copying."""
    with psycopg.connect(conninfo(dsn, _OPTIONS), autocommit=True) as connection:
        yield connection


@contextmanager
def without_collecting() -> Iterator[None]:
    """Folded states refer to no cycles: collecting would look at them all and find nothing."""
    was = gc.isenabled()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        if was:
            gc.enable()


def main() -> int:
    """Copy the slice that stdin tells of, or say on stdout in one line why it was not."""
    told = json.loads(sys.stdin.readline())
    try:
        if told["built"] != _built(told["errand"]["source"]):
            raise RebuildError("the program was updated under the rebuild; end it, then begin anew")
        threading.Thread(target=_end_with_stdin, daemon=True).start()
        os.nice(_NICENESS)
        _run(Errand(**told["errand"]), told["number"])
    except (UnfoldableError, RebuildError, psycopg.Error) as error:
        sys.stdout.write(f"{type(error).__name__} {' '.join(str(error).split())}\n")
        return 1
    return 0


def _run(errand: Errand, number: int) -> None:
    source = next(each for each in SOURCES if each.name == errand.source)
    with (
        connected(errand.dsn) as writing,
        connected(errand.dsn) as reading,
        without_collecting(),
    ):
        beside = Beside(writing, source.name, [table.table for table in source.tables])
        filling = Filling(reading, writing, source, beside)
        _copy_slice(errand, number, filling, writing, lambda: None)


def _built(name: str) -> list[str]:
    """Of what this program would build under a name all that is not the database's to say (see
    `_fingerprint` in projections/rebuild.py)."""
    tables = [table for source in SOURCES if source.name == name for table in source.tables]
    return [str(RELEASE), *columns_of(tables)]


def _end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(1)  # whoever waits for us is no more: what is not committed shall not be


if __name__ == "__main__":
    sys.exit(main())
