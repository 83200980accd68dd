"""Writes down that somebody read the audit trail: once per credential, operation and ten minutes.

It refuses nobody and wakes nobody: a reading that cannot be recorded is still a reading, and an
auditor must be able to look just when nothing can be written any more.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog
from pydantic import BaseModel

from ledger.errors import LedgerError
from ledger.events import AuditRead, Fact
from ledger.store import Call

_logger: Final = structlog.get_logger("fedledger.readings")
_QUIET: Final = 600.0  # seconds
_MOST: Final = 10_000


@dataclass
class Readings:
    """`record` appends a fact as a note; `seconds` gives monotonic time."""

    record: Callable[[Call, Fact], object]
    seconds: Callable[[], float]
    _seen: OrderedDict[tuple[str | None, str], float] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, call: Call, operation: str, filters: BaseModel | None, count: int) -> None:
        """Record that `count` entries were read, unless this credential did the same lately."""
        key, now = (call.actor.credential, operation), self.seconds()
        with self._lock:
            if now - self._seen.get(key, -_QUIET) < _QUIET:
                return
            self._seen[key] = now
            self._seen.move_to_end(key)
            if len(self._seen) > _MOST:
                self._seen.popitem(last=False)
        shown = filters.model_dump(mode="json", exclude_none=True) if filters else {}
        pairs = tuple(sorted((name, str(value)) for name, value in shown.items()))
        try:
            self.record(call, AuditRead(operation=operation, filter=pairs, count=count))
        except LedgerError as error:
            _logger.warning("reading not recorded", operation=operation, code=error.code)
