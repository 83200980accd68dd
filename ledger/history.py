"""Notices when the database has lost history: put back behind what this process has seen of it.

A restored backup or a failover to a standby that lagged looks like contention to a compare-and-swap.
Appending on would give positions twice. It reads no table; once lost, it stays lost until a person
has looked and started the process again.
"""

import logging
from threading import Lock
from typing import Final, NamedTuple, NoReturn

from ledger.errors import UnavailableError

_logger: Final = logging.getLogger(__name__)


class Anchor(NamedTuple):
    """A leaf this process wrote and knows to be committed. Position 0: none yet."""

    position: int
    leaf: bytes


NO_ANCHOR: Final = Anchor(0, b"")


class History:
    """What this process has seen of the ledger. Safe to use from several threads."""

    def __init__(self) -> None:
        self._mutex = Lock()
        self.seen = 0
        self.anchor = NO_ANCHOR
        self._edge = (0, b"")  # the size and right edge of the last head known
        self.lost: str | None = None

    def refuse_if_lost(self) -> None:
        """Raises UnavailableError (`lost-history`) once history was lost."""
        if self.lost is not None:
            raise _lost_history()

    def saw(self, size: int, seen_before: int) -> None:
        """Take note of a head. `seen_before`: `seen`, taken before the head was asked for.

        Raises:
            UnavailableError: `lost-history`.
        """
        if size < seen_before:
            self.declare_lost(f"the head says {size} events, it has said {seen_before} before")
        with self._mutex:
            self.seen = max(self.seen, size)

    def wrote(self, anchor: Anchor) -> None:
        """Take note of the last leaf of a commit."""
        with self._mutex:
            self.anchor = anchor
            self.seen = max(self.seen, anchor.position)

    def check_anchor(self, anchor: Anchor, leaf: bytes | None) -> None:
        """Compare what stands at an anchor's position. Raises UnavailableError (`lost-history`)."""
        if anchor.position and leaf != anchor.leaf:
            self.declare_lost(f"position {anchor.position} holds another event than was written")

    def knows(self, size: int, edge: bytes) -> None:
        """Take note of a head's right edge; two edges of one size are two histories.

        Raises:
            UnavailableError: `lost-history`.
        """
        with self._mutex:
            known, self._edge = self._edge, (size, edge)
        if known[0] == size and known[1] != edge:
            self.declare_lost(f"the {size} events are others than those known before")

    def declare_lost(self, reason: str) -> NoReturn:
        """Stop all writing for good, say so once. Raises UnavailableError (`lost-history`)."""
        with self._mutex:
            first, self.lost = self.lost is None, self.lost or reason
        if first:
            _logger.error("lost history, nothing is written any more: %s", reason)
        raise _lost_history()


def _lost_history() -> UnavailableError:
    return UnavailableError("the database has lost events", code="lost-history")
