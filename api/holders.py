"""Which peer a presented client certificate is of, decided from our own record.

It trusts no chain: known are the very bytes that were issued here and checked then, and whether
they are good now is the folded streams' word. It refuses nobody itself (`api/auth.py`).
"""

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from psycopg import Connection

from api.client_certificates import Form, read
from ca.der import DerError, check_outline, children
from ledger.application import Ledger
from ledger.certificates import standing_of
from ledger.grant_state import Grant
from ledger.peers import Peer
from projections import certificates

_MOST_DEPTH: Final = 16
_MOST_ELEMENTS: Final = 500


@dataclass(frozen=True, slots=True)
class Holder:
    """A peer that presented its certificate. `on_hold`: its grant or the peer itself is suspended."""

    peer_id: UUID
    serial: str
    on_hold: bool


@dataclass(frozen=True, slots=True)
class Holders:
    """Finds the holder of a certificate. `read` opens a connection for one look at the tables."""

    ledger: Ledger
    read: Callable[[], AbstractContextManager[Connection[Any]]]
    form: Form

    def find(self, text: str, at: datetime) -> Holder | None:
        """The holder of the certificate in a header's text; None if at `at` it opens nothing.

        Raises:
            LedgerError, psycopg.Error: the database cannot be asked.
        """
        der = read(self.form, text)
        tbs = _tbs_sha256(der) if der is not None else None
        if der is None or tbs is None:
            return None
        with self.read() as connection:
            row = certificates.by_tbs_sha256(connection, tbs)
        grant = self.ledger.load(Grant, row.grant_id) if row else None
        peer = self.ledger.load(Peer, grant.peer_id) if grant else None
        if row is None or grant is None or peer is None:
            return None
        standing = standing_of(grant, peer, row.serial, hashlib.sha256(der).hexdigest(), at)
        return Holder(peer.id, row.serial, standing == "on-hold") if standing else None


def _tbs_sha256(der: bytes) -> str | None:
    """The digest by which certificates are known; None if it cannot be one."""
    try:
        check_outline(der, max_depth=_MOST_DEPTH, max_elements=_MOST_ELEMENTS)
        parts = children(der)
    except DerError:
        return None
    return hashlib.sha256(parts[0].der).hexdigest() if parts else None
