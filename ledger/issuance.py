"""One issuance from authorization to its end: what may be ordered, and how it closes.

It signs nothing and parses no certificate: `ca/issuance.py` drives the cycle and asks here. Who
may start one is in `ledger/enrollment.py` (a token) and `ledger/certificates.py` (a renewal).
An issuance closes once; whoever comes later gets `AlreadyClosed` and answers with the record.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

from ledger.authorities import Authority
from ledger.errors import (
    GoneError,
    LedgerError,
    MisIssuedError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from ledger.events import (
    CertificateExtension,
    CertificateIssued,
    CertificateMisIssued,
    CertificateRevoked,
    Fact,
    GrantActivated,
    IssuanceAbandoned,
    IssuanceAuthorized,
    IssuanceFailed,
    RevocationReason,
)
from ledger.grant_state import Grant, GrantStatus, Issuance, IssuanceState, Revocation
from ledger.grant_status import (
    counting_approvers,
    effective_status,
    require_usable,
    unusable_because,
)
from ledger.operators import Operator
from ledger.peers import Peer
from ledger.policy import DEFAULT, Policy

SHORTEST_LIFE: Final = timedelta(minutes=5)
"""With less left than this no certificate is ordered."""

_LONGEST_TEXT: Final = 2000
_MOST_FINDINGS: Final = 10
_LONGEST_KEPT: Final = 24 * 1024  # bytes of a mis-issued certificate: its event must fit 60 KiB

Claims = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Request:
    """A CSR that `ca/csr.py` has read and found good: DER, SHA-256 of it (hex), key digest (hex)."""

    der: bytes
    csr_sha256: str
    key_digest: str


@dataclass(frozen=True, slots=True)
class Order:
    """The certificate as it shall be, made from the states of the same decision.

    Times are aware and of whole seconds. `serial`: 32 lower-case hex. `san`: URIs. `extensions`:
    beyond the fixed profile.
    """

    issuance_id: UUID
    serial: str
    not_before: datetime
    not_after: datetime
    subject: str
    san: tuple[str, ...]
    extensions: tuple[CertificateExtension, ...]
    authority_id: UUID
    profile_version: int


@dataclass(frozen=True, slots=True)
class Signed:
    """What the authority returned, checked against its order: DER and its two SHA-256 (hex)."""

    der: bytes
    certificate_sha256: str
    tbs_sha256: str


@dataclass(frozen=True, slots=True)
class Authorized:
    """A new authorization: append `facts` with `claims`, then have it signed."""

    issuance_id: UUID
    facts: tuple[Fact, ...]
    claims: Claims


@dataclass(frozen=True, slots=True)
class StillOpen:
    """The same request is authorized already: drive this one on, append nothing."""

    issuance: Issuance


@dataclass(frozen=True, slots=True)
class AlreadyIssued:
    """The same request was answered already: hand out the recorded certificate."""

    issuance: Issuance


@dataclass(frozen=True, slots=True)
class Closed:
    """The issuance closes now: append `facts`, then raise `error` if there is one.

    With an error the certificate is on record but must not be delivered.
    """

    facts: tuple[Fact, ...]
    error: LedgerError | None = None


@dataclass(frozen=True, slots=True)
class AlreadyClosed:
    """Somebody closed it before: append nothing, answer with `recorded(…)`."""

    issuance: Issuance


# ---- what may be ordered ----------------------------------------------------------------------


def require_approvals(
    grant: Grant, policy: Policy, operators: Mapping[str, Operator], at: datetime
) -> None:
    """Recount the approvals of a sensitive grant nobody has enrolled for: lapse and roles as of now.

    Raises:
        RefusedError: grant-pending-approval.
    """
    if _lacks_approvals(grant, policy, operators, at):
        raise RefusedError(
            "approvals of this grant have lapsed or their givers have left the role; "
            "have its terms approved again",
            code="grant-pending-approval",
        )


def _lacks_approvals(
    grant: Grant, policy: Policy, operators: Mapping[str, Operator], at: datetime
) -> bool:
    return (
        grant.sensitive
        and grant.activated_at is None
        and len(counting_approvers(grant, policy, operators, at)) < policy.approvals
    )


def too_short(limited_by: str) -> RefusedError:
    """Return the refusal of an order that would live under 5 minutes.

    `limited_by`: `issuer` if the authority's own end is near, anything else means the grant's.
    """
    if limited_by == "issuer":
        return RefusedError(
            "the signing authority's certificate is about to end; renew the authority first",
            code="authority-expiring",
        )
    return RefusedError(
        "under 5 minutes are left for a certificate; ask for a new grant", code="grant-expiring"
    )


def authorize(
    grant: Grant,
    peer: Peer,
    policy: Policy,
    authority: Authority,
    request: Request,
    order: Order,
    at: datetime,
    *,
    kind: Literal["enrollment", "renewal"],
    generation: int,
    accessor: str | None = None,
    predecessor: str | None = None,
) -> tuple[IssuanceAuthorized, Claims]:
    """Return the authorization of one certificate and what it claims for ever.

    A key this grant has used before is not claimed again: the claim is there, and it is ours.

    Raises:
        RefusedError: key-compromised, grant-expiring, authority-expiring, order-mismatch.
        UnavailableError: authority-unavailable (retired).
    """
    if key_is_compromised(grant, request.key_digest):
        raise RefusedError(
            "this key was in a compromised certificate; make a new key", code="key-compromised"
        )
    _check_order(grant, peer, policy, authority, order, at)
    fact = IssuanceAuthorized(
        issuance_id=order.issuance_id,
        kind=kind,
        generation=generation,
        accessor=accessor,
        predecessor=predecessor,
        csr=request.der,
        csr_sha256=request.csr_sha256,
        key_digest=request.key_digest,
        serial=order.serial,
        not_before=order.not_before,
        not_after=order.not_after,
        subject=order.subject,
        san=order.san,
        extensions=order.extensions,
        authority_id=order.authority_id,
        profile_version=order.profile_version,
    )
    known = any(one.key_digest == request.key_digest for one in grant.issuances.values())
    key_claim: Claims = () if known else (("key-digest", request.key_digest),)
    return fact, (*key_claim, ("serial", order.serial))


def _check_order(
    grant: Grant, peer: Peer, policy: Policy, authority: Authority, order: Order, at: datetime
) -> None:
    if authority.retired_at is not None:
        raise UnavailableError(
            "the signing authority is retired; name another one", code="authority-unavailable"
        )
    ends = {
        "grant": grant.expires_at,
        "issuer": authority.not_after - timedelta(seconds=1),
        "ttl": at + policy.certificate_life,
    }
    if order.not_after - at < SHORTEST_LIFE:
        raise too_short(min(ends, key=lambda name: ends[name]))
    # The order is made from looked-up rows: if those were stale or altered, it stops here.
    if (
        order.not_after > min(ends.values())
        or order.not_before > at
        or order.subject != peer.name
        or order.san != (f"urn:uuid:{grant.id}",)
        or order.authority_id != authority.id
    ):
        raise RefusedError(
            "the order does not follow from the grant; run projections verify and try again",
            code="order-mismatch",
        )


def key_is_compromised(grant: Grant, key_digest: str) -> bool:
    """Whether a certificate of this grant with this key was revoked as compromised.

    Other grants need not be asked: a key belongs to one grant for ever (claim `key-digest`).
    """
    return any(
        issuance.key_digest == key_digest
        and issuance.revocation is not None
        and issuance.revocation.reason == "keyCompromise"
        for issuance in grant.issuances.values()
    )


# ---- how it closes ----------------------------------------------------------------------------


def complete(
    grant: Grant,
    peer: Peer,
    policy: Policy,
    operators: Mapping[str, Operator],
    issuance_id: UUID,
    signed: Signed,
    at: datetime,
) -> Closed | AlreadyClosed:
    """Record the certificate, deciding anew whether it may be delivered (step 4 of the cycle).

    Still usable: issued, and the first time the grant becomes active. Only suspended: issued, on
    hold and withheld. Else: issued, revoked and withheld. Either way its bytes are on record, so
    no valid certificate exists that the ledger does not know.

    Raises:
        NotFoundError: the grant has no such issuance.
    """
    issuance = _issuance(grant, issuance_id)
    if not issuance.open:
        return AlreadyClosed(issuance)
    issued = CertificateIssued(
        issuance_id=issuance_id,
        serial=issuance.serial,
        certificate=signed.der,
        certificate_sha256=signed.certificate_sha256,
        tbs_sha256=signed.tbs_sha256,
    )
    obstacle = _obstacle(grant, peer, policy, operators, issuance, at)
    if obstacle is None:
        first = grant.status is GrantStatus.PENDING_ENROLLMENT
        return Closed((issued, GrantActivated(issuance_id=issuance_id)) if first else (issued,))
    if issuance.revocation is not None:  # by its serial, while it was in flight
        return Closed((issued,), _withheld())
    if obstacle == "grant-suspended":
        held = _revoked(issuance, "certificateHold", "suspended-in-flight")
        return Closed(
            (issued, held),
            RefusedError(
                "the grant was suspended meanwhile, the certificate is withheld; "
                "enroll with a new token once it is resumed",
                code="grant-suspended",
            ),
        )
    gone = _revoked(issuance, "cessationOfOperation", "revoked-in-flight")
    return Closed((issued, gone), _withheld())


def _obstacle(
    grant: Grant,
    peer: Peer,
    policy: Policy,
    operators: Mapping[str, Operator],
    issuance: Issuance,
    at: datetime,
) -> str | None:
    asked_with = grant.issuance_of(issuance.authorization.predecessor or "")
    if (
        issuance.revocation is not None
        or issuance.not_after > grant.expires_at  # narrowed or amended meanwhile
        or key_is_compromised(grant, issuance.key_digest)
        # Else a thief's renewal would survive the revocation of the certificate he stole.
        or (asked_with is not None and asked_with.revocation is not None)
        or _lacks_approvals(grant, policy, operators, at)
    ):
        return "revoked-in-flight"
    enrolling = issuance.authorization.kind == "enrollment"
    return unusable_because(grant, peer, policy, at, enrolling=enrolling)


def _withheld() -> GoneError:
    return GoneError(
        "the right to this certificate was withdrawn meanwhile, it is revoked and withheld; "
        "ask for a new enrollment token",
        code="revoked-in-flight",
    )


def mis_issued(
    grant: Grant, issuance_id: UUID, der: bytes, findings: Sequence[str]
) -> Closed | AlreadyClosed:
    """Close with what came back instead of what was ordered, revoked in the same append.

    `der`, kept up to 24 KiB, and `findings`, up to 10 of 2000 characters, are a stranger's.

    Raises:
        NotFoundError: the grant has no such issuance.
    """
    issuance = _issuance(grant, issuance_id)
    if not issuance.open:
        return AlreadyClosed(issuance)
    kept = tuple(one[:_LONGEST_TEXT] for one in findings if one)[:_MOST_FINDINGS]
    return Closed(
        (
            CertificateMisIssued(
                issuance_id=issuance_id,
                serial=issuance.serial,
                certificate=der[:_LONGEST_KEPT],
                findings=kept or ("not as ordered",),
            ),
            _revoked(issuance, "cessationOfOperation", "mis-issued"),
        ),
        _mis_issued_error(),
    )


def fail(
    grant: Grant, issuance_id: UUID, status: int | None, detail: str
) -> Closed | AlreadyClosed:
    """Close with the authority's final no. Its serial counts as revoked until its notAfter.

    `status`: the authority's own; `detail`: what it said, cut at 2000 characters.

    Raises:
        NotFoundError: the grant has no such issuance.
    """
    issuance = _issuance(grant, issuance_id)
    if not issuance.open:
        return AlreadyClosed(issuance)
    fact = IssuanceFailed(
        issuance_id=issuance_id,
        serial=issuance.serial,
        status=status,
        detail=detail[:_LONGEST_TEXT] or "no detail given",
    )
    return Closed((fact,), _failed_error())


def abandon(grant: Grant, issuance_id: UUID, detail: str) -> Closed | AlreadyClosed:
    """Give up an issuance that cannot be driven on. Its serial counts as revoked until its notAfter,
    so a certificate that an authority makes of it all the same is worth nothing.

    Raises:
        NotFoundError: the grant has no such issuance.
    """
    issuance = _issuance(grant, issuance_id)
    if not issuance.open:
        return AlreadyClosed(issuance)
    fact = IssuanceAbandoned(
        issuance_id=issuance_id,
        serial=issuance.serial,
        detail=detail[:_LONGEST_TEXT] or "no detail given",
    )
    return Closed((fact,), _failed_error())


def _issuance(grant: Grant, issuance_id: UUID) -> Issuance:
    issuance = grant.issuances.get(issuance_id)
    if issuance is None:
        raise NotFoundError("the grant has no such issuance")
    return issuance


def _revoked(issuance: Issuance, reason: RevocationReason, detail: str) -> CertificateRevoked:
    return CertificateRevoked(serial=issuance.serial, revocation_reason=reason, detail=detail)


def _mis_issued_error() -> MisIssuedError:
    return MisIssuedError(
        "the authority returned another certificate than ordered; it is revoked and withheld"
    )


def _failed_error() -> UnavailableError:
    return UnavailableError(
        "the authority did not issue the certificate; send the same request again for a new one",
        code="issuance-failed",
    )


# ---- what is on record ------------------------------------------------------------------------


def recorded(issuance: Issuance, grant: Grant, peer: Peer, at: datetime) -> Issuance:
    """Return a closed issuance whose certificate may be delivered again at `at`.

    Raises:
        GoneError: certificate-revoked.
        RefusedError: grant-suspended (it is on hold).
        MisIssuedError: what came back was not what was ordered.
        UnavailableError: issuance-failed (failed or abandoned).
    """
    if issuance.mis_issued:
        raise _mis_issued_error()
    if issuance.state is not IssuanceState.ISSUED:
        raise _failed_error()
    revocation = revocation_of(issuance, grant, peer, at)
    if revocation is None:
        return issuance
    if revocation.reason == "certificateHold" and issuance.revocation is None:
        raise RefusedError(
            "the grant or its peer is suspended; wait until it is resumed", code="grant-suspended"
        )
    raise GoneError(
        "the certificate was revoked; ask for a new enrollment token", code="certificate-revoked"
    )


def revocation_of(issuance: Issuance, grant: Grant, peer: Peer, at: datetime) -> Revocation | None:
    """Return why the serial counts as revoked at `at`, None if it does not.

    Its own revocation; a failed or abandoned issuance; the grant or the peer effectively revoked;
    while either is suspended, certificateHold. A final reason goes before a hold. Whether the
    certificate has expired is not asked: lists leave it out after its notAfter.
    """
    own = issuance.revocation
    if own is not None and own.reason != "certificateHold":
        return own
    if issuance.state in (IssuanceState.FAILED, IssuanceState.ABANDONED):
        since = issuance.closed_at or issuance.authorized_at
        return Revocation(since, "cessationOfOperation", f"issuance-{issuance.state}")
    return _through_grant(grant, peer, at) or own or _on_hold(grant, peer, at)


def _through_grant(grant: Grant, peer: Peer, at: datetime) -> Revocation | None:
    # Approvals do not matter to what is revoked, so any policy gives the same answer.
    status = effective_status(grant, peer, DEFAULT, at)
    if status not in (GrantStatus.REVOKED, GrantStatus.REJECTED):
        return None
    ends = [
        (since, detail)
        for since, detail in (
            (grant.ended_at, f"grant-{status}"),
            (peer.revoked_at, "peer-revoked"),
        )
        if since is not None
    ]
    since, detail = min(ends)
    return Revocation(since, "cessationOfOperation", detail)


def _on_hold(grant: Grant, peer: Peer, at: datetime) -> Revocation | None:
    if effective_status(grant, peer, DEFAULT, at) is not GrantStatus.SUSPENDED:
        return None
    if grant.suspended_at is not None:
        return Revocation(grant.suspended_at, "certificateHold", "grant-suspended")
    return Revocation(peer.suspended_at or at, "certificateHold", "peer-suspended")


def reuse(
    issuance: Issuance, grant: Grant, peer: Peer, at: datetime
) -> StillOpen | AlreadyIssued | None:
    """Return what the same request finds: an open issuance, its answer, or None: authorize anew.

    Raises:
        GoneError, RefusedError: as `recorded`, for a certificate revoked or on hold since.
    """
    if issuance.open:
        return StillOpen(issuance)
    if issuance.state is IssuanceState.ISSUED:
        return AlreadyIssued(recorded(issuance, grant, peer, at))
    return None


def require_enrollable(
    grant: Grant,
    peer: Peer,
    policy: Policy,
    operators: Mapping[str, Operator],
    at: datetime,
) -> None:
    """Refuse to authorize an enrollment unless the grant is usable and its approvals count now.

    Raises:
        GoneError: grant-expired, grant-revoked, grant-rejected.
        RefusedError: grant-suspended, grant-pending-approval, peer-not-active, not-yet-valid.
    """
    require_usable(grant, peer, policy, at, enrolling=True)
    require_approvals(grant, policy, operators, at)
