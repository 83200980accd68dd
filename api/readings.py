"""Writes down that somebody read the audit trail: once per credential, operation and ten minutes.

The first reading is recorded at once; what follows is held back and added up, and becomes the one
record of the next ten minutes. It refuses nobody and wakes nobody: a reading that cannot be recorded
is still a reading, and an auditor must be able to look just when nothing can be written any more.
Each process counts for itself: a restart, or a second process, gives one record more; a process
that is killed loses what it held back, but never the first reading.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import structlog
from pydantic import BaseModel

from ledger.errors import LedgerError
from ledger.events import AuditRead, Fact
from ledger.store import Call

_logger: Final = structlog.get_logger("fedledger.readings")
_QUIET: Final = 600.0  # seconds
_MOST: Final = 10_000
_MOST_PAIRS: Final = 40
_PAGING: Final = {"cursor", "limit", "wait"}
_Key: TypeAlias = tuple[str | None, str]


@dataclass
class _Window:
    """Ten minutes of one credential and operation. `pairs`: every condition used, in order."""

    begun: float
    call: Call | None = None
    readings: int = 0
    count: int = 0
    pairs: dict[tuple[str, str], None] = field(default_factory=dict)

    def add(self, call: Call, pairs: tuple[tuple[str, str], ...], count: int) -> None:
        self.call = call
        self.readings += 1
        self.count += count
        for pair in pairs[: _MOST_PAIRS - len(self.pairs)]:
            self.pairs[pair] = None

    def fact(self, operation: str) -> AuditRead:
        """What it held, as one fact; `readings` says how many there were, if several."""
        pairs = sorted(self.pairs)
        if self.readings > 1:
            pairs.append(("readings", str(self.readings)))
        return AuditRead(operation=operation, filter=tuple(pairs), count=self.count)


@dataclass
class Readings:
    """`record` appends a fact as a note; `seconds` gives monotonic time."""

    record: Callable[[Call, Fact], object]
    seconds: Callable[[], float]
    _windows: OrderedDict[_Key, _Window] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(
        self, call: Call, operation: str, filters: BaseModel | None, count: int, **more: str
    ) -> None:
        """Count that `count` entries were read. `more`: conditions that stood in the path."""
        shown = filters.model_dump(mode="json", exclude_none=True) if filters else {}
        named = {name: str(value) for name, value in shown.items() if name not in _PAGING} | more
        key, now = (call.actor.credential, operation), self.seconds()
        with self._lock:
            window = self._windows.get(key)
            first = window is None
            if window is None:
                window = self._windows[key] = _Window(now)
            window.add(call, tuple(named.items()), count)
            due = first or now - window.begun >= _QUIET
            full = len(self._windows) > _MOST
            ended = [self._taken(key, now)] if due else []
            if full:
                oldest = next(iter(self._windows))
                ended.append((oldest, self._windows.pop(oldest)))
        self._write(ended)

    def flush(self, *, everything: bool = False) -> None:
        """Record what was held back for ten minutes; all of it, when the service ends."""
        now = self.seconds()
        with self._lock:
            over = [
                key
                for key, window in self._windows.items()
                if everything or now - window.begun >= _QUIET
            ]
            ended = [(key, self._windows.pop(key)) for key in over]
            for key, window in ended:
                if window.readings and not everything:
                    # Recorded now, so for ten minutes from now it is enough.
                    self._windows[key] = _Window(now)
        self._write(ended)

    def _taken(self, key: _Key, now: float) -> tuple[_Key, _Window]:
        window = self._windows.pop(key)
        self._windows[key] = _Window(now)
        return key, window

    def _write(self, ended: list[tuple[_Key, _Window]]) -> None:
        for (_, operation), window in ended:
            if window.call is None or not window.readings:
                continue
            try:
                self.record(window.call, window.fact(operation))
            except LedgerError as error:
                # The others would fail likewise, one wait after the other.
                _logger.warning("reading not recorded", operation=operation, code=error.code)
                return
