"""States that many commands read and few change, kept so that they need not be folded each time.

It loads nothing, and what it holds may have moved on meanwhile: a decision on it stands only if the
append finds that nothing has (`Store.decide`). Without it every command would fold its caller, its
peer and the policy again.
"""

from collections import OrderedDict
from threading import Lock
from typing import Final
from uuid import UUID

MOST: Final = 1000
"""States kept; one has a few KiB at most. Then the one unused for longest is forgotten."""


class Remembered:
    """Folded states by the id of their stream. Thread-safe."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._states: OrderedDict[UUID, object] = OrderedDict()
        self._lock = Lock()

    def get(self, stream_id: UUID) -> object | None:
        """The state kept last for this stream, None if there is none."""
        with self._lock:
            state = self._states.get(stream_id)
            if state is not None:
                self._states.move_to_end(stream_id)
            return state

    def keep(self, stream_id: UUID, state: object) -> None:
        """Keep the state of a stream instead of the one before."""
        with self._lock:
            if self._states.get(stream_id) is state:
                return  # a command read it and left it as it was: whoever got it has used it
            self._states[stream_id] = state
            self._states.move_to_end(stream_id)
            if len(self._states) > self._most:
                self._states.popitem(last=False)
