"""Writes down that somebody on this machine read the events without the service: once per command.

As with every reading, one that cannot be recorded is a reading all the same. It refuses nobody.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from api.wiring import open_ledger, system_clock
from ledger.errors import LedgerError
from ledger.events import Actor, AuditRead
from ledger.store import Call

Tell = Callable[[str, int, int], object]

_REASON: Final = "read on the machine itself"


@dataclass
class Tally:
    """Counts what is read; passes on how far it is."""

    tell: Tell
    count: int = 0

    def __call__(self, what: str, done: int, total: int) -> None:
        self.count = max(self.count, done)
        self.tell(what, done, total)


@contextmanager
def recorded(
    dsn: str,
    operation: str,
    conditions: Mapping[str, object],
    tell: Tell,
    warn: Callable[[str], object],
) -> Iterator[Tally]:
    """Record what the block reads, also if it is cut off: by whom, what was asked for, how many events.

    `dsn`: the service role's. `conditions`: those that are None or empty are left out. `warn` is told
    if it could not be recorded.
    """
    tally = Tally(tell)
    try:
        yield tally
    finally:
        if tally.count:
            pairs = sorted((name, str(value)) for name, value in conditions.items() if value)
            fact = AuditRead(operation=operation, filter=tuple(pairs), count=tally.count)
            actor = Actor(kind="local", id=f"uid:{os.getuid()}", auth="local")
            call = Call(actor=actor, correlation_id=str(uuid4()), reason=_REASON)
            try:
                with closing(open_ledger(dsn, system_clock)) as ledger:
                    ledger.note(call, fact)
            except LedgerError as error:
                warn(f"this reading could not be recorded: {error.detail}")
