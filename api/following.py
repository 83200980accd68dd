"""The thread that keeps tables filled after the commit close behind it. It writes none itself.

The database tells of every append; between two rounds there is a pause, so that a burst of appends
makes one batch and this takes a fifth of a processor at most. Nothing depends on it but how long a
reader of such a table waits.
"""

import threading
import time
from typing import Final

import psycopg
import structlog

from ledger.database import conninfo
from ledger.errors import LedgerError
from ledger.statement import CHANNEL
from projections.follower import Follower

_logger: Final = structlog.get_logger("fedledger.following")
_PAUSE: Final = 0.05  # seconds from one round to the next
_REST: Final = 4.0  # times as long as the round: under a flood of appends those come first
_LONGEST: Final = 5.0  # seconds without a round, should a notification be lost
_RETRY: Final = 2.0  # seconds, when the database is away
_LISTEN: Final = f"LISTEN {CHANNEL}"


class Following:
    """Runs rounds in a thread of its own from `start` to `stop`."""

    def __init__(self, dsn: str, follower: Follower) -> None:
        """`dsn`: the service role's; one connection more, to be told of appends."""
        self._dsn = dsn
        self._follower = follower
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; the first round is at once, for what was appended meanwhile."""
        self._thread = threading.Thread(target=self._run, name="following", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the batch that is being written."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                with psycopg.connect(conninfo(self._dsn), autocommit=True) as connection:
                    connection.execute(_LISTEN)
                    self._rounds(connection)
            except (LedgerError, psycopg.Error) as error:
                # The database is away; so is everything else, and the next try may find it.
                _logger.warning("not followed", error=type(error).__name__)
            except Exception as error:
                # Without this the thread would end, and every reader would do its work.
                _logger.error("a round of following failed", exc_info=error)
            self._ending.wait(_RETRY)

    def _rounds(self, connection: psycopg.Connection[object]) -> None:
        while not self._ending.is_set():
            began = time.monotonic()
            self._follower.follow(until=self._ending.is_set)
            self._ending.wait(max(_PAUSE, _REST * (time.monotonic() - began)))
            self._await(connection)

    def _await(self, connection: psycopg.Connection[object]) -> None:
        """Return at once when something was appended since the last call, else when something is."""
        waited = 0.0
        while not self._ending.is_set() and waited < _LONGEST:
            if any(True for _ in connection.notifies(timeout=_STEP, stop_after=1)):
                for _ in connection.notifies(timeout=0):
                    pass  # one round answers all that came meanwhile
                return
            waited += _STEP


_STEP: Final = 0.25  # seconds until it is noticed that the process ends
