"""Lets calls wait for the next events, without letting them take every thread there is.

It reads no event. A connection of its own hears of every commit; whoever waits says up to which
position he has looked, so a commit between his look and his waiting is not missed.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
import structlog

from ledger.errors import LedgerError, UnavailableError

_logger: Final = structlog.get_logger("fedledger.tail")
_LOOK: Final = 1.0  # seconds between looks at the head while nothing can be heard
_HEAR: Final = 1.0  # seconds after which the listener looks whether it is still wanted
_RETRY_AFTER: Final = 5  # seconds


class Tail:
    """`beyond` waits; the listening begins with the first who does, and ends with `stop`."""

    def __init__(
        self,
        listen: Callable[[], psycopg.Connection[Any]],
        head: Callable[[], int],
        *,
        most: int,
    ) -> None:
        """`listen` gives a connection that hears of commits; `head` the ledger's size; `most` may
        wait at once."""
        self._listen = listen
        self._head = head
        self._places = threading.BoundedSemaphore(most)
        self._changed = threading.Condition()
        self._size = 0
        self._hears = False
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def place(self) -> Iterator[None]:
        """Room for one who waits.

        Raises:
            UnavailableError: `occupied`, there is none left.
        """
        if not self._places.acquire(blocking=False):
            raise UnavailableError(
                "too many calls wait for events", code="occupied", retry_after=_RETRY_AFTER
            )
        try:
            yield
        finally:
            self._places.release()

    def beyond(self, position: int, seconds: float) -> bool:
        """Wait until the ledger is longer than `position`; False when the time was over first.

        Raises:
            UnavailableError: the database does not answer.
        """
        end = time.monotonic() + seconds
        while True:
            with self._changed:
                self._start()
                left = end - time.monotonic()
                if self._size > position or self._ended.is_set() or left <= 0:
                    return self._size > position
                self._changed.wait(left if self._hears else min(left, _LOOK))
                hears = self._hears
            if not hears:
                self._heard(self._head(), hears=False)

    def stop(self) -> None:
        """Let everybody go who waits, now and later; the listening ends a moment later."""
        with self._changed:
            self._ended.set()
            self._changed.notify_all()

    def close(self) -> None:
        """End, and wait until the connection is closed."""
        self.stop()
        if self._thread is not None:
            self._thread.join()

    def _start(self) -> None:
        if self._thread is None and not self._ended.is_set():
            self._thread = threading.Thread(target=self._run, name="tail", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                with self._listen() as connection:
                    # After the LISTEN: what was committed before it was not announced to us.
                    self._heard(self._head(), hears=True)
                    while not self._ended.is_set():
                        for notice in connection.notifies(timeout=_HEAR, stop_after=1):
                            self._heard(int(notice.payload), hears=True)
            except (psycopg.Error, LedgerError, ValueError) as error:
                if self._ended.is_set():
                    return
                _logger.warning("not listening for events", error=type(error).__name__)
                self._heard(0, hears=False)
                with self._changed:
                    self._changed.wait(_LOOK)

    def _heard(self, size: int, *, hears: bool) -> None:
        with self._changed:
            self._size, self._hears = max(self._size, size), hears
            self._changed.notify_all()
