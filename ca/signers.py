"""Which authorities can sign here, and which of them gets the next order.

It signs nothing and adopts nothing. An issuance that is open stays with the authority it was
authorized for, whatever is current by now.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol
from uuid import UUID

from psycopg import Connection

from ca.authority import Authority
from ledger.errors import UnavailableError
from projections import authorities
from projections.authorities import AuthorityRow

_logger: Final = logging.getLogger(__name__)
_RETRY_AFTER: Final = 60  # seconds: somebody has to put a key in its place


class Signers(Protocol):
    """The authorities of this process. Thread-safe."""

    def current(self) -> UUID:
        """The authority that new orders go to.

        Raises:
            UnavailableError: authority-unavailable.
        """

    def find(self, authority_id: UUID) -> Authority | None:
        """The authority of this id, None if its key is not here."""

    def close(self) -> None:
        """Close what the authorities keep open for the next call."""


class Fixed:
    """Chosen once: the first gets new orders, the others finish theirs."""

    def __init__(self, signers: Sequence[Authority]) -> None:
        self._signers = {UUID(signer.id): signer for signer in signers}

    def current(self) -> UUID:
        return next(iter(self._signers))

    def find(self, authority_id: UUID) -> Authority | None:
        return self._signers.get(authority_id)

    def close(self) -> None:
        for signer in self._signers.values():
            signer.close()


class Adopted:
    """Those of a place that the ledger has adopted; the one adopted last gets new orders.

    The table is asked for each order, so that a rotation needs no restart: the first order after
    the adoption goes to the new authority. The rules fold its stream before anything is appended.
    """

    def __init__(
        self,
        read: Callable[[], AbstractContextManager[Connection[Any]]],
        look: Callable[[], Iterable[Authority]],
    ) -> None:
        """`look` opens every authority whose key is here; asked when an unknown one is needed."""
        self._read = read
        self._look = look
        self._known: dict[UUID, Authority] = {}

    def current(self) -> UUID:
        with self._read() as connection:
            rows = authorities.everything(connection)
        for row in reversed(rows):
            if row.retired_at is None and self._is_here(row):
                return row.id
        raise UnavailableError(
            "the key of the authority that this ledger issues with is not here: put its folder "
            "into the home of this service",
            code="authority-unavailable",
            retry_after=_RETRY_AFTER,
        )

    def find(self, authority_id: UUID) -> Authority | None:
        if authority_id not in self._known:
            # Replaced whole: another thread may be reading it.
            before, self._known = self._known, {UUID(one.id): one for one in self._look()}
            for signer in before.values():
                signer.close()
        return self._known.get(authority_id)

    def close(self) -> None:
        for signer in self._known.values():
            signer.close()

    def _is_here(self, row: AuthorityRow) -> bool:
        signer = self.find(row.id)
        if signer is None:
            return False
        if signer.chain() != row.chain:
            # Whatever it signed would be taken for mis-issued: one step too late.
            _logger.error("authority %s: another chain here than on record", row.id)
            return False
        return True
