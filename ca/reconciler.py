"""Finishes what was begun and interrupted: issuances, revocations, rotations, expiry on record.

One at a time across all processes of a ledger; it may be killed anywhere and run again. It decides
nothing: the rules do, each time anew. Nothing depends on it for safety: an open issuance delivers
nothing, a revoked peer's grants and an expired grant are so by derivation before they are on record.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar
from uuid import UUID, uuid4

import psycopg
from psycopg import Connection

from ca.issuance import IssuanceCycle
from ca.retirement import retire_superseded
from ca.telling import Telling
from ledger.application import Ledger
from ledger.commands import policy_in
from ledger.database import conninfo
from ledger.errors import GoneError, MisIssuedError, RefusedError, UnavailableError
from ledger.events import Actor
from ledger.grant_state import TERMINAL, Grant
from ledger.grant_status import effective_status
from ledger.issuance import SHORTEST_LIFE
from ledger.peers import Peer
from ledger.reading import Call, Reading
from projections import certificates, grants
from projections.certificates import CertificateRow

PATIENCE: Final = timedelta(seconds=60)
"""How long an issuance may be open before somebody else than its caller drives it on."""

_LOCK: Final = int.from_bytes(
    hashlib.sha256(b"fedledger.reconciler").digest()[:8], "big", signed=True
)
_BATCH: Final = 500
_ACTOR: Final = Actor(kind="system", id="reconciler", auth="system")
_logger: Final = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Report:
    """What one run did. `ran` False: another process holds the lock, and works.

    `done` counts: issued, withheld, mis-issued, failed, abandoned (issuances closed), left-open
    (the authority does not answer), peers (revocations finished), expired (grants), retired
    (authorities), told-… (revocations, by the authority's answer), errors.
    """

    ran: bool
    done: Counter[str] = field(default_factory=Counter)


class Reconciler:
    """`run_once` is called now and then in every process; one of them at a time does anything."""

    def __init__(
        self,
        ledger: Ledger,
        cycle: IssuanceCycle,
        read: Callable[[], AbstractContextManager[Connection[Any]]],
        dsn: str,
    ) -> None:
        """`read` opens a connection for one look at the tables; `dsn`: the service role's."""
        self._ledger = ledger
        self._cycle = cycle
        self._read = read
        self._dsn = dsn
        self._telling = Telling(ledger, cycle.signers, read)

    def run_once(self, now: datetime) -> Report:
        """Do whatever is due at `now`, unless another process is doing so already.

        Raises:
            LedgerError, psycopg.Error: the database cannot be asked what is due.
        """
        self._cycle.rejections.flush()  # this process's own, so before the lock is asked for
        with psycopg.connect(conninfo(self._dsn), autocommit=True) as connection:
            # Held by the session: it ends with this process, however that ends.
            locked = connection.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK]).fetchone()
            if locked is None or not locked[0]:
                return Report(ran=False)
            report = Report(ran=True)
            self._finish_issuances(now, report)
            self._finish_revocations(report)
            self._record_expiries(now, report)
            self._retire_authorities(report)
            self._tell_authorities(now, report)
            return report

    def _finish_issuances(self, now: datetime, report: Report) -> None:
        with self._read() as connection:
            rows = certificates.open_since(connection, now - PATIENCE)
        silent: set[UUID] = set()  # authorities that do not answer: asked once in a run

        def finish(row: CertificateRow) -> None:
            hopeless = self._hopeless(row, now)
            if hopeless is not None:
                self._cycle.abandon(_call(), row.grant_id, row.issuance_id, hopeless)
                report.done["abandoned"] += 1
            elif row.authority_id in silent:
                report.done["left-open"] += 1
            else:
                ended = self._drive(row)
                report.done[ended] += 1
                if ended == "left-open":
                    silent.add(row.authority_id)

        self._each("issuance", rows, finish, report)

    def _hopeless(self, row: CertificateRow, now: datetime) -> str | None:
        """Why the issuance can never deliver anything, None while it can."""
        if row.not_after - now < SHORTEST_LIFE:
            return "validity-nearly-over"
        if row.revoked_at is not None:
            return "revoked-in-flight"

        def ended(reading: Reading) -> bool:
            grant = reading.state(Grant, row.grant_id)
            peer = reading.state(Peer, grant.peer_id)
            return effective_status(grant, peer, policy_in(reading), reading.at) in TERMINAL

        return "grant-ended" if self._ledger.decide(_call(), ended).value else None

    def _drive(self, row: CertificateRow) -> str:
        try:
            self._cycle.drive(_call(), row.grant_id, row.issuance_id)
        except MisIssuedError:
            return "mis-issued"
        except (GoneError, RefusedError):
            return "withheld"
        except UnavailableError as error:
            if error.code == "issuance-failed":
                return "failed"
            if error.code == "authority-unavailable":
                return "left-open"
            raise
        return "issued"

    def _finish_revocations(self, report: Report) -> None:
        with self._read() as connection:
            peers = grants.peers_with_unfinished_revocation(connection)

        def finish(peer_id: UUID) -> None:
            self._ledger.finish_peer_revocation(_call(), peer_id, self._live_grants)
            report.done["peers"] += 1

        self._each("peer", peers, finish, report)

    def _live_grants(self, peer_id: UUID) -> list[UUID]:
        with self._read() as connection:
            return grants.live_of_peer(connection, peer_id)

    def _record_expiries(self, now: datetime, report: Report) -> None:
        with self._read() as connection:
            due = grants.ended_by_the_clock(connection, now, _BATCH)

        def expire(grant_id: UUID) -> None:
            if self._ledger.expire_grant(_call(), grant_id).events:
                report.done["expired"] += 1

        self._each("grant", due, expire, report)

    def _retire_authorities(self, report: Report) -> None:
        try:
            done = retire_superseded(self._ledger, self._cycle.signers, self._read, _call)
        except UnavailableError as error:
            # Without the successor's key here the old one is all that this process can sign with.
            _logger.warning("reconciler: no authority retired: %s", error.code)
        else:
            if done.retired:
                report.done["retired"] += len(done.retired)

    def _tell_authorities(self, now: datetime, report: Report) -> None:
        for answer, count in self._telling.tell(now, _call).items():
            report.done[f"told-{answer}"] += count

    def _each(
        self, what: str, things: Iterable[T], act: Callable[[T], None], report: Report
    ) -> None:
        """Act on each; one that cannot be finished must not keep the others from it."""
        for thing in things:
            try:
                act(thing)
            except Exception as error:
                report.done["errors"] += 1
                _logger.exception("reconciler: %s not finished: %s", what, type(error).__name__)


def _call() -> Call:
    return Call(actor=_ACTOR, correlation_id=f"reconciler-{uuid4()}")
