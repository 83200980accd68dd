"""One thread at a time per call: the twin of a call waits for it. It stores and replays nothing."""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from threading import Event, Lock
from time import monotonic
from typing import Final

from ledger.errors import RefusedError

PATIENCE: Final = 5.0
"""Seconds a twin waits."""


class Turns:
    """Within this process; between processes the idempotency record itself decides."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self._mutex = Lock()
        self._taken: dict[Hashable, Event] = {}
        self._patience = patience

    @contextmanager
    def turn(self, name: Hashable) -> Iterator[None]:
        """Hold the turn of `name`. Raises RefusedError (`idempotency-in-flight`) after 5 s."""
        deadline = monotonic() + self._patience
        mine = Event()
        while (theirs := self._take(name, mine)) is not None:
            if not theirs.wait(max(0.0, deadline - monotonic())):
                raise RefusedError(
                    "the same call is still being carried out", code="idempotency-in-flight"
                )
        try:
            yield
        finally:
            with self._mutex:
                del self._taken[name]
            mine.set()

    def _take(self, name: Hashable, mine: Event) -> Event | None:
        with self._mutex:
            theirs = self._taken.setdefault(name, mine)
            return None if theirs is mine else theirs
