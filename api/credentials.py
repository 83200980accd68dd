"""Finds whose bearer credentials are presented: one question to the tables for all who ask at once.

Whoever comes first asks for all who wait by then, as appends are committed (`ledger/sequencer.py`):
no answer is older than the request it is for. It remembers nothing, or a credential would still open
something after its revocation, and judges nothing; `api/auth.py` does.
"""

from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import TypeAlias

from ledger.database import storage_unavailable
from projections.operators import CredentialOfOperator

Look: TypeAlias = Callable[[Sequence[str]], Mapping[str, CredentialOfOperator]]
"""Accessors → what the tables say now of those that exist."""


class _Waiting:
    """One who asks, and the lock its thread sleeps on."""

    __slots__ = ("accessor", "found", "settled", "wake")

    def __init__(self, accessor: str) -> None:
        self.accessor = accessor
        self.found: Mapping[str, CredentialOfOperator] | None = None  # None: nobody could look
        self.settled = False
        self.wake = Lock()
        self.wake.acquire()


class Credentials:
    """Any number of threads may ask; one of them looks at a time."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._mutex = Lock()
        self._waiting: list[_Waiting] = []
        self._led = False

    def find(self, accessor: str) -> CredentialOfOperator | None:
        """The credential of this accessor with its operator, None if there is none.

        Raises:
            UnavailableError: `storage-unavailable`. Whoever looked gets the failure itself.
        """
        own = _Waiting(accessor)
        with self._mutex:
            self._waiting.append(own)
            leads, self._led = not self._led, True
        if not leads:
            own.wake.acquire()
        if not own.settled:
            self._lead()
        if own.found is None:
            raise storage_unavailable()
        return own.found.get(accessor)

    def _lead(self) -> None:
        """Look for all who wait, ourselves among them; then hand on the lead."""
        with self._mutex:
            batch, self._waiting = self._waiting, []
        found = None
        try:
            found = self._look(list({one.accessor for one in batch}))
        finally:
            for one in batch:
                one.found, one.settled = found, True
            with self._mutex:
                self._led = bool(self._waiting)
                if self._led:
                    self._waiting[0].wake.release()
            for one in batch:
                one.wake.release()
