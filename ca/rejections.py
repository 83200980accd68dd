"""Writes down failed enrollments: what a token's lock and an auditor need, without letting a
stranger fill the ledger.

It refuses nothing and answers nobody. Ten rejections of one source are noted singly in a minute,
the rest of that minute becomes one summary. What only a holder of the right secret can get wrong is
always noted: the lock counts it, and after ten there is no more of it.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

from psycopg import Connection

from ca.csr import Csr
from ca.orders import request_of
from ledger import alarms as alarm_rules
from ledger.alarms import Alarm
from ledger.application import Ledger
from ledger.enrollment import FAILURES_TO_LOCK, counts_towards_lock
from ledger.errors import LedgerError
from ledger.events import Actor, EnrollmentRejected
from ledger.issuance import Request
from ledger.notes import Note
from ledger.reading import Call, Reading
from projections import alarms, rejections

SINGLY: Final = 10
"""Notes of one source in one minute; the rest is one summary."""

REPLAYED: Final = "token-replayed"
FURTHER: Final = "further-rejections"
"""The cause in a summary."""

_LOCKSMITH: Final = Actor(kind="system", id="issuance", auth="system")
_MOST_SOURCES: Final = 5_000  # then the one unseen for longest gets its summary early
_logger: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is known of one failed attempt; the token's text is not."""

    cause: str = "unknown"
    accessor: str | None = None
    grant_id: UUID | None = None
    request: Request | None = None

    def with_request(self, csr: Csr) -> "Attempt":
        return replace(self, request=request_of(csr))

    def fact(self, count: int = 1) -> EnrollmentRejected:
        return EnrollmentRejected(
            cause=self.cause,
            count=count,
            accessor=self.accessor,
            grant_id=self.grant_id,
            csr_sha256=self.request.csr_sha256 if self.request else None,
            key_digest=self.request.key_digest if self.request else None,
        )


@dataclass(slots=True)
class _Window:
    """One source in one minute. `held`: rejections that were not noted; `last`: who."""

    minute: int
    seen: int = 0
    held: int = 0
    last: Call | None = None


class Rejections:
    """Notes rejections and locks tokens. Thread-safe; the windows are this process's own."""

    def __init__(
        self, ledger: Ledger, read: Callable[[], AbstractContextManager[Connection[Any]]]
    ) -> None:
        """`read` opens a connection for one look at the tables."""
        self._ledger = ledger
        self._read = read
        self._windows: OrderedDict[str | None, _Window] = OrderedDict()
        self._windows_lock = threading.Lock()
        self._alarm_lock = threading.Lock()

    def note(self, call: Call, attempt: Attempt) -> None:
        """Note one rejection, singly or for the summary; lock the token if it was the tenth.

        Raises:
            UnavailableError: nothing can be written now.
        """
        if attempt.accessor is not None and counts_towards_lock(attempt.cause):
            self._ledger.decide(call, lambda reading: _write(reading, attempt.fact()))
            self._lock_if_due(call, attempt.accessor, attempt.grant_id)
            return
        single, summary = self._counted(call)
        self._summarise(summary)
        if attempt.cause == REPLAYED:
            self._note_replay(call, attempt, single=single)
        elif single:
            self._ledger.decide(call, lambda reading: _write(reading, attempt.fact()))

    def flush(self, *, everything: bool = False) -> None:
        """Write the summaries of minutes that are over; of all, when the process ends."""
        minute = _minute(self._ledger.clock())
        with self._windows_lock:
            over = [
                source
                for source, window in self._windows.items()
                if everything or window.minute < minute
            ]
            windows = [self._windows.pop(source) for source in over]
        for window in windows:
            try:
                self._summarise(window)
            except LedgerError as error:
                # A count of strangers is not worth stopping for; the log line has it.
                _logger.warning("%s rejections not noted: %s", window.held, error.code)

    def _counted(self, call: Call) -> tuple[bool, _Window | None]:
        """Count one; return whether to note it singly, and a window that is over."""
        source, minute = call.actor.source, _minute(self._ledger.clock())
        with self._windows_lock:
            window = over = self._windows.pop(source, None)
            if window is None or window.minute != minute:
                window = _Window(minute)
            else:
                over = None
            self._windows[source] = window
            window.seen += 1
            if window.seen > SINGLY:
                window.held += 1
                window.last = call
            if over is None and len(self._windows) > _MOST_SOURCES:
                over = self._windows.popitem(last=False)[1]
            return window.seen <= SINGLY, over

    def _summarise(self, window: _Window | None) -> None:
        if window is not None and window.held and window.last is not None:
            call, held = replace(window.last, causation_id=None), window.held
            self._ledger.decide(
                call, lambda reading: _write(reading, Attempt(FURTHER).fact(count=held))
            )

    def _note_replay(self, call: Call, attempt: Attempt, *, single: bool) -> None:
        """Note it, and raise an alarm unless one about this token is open."""
        with self._alarm_lock:  # so that several at once raise one
            with self._read() as connection:
                known = alarms.is_open_about(connection, REPLAYED, str(attempt.accessor))
            if not (single or not known):
                return

            def write(reading: Reading) -> None:
                _write(reading, attempt.fact())
                if not known:
                    about = (str(attempt.accessor), str(attempt.grant_id))
                    detail = "a redeemed enrollment token was presented with another request"
                    add_alarm(reading, REPLAYED, about, detail)

            self._ledger.decide(call, write)
        if not known:
            log_alarm(REPLAYED, str(attempt.accessor))

    def _lock_if_due(self, call: Call, accessor: str, grant_id: UUID | None) -> None:
        # Counted after the note is in: of several at once, the last sees them all.
        with self._read() as connection:
            by_cause = rejections.failures_by_cause(connection, accessor)
        failures = sum(number for cause, number in by_cause.items() if counts_towards_lock(cause))
        if grant_id is None or failures < FAILURES_TO_LOCK:
            return

        by_system = replace(call, actor=_LOCKSMITH)
        self._ledger.lock_enrollment_token(by_system, grant_id, accessor, failures)


def add_alarm(reading: Reading, kind: str, about: tuple[str, ...], detail: str) -> None:
    """Raise an alarm in the append that is its cause, so that neither stands alone."""
    reading.append(Alarm, uuid4(), *alarm_rules.raise_alarm(kind, about, detail))


def log_alarm(kind: str, about: str) -> None:
    """The alarm's one ERROR line, once its event is in. `about`: an id, never a secret."""
    _logger.error("alarm %s about %s; see `fedledger alarm list`", kind, about)


def _write(reading: Reading, fact: EnrollmentRejected) -> None:
    reading.append(Note, uuid4(), fact)


def _minute(at: datetime) -> int:
    return int(at.timestamp() // 60)
