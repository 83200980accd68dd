"""The thread in which a process does what nobody asks for: reconciling, publishing, summaries.

It decides nothing. Each round stands alone, so that a failure costs one round only.
"""

import threading
from collections.abc import Callable
from typing import Final

import psycopg
import structlog

from api.denials import Denials
from api.exchange import Clock
from api.last_seen import LastSeen
from api.readings import Readings
from ca.publishing import RevocationLists
from ca.reconciler import Reconciler
from ledger.errors import LedgerError

_logger: Final = structlog.get_logger("fedledger.maintenance")
_PERIOD: Final = 10.0  # seconds


class Maintenance:
    """Runs rounds in a thread of its own from `start` to `stop`."""

    def __init__(
        self,
        reconciler: Reconciler,
        lists: RevocationLists,
        denials: Denials,
        readings: Readings,
        last_seen: LastSeen,
        stop_writing: Callable[[str], None],
        clock: Clock,
    ) -> None:
        """`stop_writing` is called once it is found that history was lost, with the reason."""
        self._last_seen = last_seen
        self._stop_writing = stop_writing
        self._reconciler = reconciler
        self._lists = lists
        self._denials = denials
        self._readings = readings
        self._clock = clock
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; the first round is at once, for what the process before left open."""
        self._thread = threading.Thread(target=self._run, name="maintenance", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the round that is running."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join()

    def round(self) -> None:
        """Do everything once."""
        self._denials.flush()
        self._readings.flush()
        try:
            if objection := self._last_seen.objection():
                self._stop_writing(objection)
                return
            self._last_seen.remember()
            report = self._reconciler.run_once(self._clock())
            self._lists.publish_due(self._clock())
        except (LedgerError, psycopg.Error) as error:
            # The database is away; so is everything else, and the next round may find it.
            _logger.warning("not reconciled", error=type(error).__name__)
        else:
            if report.done:
                _logger.info("reconciled", **report.done)

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                self.round()
            except Exception as error:
                # Without this the thread would end, and nobody would drive issuances on.
                _logger.error("a round of maintenance failed", exc_info=error)
            self._ending.wait(_PERIOD)
