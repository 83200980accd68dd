"""The issuance cycle: from a token or a certificate, and a CSR, to a certificate on record.

Numbered as in SPEC §5, here and in the documentation:

1. authorize: one append, decided from folded streams, before any authority hears of it
2. sign: the authority is asked, outside any transaction, with a time limit
3. check: what came back is compared with the authorization, field by field
4. record: one append decides anew whether the certificate may be delivered
5. whatever stops between 1 and 4 stays open: `ca/reconciler.py`, or the peer's retry, drives it on
6. the same token with the same CSR gets the same certificate; another CSR gets the one 401
7. renewal: a current certificate and a new key, then the same steps

It holds no rule (`ledger/enrollment.py`, `certificates.py`, `issuance.py`) and no SQL. No path
leaves a valid certificate that the ledger does not know: the serial is on record before 2, and an
issuance that closes without its certificate makes that serial count as revoked.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, Final, Literal, TypeVar
from uuid import UUID

from psycopg import Connection

from ca.authority import Authority, AuthorityRefused, AuthorityUnavailable
from ca.authorization import Authorizations, read_request
from ca.closings import MIS_ISSUED, Close, Wrong, append_closing, as_ordered, mismatched, refused
from ca.orders import signing_order
from ca.profile import DEFAULT_ARC, check_certificate
from ca.recognition import Recognition
from ca.rejections import Attempt, Rejections, log_alarm
from ca.signers import Fixed, Signers
from ledger import authorities, issuance
from ledger.application import Ledger
from ledger.errors import (
    GoneError,
    InvalidError,
    LedgerError,
    NotFoundError,
    RefusedError,
    UnauthorizedError,
    UnavailableError,
)
from ledger.events import Actor
from ledger.grant_state import Grant, Issuance
from ledger.issuance import Closed
from ledger.peers import Peer
from ledger.reading import Call, Reading
from projections import certificates

Step = Literal["1-authorized", "2-signed", "3-checked", "4-recorded"]
Read = Callable[[], AbstractContextManager[Connection[Any]]]
Seen = Mapping[UUID, object]
S = TypeVar("S")

RETRY_AFTER: Final = 10
"""Seconds until it is worth asking an authority again that could not be asked."""


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A certificate that may be delivered, in DER. `chain`: the issuing one first, the root last.

    `replayed`: it was on record before this call.
    """

    certificate: bytes
    chain: tuple[bytes, ...]
    grant_id: UUID
    issuance_id: UUID
    serial: str
    not_before: datetime
    not_after: datetime
    replayed: bool


class IssuanceCycle:
    """Redeems, renews, and drives issuances on. Thread-safe; any number of processes may do so."""

    def __init__(
        self,
        ledger: Ledger,
        signers: Signers | Sequence[Authority],
        read: Read,
        *,
        randomness: Callable[[int], bytes] = secrets.token_bytes,
        arc: str = DEFAULT_ARC,
        sign_timeout: float = 10.0,
        at_step: Callable[[Step], None] | None = None,
    ) -> None:
        """`signers`: adopted in the ledger; of a sequence the first gets all new orders.

        `read` opens a connection for one look at the tables. `sign_timeout`: seconds. `at_step` is
        called after each step, for tests that stop the cycle there.
        """
        self._ledger = ledger
        self.signers: Signers = Fixed(signers) if isinstance(signers, Sequence) else signers
        self._read = read
        self._sign_timeout = sign_timeout
        self._at_step = at_step or _carry_on
        self._authorizations = Authorizations(ledger, self.signers.current, randomness, arc)
        self.rejections = Rejections(ledger, read)
        self._recognition = Recognition(ledger, read, self.rejections)

    def redeem(self, call: Call, token_text: str, csr: bytes | str) -> Enrolled:
        """Redeem an enrollment token with a CSR, PEM or DER: steps 1 to 4, and 6.

        `call.actor` says where the call comes from; who it is follows from the token. Token and CSR
        are the idempotency key: one of the call's own is not used.

        Raises:
            UnauthorizedError: whatever is wrong with the token, with one and the same text.
            InvalidError: `csr-…`, to holders of the secret only.
            RefusedError: `key-taken`, and the codes of `enrollment.redeem`.
            GoneError, MisIssuedError, UnavailableError: as `drive`.
        """
        call = _once(call)
        presented, grant = self._recognition.token(call, token_text)
        attempt = Attempt(accessor=presented.accessor, grant_id=grant.id)
        call = _from_peer(call, grant.peer_id, presented.accessor)
        request = self._recognition.request(call, attempt, grant, csr)
        try:
            started = self._authorizations.enroll(call, grant, presented, request)  # 1.
        except (UnauthorizedError, InvalidError, RefusedError, GoneError) as error:
            self._recognition.refuse(call, attempt.with_request(request), error)
        if started.new:
            self._at_step("1-authorized")
        return self._drive(call, grant.id, started.issuance_id, started.seen)

    def renew(self, call: Call, serial: str, csr: bytes | str) -> Enrolled:
        """Renew the certificate the caller authenticated with (step 7), with a CSR of a new key.

        Raises:
            NotFoundError: no such certificate, or not the caller's.
            InvalidError: `csr-…`.
            ForbiddenError: `clone-suspected`; the grant is suspended and an alarm raised.
            RefusedError: `key-taken`, and the codes of `certificates.renew`.
            GoneError, MisIssuedError, UnavailableError: as `drive`.
        """
        with self._read() as connection:
            row = certificates.by_serial(connection, serial)
        grant = self._ledger.load(Grant, row.grant_id) if row else None
        if grant is None or not _holds(call.actor, serial, grant):
            raise NotFoundError("there is no certificate of this serial")
        call, request = _once(call), read_request(csr)
        started = self._authorizations.renew(call, grant, serial, request)  # 1.
        if started.new:
            self._at_step("1-authorized")
        return self._drive(call, grant.id, started.issuance_id, started.seen)

    def drive(self, call: Call, grant_id: UUID, issuance_id: UUID) -> Enrolled:
        """Drive one issuance from wherever it stands to its end: steps 2 to 4.

        Any number may drive the same one: the authority is asked for the same certificate, one
        append closes it, and everybody answers with what that recorded.

        Raises:
            GoneError: `revoked-in-flight`, `certificate-revoked`: withheld for good.
            RefusedError: `grant-suspended`.
            MisIssuedError: the authority returned something else.
            UnavailableError: `authority-unavailable`: it stays open; `issuance-failed`: closed.
        """
        return self._drive(call, grant_id, issuance_id, {})

    def _drive(self, call: Call, grant_id: UUID, issuance_id: UUID, seen: Seen) -> Enrolled:
        """`seen`: states folded a moment ago; whatever is appended is refused if one has moved."""
        found = self._issuance(grant_id, issuance_id, seen)
        if not found.open:
            return self._recorded(call, grant_id, issuance_id)
        order = signing_order(found.authorization)
        signer, chain = self._signer(found, seen)
        closing = partial(self._close, call, grant_id, issuance_id, seen)
        try:
            der = signer.sign(order, timeout=self._sign_timeout)  # 2.
        except AuthorityUnavailable as error:
            raise _unavailable("the signing authority does not answer now") from error
        except AuthorityRefused as error:
            return closing(refused(issuance_id, error))
        self._at_step("2-signed")
        extra = signer.extra_extensions
        findings = check_certificate(der, order, chain, allowed_extra_oids=extra)  # 3.
        self._at_step("3-checked")
        if findings:
            wrong = Wrong(der, findings)
            return closing(mismatched(issuance_id, wrong), wrong)
        return closing(as_ordered(issuance_id, der))  # 4.

    def abandon(self, call: Call, grant_id: UUID, issuance_id: UUID, detail: str) -> None:
        """Close an issuance nobody can drive on (5.); its serial counts as revoked. Idempotent."""

        def decide(reading: Reading) -> None:
            outcome = issuance.abandon(reading.state(Grant, grant_id), issuance_id, detail)
            if isinstance(outcome, Closed):
                reading.append(Grant, grant_id, *outcome.facts)

        self._ledger.decide(call, decide)

    # ---- between the steps --------------------------------------------------------------------

    def _issuance(self, grant_id: UUID, issuance_id: UUID, seen: Seen) -> Issuance:
        grant = self._state(Grant, grant_id, seen)
        found = grant.issuances.get(issuance_id) if grant else None
        if found is None:
            raise NotFoundError("the grant has no such issuance")
        return found

    def _state(self, kind: type[S], stream_id: UUID, seen: Seen) -> S | None:
        state = seen.get(stream_id)
        return state if isinstance(state, kind) else self._ledger.load(kind, stream_id)

    def _signer(self, found: Issuance, seen: Seen) -> tuple[Authority, tuple[bytes, ...]]:
        """Who signs, and the chain on record that the result is checked against."""
        authority_id = found.authorization.authority_id
        signer = self.signers.find(authority_id)
        adopted = self._state(authorities.Authority, authority_id, seen)
        if signer is None or adopted is None:
            raise _unavailable("the signing authority of this issuance is not configured here")
        return signer, adopted.chain

    def _close(
        self,
        call: Call,
        grant_id: UUID,
        issuance_id: UUID,
        seen: Seen,
        close: Close,
        wrong: Wrong | None = None,
    ) -> Enrolled:
        """Append how it closes, unless somebody was first; answer with what is on record.

        `wrong`: what came back instead of the certificate; alarming whoever was first.
        """

        def decide(reading: Reading) -> LedgerError | None:
            return append_closing(reading, grant_id, issuance_id, close, wrong)

        recorded = self._ledger.decide(call, decide, seen=seen)
        if wrong is not None:
            log_alarm(MIS_ISSUED, str(issuance_id))
        self._at_step("4-recorded")
        if recorded.value is not None:
            raise recorded.value
        grant = recorded.used[grant_id]
        closed_here = any(event.originator_id == grant_id for event in recorded.events)
        if closed_here and isinstance(grant, Grant) and self._stand(recorded.used):
            return self._answer(grant_id, grant.issuances[issuance_id], seen, replayed=False)
        return self._recorded(call, grant_id, issuance_id, replayed=not closed_here)

    def _stand(self, used: Seen) -> bool:
        """Whether the grant and its peer are still as the last append left them."""
        used_here = [state for state in used.values() if isinstance(state, Grant | Peer)]
        return not self._ledger.record.moved({state.id: state.version for state in used_here})

    def _recorded(
        self, call: Call, grant_id: UUID, issuance_id: UUID, *, replayed: bool = True
    ) -> Enrolled:
        """Answer with the certificate on record, never with one's own."""

        def look(reading: Reading) -> Issuance:
            grant = reading.state(Grant, grant_id)
            peer = reading.state(Peer, grant.peer_id)
            return issuance.recorded(grant.issuances[issuance_id], grant, peer, reading.at)

        recorded = self._ledger.decide(call, look)
        return self._answer(grant_id, recorded.value, recorded.used, replayed=replayed)

    def _answer(self, grant_id: UUID, found: Issuance, seen: Seen, *, replayed: bool) -> Enrolled:
        adopted = self._state(authorities.Authority, found.authorization.authority_id, seen)
        if found.certificate is None or adopted is None:
            raise AssertionError("an issued certificate and its authority are on record")
        return Enrolled(
            certificate=found.certificate,
            chain=adopted.chain,
            grant_id=grant_id,
            issuance_id=found.id,
            serial=found.serial,
            not_before=found.not_before,
            not_after=found.not_after,
            replayed=replayed,
        )


def _carry_on(step: Step) -> None:
    """Where a test would stop the cycle."""


def _once(call: Call) -> Call:
    """The call without what has no meaning here."""
    if call.dry_run:
        raise InvalidError("a certificate cannot be asked for as a dry run")
    return replace(call, idempotency=None, expected_version=None)


def _from_peer(call: Call, peer_id: UUID, accessor: str) -> Call:
    actor = Actor(
        kind="peer",
        id=str(peer_id),
        auth="enrollment-token",
        credential=accessor,
        source=call.actor.source,
    )
    return replace(call, actor=actor)


def _holds(actor: Actor, serial: str, grant: Grant) -> bool:
    """Whether the caller is the grant's peer and authenticated with this very certificate."""
    return (
        (actor.kind, actor.auth) == ("peer", "certificate")
        and actor.id == str(grant.peer_id)
        and actor.credential == serial
    )


def _unavailable(detail: str) -> UnavailableError:
    return UnavailableError(
        f"{detail}; send the same request again later",
        code="authority-unavailable",
        retry_after=RETRY_AFTER,
    )
