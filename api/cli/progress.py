"""Shows how far long work is, on stderr: a bar on a terminal, a line now and then elsewhere.

`rich` is loaded only for a terminal. It knows no work.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from api.cli.interrupting import terminated_like_interrupted
from api.cli.output import note

Tell = Callable[[str, int, int], object]
"""Told what is being done, how many events of how many."""

_EVERY: Final = 5.0  # seconds between two lines


@contextmanager
def shown() -> Iterator[Tell]:
    """Show progress until the block ends; work that is long may be ended from outside."""
    with terminated_like_interrupted(), _shown() as tell:
        yield tell


@contextmanager
def _shown() -> Iterator[Tell]:
    if not sys.stderr.isatty():
        yield _Lines().tell
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed}/{task.total} events"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, visible=False)  # most commands have nothing long to do
        yield lambda what, done, total: bar.update(
            task, description=what, completed=done, total=max(1, total), visible=True
        )


class _Lines:
    def __init__(self) -> None:
        self._began = self._told = time.monotonic()
        self._what = ""

    def tell(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what != self._what:
            self._what, self._began = what, now
        elif now - self._told < _EVERY:
            return
        self._told = now
        note(f"{what}: {done} of {total} events{self._left(now, done, total)}")

    def _left(self, now: float, done: int, total: int) -> str:
        passed = now - self._began
        if not 0 < done < total or passed < _EVERY:
            return ""
        return f", about {passed * (total - done) / done:.0f} s left"
