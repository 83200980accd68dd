"""Tells authorities elsewhere which of their certificates the ledger has revoked.

It revokes nothing: that is on record and holds before anybody is told, and needs nobody's consent.
What an authority answers is recorded, once per serial and answer. A local authority is not told:
there is nobody to tell, and its answer would be an event per certificate that says nothing.
"""

import logging
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

from psycopg import Connection

from ca.authority import Authority, AuthorityRefused, AuthorityUnavailable
from ca.signers import Signers
from ledger.application import Ledger
from ledger.errors import LedgerError
from ledger.reading import Call
from projections import certificates
from projections.certificates import CertificateRow

REST: Final = timedelta(minutes=10)
"""How long an authority that refused is left alone: what it needs is a person."""

_BATCH: Final = 100  # a round has other work as well
_TIMEOUT: Final = 5.0  # seconds
_logger: Final = logging.getLogger(__name__)

Answer = Literal["confirmed", "already-revoked", "unsupported", "failed"]


class Telling:
    """`tell` is called in every round of the reconciler, and after a crash finds what is left."""

    def __init__(
        self,
        ledger: Ledger,
        signers: Signers,
        read: Callable[[], AbstractContextManager[Connection[Any]]],
    ) -> None:
        """`read` opens a connection for one look at the tables."""
        self._ledger = ledger
        self._signers = signers
        self._read = read
        self._resting: dict[UUID, datetime] = {}  # authority → until when

    def tell(self, now: datetime, call: Callable[[], Call]) -> Counter[str]:
        """Tell whatever is not told at `now`; return how often each answer was recorded.

        A certificate that has ended is not worth a word, nor is a hold, which may be lifted here
        and there never. An authority that does not answer is asked once.
        """
        done: Counter[str] = Counter()
        silent: set[UUID] = set()
        with self._read() as connection:
            rows = certificates.untold(connection, now, _BATCH)
        for row in rows:
            signer = self._signers.find(row.authority_id)
            rests = self._resting.get(row.authority_id, now) > now
            if signer is None or rests or row.authority_id in silent:
                continue  # None: another machine has what it takes to ask it
            try:
                answer, status = _asked(signer, row)
            except AuthorityUnavailable as error:
                silent.add(row.authority_id)
                _logger.warning("authority %s not told: %s", row.authority_id, error.detail)
                continue
            if answer == "failed":
                self._resting[row.authority_id] = now + REST
            self._record(call(), row, answer, status)
            done[answer] += 1
        return done

    def _record(self, call: Call, row: CertificateRow, answer: Answer, status: int | None) -> None:
        try:
            self._ledger.tell_authority(call, row.grant_id, row.serial, answer, status)
        except LedgerError as error:
            # The next round asks again, and gets "already revoked".
            _logger.warning("serial %s: %s", row.serial, error.code)


def _asked(signer: Authority, row: CertificateRow) -> tuple[Answer, int | None]:
    # A serial that failed or was abandoned may have been signed all the same.
    reason = row.revocation_reason or "cessationOfOperation"
    try:
        return signer.revoke(row.serial, reason, timeout=_TIMEOUT).value, None
    except AuthorityRefused as error:
        _logger.error("authority %s refuses a revocation: %s", row.authority_id, error.detail)
        return "failed", error.status
