"""Certificates in force: renewing one, revoking one, and telling the authority.

It parses and signs nothing. What counts as revoked is `issuance.revocation_of`; how an issuance
begins and closes is in `ledger/issuance.py`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from ledger.authorities import Authority
from ledger.errors import ForbiddenError, GoneError, InvalidError, NotFoundError, RefusedError
from ledger.events import (
    CertificateAuthorityTold,
    CertificateCloneSuspected,
    CertificateRevoked,
    Fact,
    GrantSuspended,
    RevocationReason,
)
from ledger.grant_state import Grant, GrantStatus, Issuance, IssuanceState
from ledger.grant_status import refuse_if_ended, require_usable
from ledger.issuance import (
    AlreadyIssued,
    Authorized,
    Order,
    Request,
    StillOpen,
    authorize,
    reuse,
    revocation_of,
)
from ledger.operators import require_reason
from ledger.peers import Peer
from ledger.policy import Policy

_LONGEST_TEXT: Final = 2000


@dataclass(frozen=True, slots=True)
class CloneSuspected:
    """Two holders of one certificate: append `facts`, raise an alarm, then raise `error`."""

    facts: tuple[Fact, ...]
    error: ForbiddenError


def renew(
    grant: Grant,
    peer: Peer,
    policy: Policy,
    authority: Authority,
    serial: str,
    request: Request,
    order: Order,
    at: datetime,
) -> Authorized | StillOpen | AlreadyIssued | CloneSuspected:
    """Decide what asking for the successor of certificate `serial` leads to (step 7 of the cycle).

    The same CSR gets the same successor. Another CSR, once there is a successor, means that two
    parties hold the key: that goes before any suspension, so a thief cannot hide behind one.

    Raises:
        NotFoundError: the grant has no such certificate.
        GoneError: grant-expired, grant-revoked, grant-rejected, certificate-revoked.
        RefusedError: certificate-expired, renewal-too-early (with `renew_after`), key-not-new,
            grant-suspended, grant-pending-enrollment, peer-not-active, not-yet-valid,
            key-compromised, grant-expiring, authority-expiring, order-mismatch.
        UnavailableError: authority-unavailable.
    """
    current = _issued(grant, serial)
    refuse_if_ended(grant, peer, policy, at)
    _require_current(current, at)
    successor = _successor(grant, serial)
    if successor is not None:
        if successor.csr_sha256 != request.csr_sha256:
            return _clone_suspected(grant, serial, successor, request)
        found = reuse(successor, grant, peer, at)
        if found is not None:
            return found
    require_usable(grant, peer, policy, at, enrolling=False)
    _require_due(current, at)
    _require_new_key(grant, request)
    fact, claims = authorize(
        grant,
        peer,
        policy,
        authority,
        request,
        order,
        at,
        kind="renewal",
        generation=current.authorization.generation + 1,
        predecessor=serial,
    )
    return Authorized(order.issuance_id, (fact,), claims)


def _issued(grant: Grant, serial: str) -> Issuance:
    issuance = grant.issuance_of(serial)
    if issuance is None or issuance.state is not IssuanceState.ISSUED:
        raise NotFoundError("the grant has no such certificate")
    return issuance


def _require_current(current: Issuance, at: datetime) -> None:
    if current.revocation is not None:
        raise GoneError(
            "the certificate was revoked; ask for a new enrollment token",
            code="certificate-revoked",
        )
    if at > current.not_after:
        raise RefusedError(
            "the certificate has expired; ask for a new enrollment token",
            code="certificate-expired",
        )


def _successor(grant: Grant, serial: str) -> Issuance | None:
    """Return the successor that counts: open or issued. One that failed leaves the place free."""
    return next(
        (
            issuance
            for issuance in grant.issuances.values()
            if issuance.authorization.predecessor == serial
            and issuance.state in (IssuanceState.AUTHORIZED, IssuanceState.ISSUED)
        ),
        None,
    )


def _clone_suspected(
    grant: Grant, serial: str, successor: Issuance, request: Request
) -> CloneSuspected:
    error = ForbiddenError(
        "this certificate has a successor with another key, so its key may be in other hands; "
        "the grant is suspended: call its admin",
        code="clone-suspected",
    )
    if grant.clone_suspected:
        # On record since the first time; a thief must not be able to fill the stream.
        return CloneSuspected((), error)
    suspected = CertificateCloneSuspected(
        serial=serial,
        successor=successor.serial,
        csr_sha256=request.csr_sha256,
        key_digest=request.key_digest,
    )
    suspend = () if grant.status is GrantStatus.SUSPENDED else (GrantSuspended(),)
    return CloneSuspected((suspected, *suspend), error)


def _require_due(current: Issuance, at: datetime) -> None:
    due = current.not_before + (current.not_after - current.not_before) * 2 / 3
    if at < due:
        raise RefusedError(
            "the certificate is renewed in the last third of its life; try again then",
            code="renewal-too-early",
            renew_after=due,
        )


def _require_new_key(grant: Grant, request: Request) -> None:
    """A failed attempt does not use a key up: it was in no certificate anybody holds."""
    if any(
        issuance.key_digest == request.key_digest
        and issuance.state in (IssuanceState.AUTHORIZED, IssuanceState.ISSUED)
        for issuance in grant.issuances.values()
    ):
        raise RefusedError("a renewal takes a new key; make one", code="key-not-new")


def standing_of(
    grant: Grant, peer: Peer, serial: str, certificate_sha256: str, at: datetime
) -> Literal["good", "on-hold"] | None:
    """How a certificate that its holder presents stands at `at`; None if it opens nothing.

    `certificate_sha256` (hex) is of the bytes presented: only those that were issued are known.
    A withheld certificate was never given to anybody, so its own hold is an end.
    """
    issuance = grant.issuance_of(serial)
    if (
        issuance is None
        or issuance.state is not IssuanceState.ISSUED
        or issuance.certificate_sha256 != certificate_sha256
        or not issuance.not_before <= at <= issuance.not_after
        or issuance.revocation is not None
    ):
        return None
    revocation = revocation_of(issuance, grant, peer, at)
    if revocation is None:
        return "good"
    return "on-hold" if revocation.reason == "certificateHold" else None


# ---- revoking ---------------------------------------------------------------------------------


def revoke(
    grant: Grant,
    serials: Iterable[str],
    revocation_reason: RevocationReason,
    detail: str,
    reason: str | None,
) -> tuple[Fact, ...]:
    """Revoke certificates of one grant by serial (32 lower-case hex), those in flight too.

    Nothing happens to one revoked before, unless that was a hold, or the key turns out to be
    compromised: both are worth another entry. A grant's end does not stand in the way either.

    Raises:
        NotFoundError: the grant has no such certificate.
        InvalidError: hold-means-suspend, reason-required, reason-too-long.
    """
    require_reason(reason, "revoke a certificate")
    if revocation_reason == "certificateHold":
        raise InvalidError(
            "a hold cannot be lifted from one certificate; suspend the grant instead",
            code="hold-means-suspend",
        )
    text = (detail.strip() or (reason or "").strip())[:_LONGEST_TEXT]
    return tuple(
        CertificateRevoked(serial=serial, revocation_reason=revocation_reason, detail=text)
        for serial in dict.fromkeys(serials)
        if _adds(_known(grant, serial), revocation_reason)
    )


def _known(grant: Grant, serial: str) -> Issuance:
    issuance = grant.issuance_of(serial)
    if issuance is None:
        raise NotFoundError("the grant has no such certificate")
    return issuance


def _adds(issuance: Issuance, wanted: RevocationReason) -> bool:
    if issuance.revocation is None:
        return True
    before = issuance.revocation.reason
    return before == "certificateHold" or (wanted == "keyCompromise" != before)


def tell_authority(
    grant: Grant,
    peer: Peer,
    serial: str,
    answer: Literal["confirmed", "already-revoked", "unsupported", "failed"],
    status: int | None,
    at: datetime,
) -> tuple[Fact, ...]:
    """Record what the authority answered to a revocation; the same answer twice is recorded once.

    Raises:
        NotFoundError: the grant has no such certificate.
        RefusedError: certificate-not-revoked.
    """
    issuance = _known(grant, serial)
    if revocation_of(issuance, grant, peer, at) is None:
        raise RefusedError(
            "the certificate is not revoked; revoke it here before telling the authority",
            code="certificate-not-revoked",
        )
    if issuance.authority_told == answer:
        return ()
    return (CertificateAuthorityTold(serial=serial, answer=answer, status=status),)
