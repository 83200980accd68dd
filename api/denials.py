"""Writes down who was turned away, without letting a stranger fill the ledger.

It refuses nothing itself. Ten denials of one source are recorded singly in a minute; the rest of
that minute becomes one summary, written with the source's next denial or by `flush`.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from uuid import uuid4

import structlog

from api.problems import code_of
from ledger.errors import LedgerError
from ledger.events import Actor, CallDenied, Fact
from ledger.store import Call

_logger: Final = structlog.get_logger("fedledger.denials")
_SINGLY: Final = 10
_MINUTE: Final = 60.0
_MOST_SOURCES: Final = 5_000


@dataclass
class _Window:
    begun: float
    seen: int = 0
    held: int = 0
    last: tuple[str, Actor, str] | None = None


@dataclass
class Denials:
    """`record` appends a fact as a note; `seconds` gives monotonic time."""

    record: Callable[[Call, Fact], object]
    seconds: Callable[[], float]
    _windows: OrderedDict[str, _Window] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, operation: str, actor: Actor, error: LedgerError, request_id: str) -> None:
        """Record one denial, or count it for the summary of its minute."""
        source = actor.source or "unknown"
        problem = code_of(error)
        with self._lock:
            window = self._windows.pop(source, None)
            summary = None
            if window is None or self.seconds() - window.begun >= _MINUTE:
                summary = window
                window = _Window(self.seconds())
            self._windows[source] = window
            window.seen += 1
            single = window.seen <= _SINGLY
            if not single:
                window.held += 1
                window.last = (operation, actor, problem)
            if len(self._windows) > _MOST_SOURCES:
                summary = summary or self._windows.popitem(last=False)[1]
        if summary is not None:
            self._summarise(summary)
        if single:
            self._write(operation, actor, problem, 1, request_id)

    def flush(self, *, everything: bool = False) -> None:
        """Write the summaries of minutes that are over; of all, when the service ends."""
        now = self.seconds()
        with self._lock:
            over = [
                source
                for source, window in self._windows.items()
                if everything or now - window.begun >= _MINUTE
            ]
            windows = [self._windows.pop(source) for source in over]
        for window in windows:
            if not self._summarise(window) and everything:
                # The database is away: at the service's end thousands must not be tried one by one.
                _logger.warning("summaries of denials not recorded", sources=len(windows))
                return

    def _summarise(self, window: _Window) -> bool:
        if window.held and window.last is not None:
            operation, actor, problem = window.last
            return self._write(operation, actor, problem, window.held, str(uuid4()))
        return True

    def _write(
        self, operation: str, actor: Actor, problem: str, count: int, request_id: str
    ) -> bool:
        """Record one denial or summary; False if it cannot be."""
        fact = CallDenied(operation=operation, problem=problem, count=count)
        try:
            self.record(Call(actor=actor, correlation_id=request_id), fact)
        except Exception as error:  # noqa: BLE001 - a denial stands whether or not it is recorded
            _logger.warning("denial not recorded", operation=operation, error=type(error).__name__)
            return False
        return True
