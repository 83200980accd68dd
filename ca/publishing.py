"""Publishes certificate revocation lists: which serials are on one, its number, and when it is due.

A list is stored nowhere. `crl.published` fixes its number (the event's position) and its times;
what is on it follows from the events up to that position, folded anew, and signing is
deterministic: any process, at any later time, gives the same bytes. Nothing here decides whether a
certificate is good: `ledger.issuance.revocation_of` does.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final, TypeVar
from uuid import UUID, uuid4

from psycopg import Connection

from ca.crl import RevocationList, Revoked, SignsLists
from ca.signers import Signers
from ledger.application import Ledger
from ledger.errors import NotFoundError, StaleError, UnavailableError
from ledger.events import Actor, CrlPublished
from ledger.grant_state import Grant
from ledger.issuance import revocation_of
from ledger.peers import Peer
from ledger.reading import Call
from ledger.record import VersionAt
from ledger.recorded import RecordedEvent
from projections import authorities, certificates
from projections.authorities import AuthorityRow

S = TypeVar("S")

LIFE: Final = timedelta(hours=24)
"""From a list's thisUpdate to its nextUpdate. A new one comes at half of it, or with a change."""

UNLISTED: Final = timedelta(minutes=1)
"""A revocation that is older is on the last list, where a service runs: a round takes ten seconds."""

TAKES_AWAY: Final = (
    "certificate.revoked.v1",
    "grant.rejected.v1",
    "grant.revoked.v1",
    "grant.suspended.v1",
    "issuance.abandoned.v1",
    "issuance.failed.v1",
    "peer.revoked.v1",
    "peer.suspended.v1",
)
"""Without one of these in its grant's or peer's stream, no certificate counts as revoked."""

_ACTOR: Final = Actor(kind="system", id="publisher", auth="system")
_RETRY_AFTER: Final = 10  # seconds: a round of maintenance
_logger: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Published:
    """A published list: its number, when the next one comes at the latest, and its DER."""

    number: int
    next_update: datetime
    der: bytes


@dataclass(frozen=True, slots=True)
class Currency:
    """How far the list of one authority can be believed.

    next_update: when the last one ends; None if none was published. unlisted: how many certificates
    have counted as revoked for over a minute (`UNLISTED`) and are not on it. needed: whether a
    certificate of that authority has still to end.
    """

    authority_id: UUID
    next_update: datetime | None
    unlisted: int
    needed: bool


@dataclass(frozen=True, slots=True)
class _Entry:
    revoked: Revoked
    not_after: datetime


class RevocationLists:
    """The lists of the authorities whose key is here. Thread-safe."""

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
        self._made: dict[UUID, Published] = {}
        self._looked: dict[UUID, int] = {}  # authority → the head when its list was compared last

    def latest(self, authority_id: UUID | None = None) -> Published:
        """Return the list published last by an authority; by the one that issues now if None.

        Raises:
            NotFoundError: `crl-by-authority`: that authority publishes its own, or nowhere;
                `not-found`: it is unknown, or has no list yet.
            UnavailableError: `authority-unavailable`: its key is not here.
        """
        row = self._row(authority_id)
        signer = self._signer(row)
        last = self._last(row.id)
        if last is None:
            raise NotFoundError("no list was published yet; a running service does so in seconds")
        known = self._made.get(row.id)
        if known is None or known.number != last.position:
            known = self._made[row.id] = self._make(row, signer, last)
        return known

    def publish_due(self, now: datetime) -> int:
        """Publish for each authority whose list is missing, half over, or not true any more.

        Returns how many. Of several processes at once one publishes.

        Raises:
            LedgerError, psycopg.Error: the database cannot be asked or written.
        """
        with self._read() as connection:
            rows = [
                row
                for row in authorities.everything(connection)
                if row.retired_at is None or _outlived(connection, row, now)
            ]
        here = [row for row in rows if isinstance(self._signers.find(row.id), SignsLists)]
        return sum(self._publish(row, now) for row in here)

    def currency(self, now: datetime) -> list[Currency]:
        """How current the last list of each authority is that publishes here; no key is needed.

        Raises:
            LedgerError, psycopg.Error: the database cannot be asked.
        """
        with self._read() as connection:
            living = {
                row.id: _outlived(connection, row, now)
                for row in authorities.everything(connection)
                if row.kind == "local"
                and (row.retired_at is None or _outlived(connection, row, now))
            }
        return [self._currency(one, now, needed=needed) for one, needed in living.items()]

    def _currency(self, authority_id: UUID, now: datetime, *, needed: bool) -> Currency:
        last = self._last(authority_id)
        head = self._ledger.record.head().size
        overdue = {
            one.revoked.serial
            for one in self._entries(authority_id, head, now)
            if one.revoked.since <= now - UNLISTED
        }
        if last is None:
            return Currency(authority_id, None, len(overdue), needed)
        begin, end = _times(last)
        if overdue:  # else nothing can be missing, and the list need not be folded
            listed = self._entries(authority_id, last.position, begin)
            overdue -= {one.revoked.serial for one in listed}
        return Currency(authority_id, end, len(overdue), needed)

    def _publish(self, row: AuthorityRow, now: datetime) -> bool:
        """Publish a list of `row` if one is due; say whether."""
        head = self._ledger.record.head().size
        last = self._last(row.id)
        over = last is None or now >= _times(last)[0] + LIFE / 2
        if not over and self._looked.get(row.id) == head:
            return False
        entries = self._entries(row.id, head, now)
        if last is not None and not over and self._is_true(row.id, last, entries, now):
            self._looked[row.id] = head
            return False
        begin = now.replace(microsecond=0)
        call = Call(
            actor=_ACTOR, correlation_id=f"publisher-{uuid4()}", expected_version=row.version
        )
        try:
            self._ledger.publish_crl(call, row.id, begin, begin + LIFE, len(entries))
        except StaleError:
            return False  # another process was faster; the next round looks at what it published
        _logger.info("revocation list published: %d entries", len(entries))
        return True

    def _is_true(
        self, authority_id: UUID, last: RecordedEvent, entries: list[_Entry], now: datetime
    ) -> bool:
        """Whether the list published last says the same as `entries`, but for what has ended."""
        begin, _ = _times(last)
        before = self._entries(authority_id, last.position, begin)
        listed = {
            (one.revoked.serial, one.revoked.reason) for one in before if one.not_after >= now
        }
        return listed == {(one.revoked.serial, one.revoked.reason) for one in entries}

    def _make(self, row: AuthorityRow, signer: SignsLists, last: RecordedEvent) -> Published:
        begin, end = _times(last)
        entries = sorted(
            (one.revoked for one in self._entries(row.id, last.position, begin)),
            key=lambda one: one.serial,
        )
        wanted = RevocationList(last.position, begin, end, tuple(entries))
        return Published(last.position, end, signer.sign_list(wanted))

    def _entries(self, authority_id: UUID, position: int, at: datetime) -> list[_Entry]:
        """What counts as revoked at `at` by the events up to `position` and has not ended then."""
        with self._read() as connection:
            living = certificates.grants_with_living(connection, authority_id, at)
        record = self._ledger.record
        grants = record.versions_at({grant for grant, _ in living}, TAKES_AWAY, position)
        peers = record.versions_at({peer for _, peer in living}, TAKES_AWAY, position)

        @cache
        def peer_then(peer_id: UUID) -> Peer:
            return self._then(Peer, peer_id, peers)

        return [
            entry
            for grant_id, peer_id in living
            if grant_id in grants and (grants[grant_id].holds or peers[peer_id].holds)
            for entry in _of_grant(
                self._then(Grant, grant_id, grants), peer_then(peer_id), authority_id, at
            )
        ]

    def _then(self, kind: type[S], stream_id: UUID, versions: Mapping[UUID, VersionAt]) -> S:
        state = self._ledger.load(kind, stream_id, version=versions[stream_id].version)
        if state is None:
            raise AssertionError("what was recorded is never gone")
        return state

    def _row(self, authority_id: UUID | None) -> AuthorityRow:
        with self._read() as connection:
            rows = authorities.everything(connection)
        if authority_id is None:
            # Whether its key is here is asked below: who asks the wrong machine must hear so.
            found = next((row for row in reversed(rows) if row.retired_at is None), None)
        else:
            found = next((row for row in rows if row.id == authority_id), None)
        if found is None:
            raise NotFoundError("there is no such authority")
        return found

    def _signer(self, row: AuthorityRow) -> SignsLists:
        signer: object = self._signers.find(row.id)
        if isinstance(signer, SignsLists):
            return signer
        if row.kind != "local":
            raise NotFoundError(
                "this authority signs elsewhere, so the ledger publishes no list for it; ask for "
                "the certificate's status, or for the decision",
                code="crl-by-authority",
            )
        raise UnavailableError(
            "the key of this authority is not here: ask the service that has its folder",
            code="authority-unavailable",
            retry_after=_RETRY_AFTER,
        )

    def _last(self, authority_id: UUID) -> RecordedEvent | None:
        return self._ledger.record.last_of(authority_id, CrlPublished.TOPIC)


def _of_grant(grant: Grant, peer: Peer, authority_id: UUID, at: datetime) -> Iterator[_Entry]:
    for issuance in grant.issuances.values():
        if issuance.authorization.authority_id != authority_id or issuance.not_after < at:
            continue
        found = revocation_of(issuance, grant, peer, at)
        if found is not None:
            yield _Entry(Revoked(issuance.serial, found.at, found.reason), issuance.not_after)


def _outlived(connection: Connection[Any], row: AuthorityRow, now: datetime) -> bool:
    """Whether a certificate of a retired authority is still to end."""
    end = certificates.last_end(connection, row.id)
    return end is not None and end >= now


def _times(published: RecordedEvent) -> tuple[datetime, datetime]:
    fact = published.event.data
    if not isinstance(fact, CrlPublished):
        raise TypeError("this event publishes no list")
    return fact.this_update, fact.next_update
