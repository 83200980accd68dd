"""What a grant's stream says happened: the grant with its tokens, issuances and certificates.

It folds events and nothing else: it knows no clock, no policy and no peer, and it never refuses.
What follows from this state at a moment is in `ledger/grant_status.py`, what may be done to it in
`ledger/grants.py`, `ledger/enrollment.py` and `ledger/certificates.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from ledger.events import (
    CertificateAuthorityTold,
    CertificateCloneSuspected,
    CertificateIssued,
    CertificateMisIssued,
    CertificateRevoked,
    EnrollmentTokenCancelled,
    EnrollmentTokenIssued,
    EnrollmentTokenLocked,
    EnrollmentTokenRedeemed,
    Event,
    Fact,
    GrantActivated,
    GrantAmended,
    GrantApproved,
    GrantExpired,
    GrantNarrowed,
    GrantProposed,
    GrantRejected,
    GrantResumed,
    GrantRevoked,
    GrantSuspended,
    IssuanceAbandoned,
    IssuanceAuthorized,
    IssuanceFailed,
    RevocationReason,
)
from ledger.frozen import begun, changed
from ledger.scope import Scope


class GrantStatus(StrEnum):
    """A grant's lifecycle label, as in the enum type `grant_status`. The last three are final."""

    PENDING_APPROVAL = "pending_approval"
    PENDING_ENROLLMENT = "pending_enrollment"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    EXPIRED = "expired"
    REVOKED = "revoked"
    REJECTED = "rejected"


TERMINAL: Final = frozenset({GrantStatus.EXPIRED, GrantStatus.REVOKED, GrantStatus.REJECTED})
"""No event changes a status out of these."""


class TokenState(StrEnum):
    """What was recorded of an enrollment token; `EXPIRED` is only ever derived, never stored."""

    ISSUED = "issued"
    REDEEMED = "redeemed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    LOCKED = "locked"


class IssuanceState(StrEnum):
    """How far an issuance came. `AUTHORIZED` is open, the others are closed for good."""

    AUTHORIZED = "authorized"
    ISSUED = "issued"
    FAILED = "failed"
    ABANDONED = "abandoned"


@dataclass(frozen=True, slots=True)
class Approval:
    """One person's yes to the present terms. `approver` is an operator's id as text."""

    approver: str
    at: datetime
    lapses_at: datetime


@dataclass(frozen=True)
class Token:
    """An enrollment token. `csr_sha256` and `issuance_id` are those of its first redemption."""

    accessor: str
    token_sha256: str
    state: TokenState
    issued_at: datetime
    expires_at: datetime
    key_digest: str | None  # the pin
    changed_at: datetime
    csr_sha256: str | None = None
    issuance_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Revocation:
    """Why and since when a serial is not to be trusted. `reason` is RFC 5280's."""

    at: datetime
    reason: RevocationReason
    detail: str


@dataclass(frozen=True)
class Issuance:
    """One serial: what was authorized, and what became of it.

    `authorization` is the fact itself (CSR, serial, validity, extensions …), so that what an
    authority returns can be compared with it field by field. `certificate` is DER.
    `revocation` is the certificate's own; see `certificates.revocation_of` for what counts.
    A mis-issued certificate leaves the issuance `FAILED`, with `mis_issued` set.
    """

    authorization: IssuanceAuthorized
    state: IssuanceState
    authorized_at: datetime
    closed_at: datetime | None = None
    certificate: bytes | None = None
    certificate_sha256: str | None = None
    tbs_sha256: str | None = None
    revocation: Revocation | None = None
    mis_issued: bool = False
    failure: str | None = None  # the detail of failed or abandoned
    authority_told: str | None = None  # the authority's last answer about the revocation

    @property
    def id(self) -> UUID:
        """The issuance's id."""
        return self.authorization.issuance_id

    @property
    def serial(self) -> str:
        """32 lower-case hex."""
        return self.authorization.serial

    @property
    def key_digest(self) -> str:
        """SHA-256 of the SubjectPublicKeyInfo, hex."""
        return self.authorization.key_digest

    @property
    def csr_sha256(self) -> str:
        """SHA-256 of the CSR's DER, hex."""
        return self.authorization.csr_sha256

    @property
    def not_before(self) -> datetime:
        """Start of the certificate's validity."""
        return self.authorization.not_before

    @property
    def not_after(self) -> datetime:
        """Last moment of the certificate's validity."""
        return self.authorization.not_after

    @property
    def open(self) -> bool:
        """Whether somebody still has to drive it on."""
        return self.state is IssuanceState.AUTHORIZED

    @property
    def issued_at(self) -> datetime | None:
        """When the certificate was recorded, None if it never was."""
        return self.closed_at if self.state is IssuanceState.ISSUED else None


@dataclass(frozen=True)
class Grant:
    """A grant as its stream tells it. `status` is the *stored* one; most readers want
    `grant_status.effective_status`.

    `approvals` are those of the present terms, one per person, lapsed ones included.
    `suspended_from` is what resume restores. `clone_suspected` holds until a resume.
    """

    id: UUID
    version: int
    peer_id: UUID
    subject_user_id: str
    scope: Scope
    sensitive: bool
    not_before: datetime
    expires_at: datetime
    terms_digest: str
    proposed_by: str
    proposed_at: datetime
    changed_at: datetime
    status: GrantStatus
    amended_by: frozenset[str] = frozenset()
    approvals: tuple[Approval, ...] = ()
    suspended_from: GrantStatus | None = None
    suspended_at: datetime | None = None
    clone_suspected: bool = False
    activated_at: datetime | None = None
    ended_at: datetime | None = None
    tokens: Mapping[str, Token] = field(default_factory=dict)  # by accessor
    issuances: Mapping[UUID, Issuance] = field(default_factory=dict)  # in order of authorization

    def issuance_of(self, serial: str) -> Issuance | None:
        """Return the issuance of a serial (32 lower-case hex), None if it is not this grant's."""
        return next((one for one in self.issuances.values() if one.serial == serial), None)


def evolve(grant: Grant | None, event: Event) -> Grant:
    """Return the grant after one more event of its stream.

    Raises:
        ValueError: the stream does not start with its proposal, or holds a foreign fact. Folding
            on would hand out a state that no command ever made, so it stops here.
    """
    fact = event.data
    step = _STEPS.get(type(fact))
    if grant is not None and step is not None:
        change = step(grant, event, fact)
        change["version"] = event.originator_version
        change["changed_at"] = event.at
        return changed(grant, change)
    if isinstance(fact, GrantProposed):
        return _proposed(event, fact)
    raise ValueError(f"a grant's stream cannot hold {fact.TOPIC} at {event.originator_version}")


def _proposed(event: Event, fact: GrantProposed) -> Grant:
    return begun(
        Grant,
        id=event.originator_id,
        version=event.originator_version,
        peer_id=fact.peer_id,
        subject_user_id=fact.subject_user_id,
        scope=fact.scope,
        sensitive=fact.sensitive,
        not_before=fact.not_before,
        expires_at=fact.expires_at,
        terms_digest=fact.terms_digest,
        proposed_by=event.actor.id,
        proposed_at=event.at,
        changed_at=event.at,
        status=_pending(sensitive=fact.sensitive),
        tokens={},
        issuances={},
    )


def _pending(*, sensitive: bool) -> GrantStatus:
    return GrantStatus.PENDING_APPROVAL if sensitive else GrantStatus.PENDING_ENROLLMENT


# ---- one step per topic: the fields that change -----------------------------------------------

_Change = dict[str, Any]


def _approved(grant: Grant, event: Event, fact: GrantApproved) -> _Change:
    approval = Approval(event.actor.id, event.at, fact.lapses_at)
    others = tuple(one for one in grant.approvals if one.approver != approval.approver)
    status = grant.status
    if fact.sufficient and status is GrantStatus.PENDING_APPROVAL:
        status = GrantStatus.PENDING_ENROLLMENT
    return {"approvals": (*others, approval), "status": status}


def _terms(fact: GrantAmended | GrantNarrowed) -> _Change:
    return {
        "scope": fact.scope,
        "sensitive": fact.sensitive,
        "not_before": fact.not_before,
        "expires_at": fact.expires_at,
        "terms_digest": fact.terms_digest,
    }


def _amended(grant: Grant, event: Event, fact: GrantAmended) -> _Change:
    return _terms(fact) | {
        "status": _pending(sensitive=fact.sensitive),
        "approvals": (),
        "amended_by": grant.amended_by | {event.actor.id},
    }


def _narrowed(grant: Grant, event: Event, fact: GrantNarrowed) -> _Change:
    # Approvals stay: who agreed to more agreed to less.
    return _terms(fact)


def _suspended(grant: Grant, event: Event, fact: GrantSuspended) -> _Change:
    return {
        "status": GrantStatus.SUSPENDED,
        "suspended_from": grant.status,
        "suspended_at": event.at,
    }


def _resumed(grant: Grant, event: Event, fact: GrantResumed) -> _Change:
    return {
        "status": grant.suspended_from or grant.status,
        "suspended_from": None,
        "suspended_at": None,
        "clone_suspected": False,
    }


def _activated(grant: Grant, event: Event, fact: GrantActivated) -> _Change:
    return {"status": GrantStatus.ACTIVE, "activated_at": event.at}


def _ended(status: GrantStatus) -> Callable[[Grant, Event, Fact], _Change]:
    def step(grant: Grant, event: Event, fact: Fact) -> _Change:
        return {"status": status, "suspended_from": None, "ended_at": event.at}

    return step


def _token_issued(grant: Grant, event: Event, fact: EnrollmentTokenIssued) -> _Change:
    token = begun(
        Token,
        accessor=fact.accessor,
        token_sha256=fact.token_sha256,
        state=TokenState.ISSUED,
        issued_at=event.at,
        expires_at=fact.expires_at,
        key_digest=fact.key_digest,
        changed_at=event.at,
    )
    return {"tokens": {**grant.tokens, fact.accessor: token}}


def _token_redeemed(grant: Grant, event: Event, fact: EnrollmentTokenRedeemed) -> _Change:
    change = {
        "state": TokenState.REDEEMED,
        "changed_at": event.at,
        "csr_sha256": fact.csr_sha256,
        "issuance_id": fact.issuance_id,
    }
    token = changed(grant.tokens[fact.accessor], change)
    return {"tokens": {**grant.tokens, fact.accessor: token}}


def _token_dead(
    state: TokenState,
) -> Callable[[Grant, Event, EnrollmentTokenCancelled | EnrollmentTokenLocked], _Change]:
    def step(
        grant: Grant, event: Event, fact: EnrollmentTokenCancelled | EnrollmentTokenLocked
    ) -> _Change:
        token = changed(grant.tokens[fact.accessor], {"state": state, "changed_at": event.at})
        return {"tokens": {**grant.tokens, fact.accessor: token}}

    return step


def _authorized(grant: Grant, event: Event, fact: IssuanceAuthorized) -> _Change:
    issuance = begun(
        Issuance,
        authorization=fact,
        state=IssuanceState.AUTHORIZED,
        authorized_at=event.at,
    )
    return {"issuances": {**grant.issuances, fact.issuance_id: issuance}}


def _closed(state: IssuanceState) -> Callable[[Grant, Event, Any], _Change]:
    def step(grant: Grant, event: Event, fact: IssuanceFailed | IssuanceAbandoned) -> _Change:
        change = {"state": state, "closed_at": event.at, "failure": fact.detail}
        return _issuance(grant, fact.issuance_id, change)

    return step


def _certificate_issued(grant: Grant, event: Event, fact: CertificateIssued) -> _Change:
    change = {
        "state": IssuanceState.ISSUED,
        "closed_at": event.at,
        "certificate": fact.certificate,
        "certificate_sha256": fact.certificate_sha256,
        "tbs_sha256": fact.tbs_sha256,
    }
    return _issuance(grant, fact.issuance_id, change)


def _mis_issued(grant: Grant, event: Event, fact: CertificateMisIssued) -> _Change:
    change = {
        "state": IssuanceState.FAILED,
        "closed_at": event.at,
        "certificate": fact.certificate,
        "mis_issued": True,
        "failure": "; ".join(fact.findings),
    }
    return _issuance(grant, fact.issuance_id, change)


def _certificate_revoked(grant: Grant, event: Event, fact: CertificateRevoked) -> _Change:
    revocation = Revocation(event.at, fact.revocation_reason, fact.detail)
    return _issuance(grant, _id_of(grant, fact.serial), {"revocation": revocation})


def _clone_suspected(grant: Grant, event: Event, fact: CertificateCloneSuspected) -> _Change:
    return {"clone_suspected": True}


def _authority_told(grant: Grant, event: Event, fact: CertificateAuthorityTold) -> _Change:
    return _issuance(grant, _id_of(grant, fact.serial), {"authority_told": fact.answer})


def _id_of(grant: Grant, serial: str) -> UUID:
    issuance = grant.issuance_of(serial)
    if issuance is None:
        raise ValueError(f"the grant's stream names the serial {serial} it never authorized")
    return issuance.id


def _issuance(grant: Grant, issuance_id: UUID, change: _Change) -> _Change:
    issuance = changed(grant.issuances[issuance_id], change)
    return {"issuances": {**grant.issuances, issuance_id: issuance}}


_STEPS: Final[Mapping[type[Fact], Callable[[Grant, Event, Any], _Change]]] = {
    GrantApproved: _approved,
    GrantRejected: _ended(GrantStatus.REJECTED),
    GrantAmended: _amended,
    GrantNarrowed: _narrowed,
    GrantSuspended: _suspended,
    GrantResumed: _resumed,
    GrantActivated: _activated,
    GrantRevoked: _ended(GrantStatus.REVOKED),
    GrantExpired: _ended(GrantStatus.EXPIRED),
    EnrollmentTokenIssued: _token_issued,
    EnrollmentTokenRedeemed: _token_redeemed,
    EnrollmentTokenCancelled: _token_dead(TokenState.CANCELLED),
    EnrollmentTokenLocked: _token_dead(TokenState.LOCKED),
    IssuanceAuthorized: _authorized,
    IssuanceFailed: _closed(IssuanceState.FAILED),
    IssuanceAbandoned: _closed(IssuanceState.ABANDONED),
    CertificateIssued: _certificate_issued,
    CertificateRevoked: _certificate_revoked,
    CertificateMisIssued: _mis_issued,
    CertificateCloneSuspected: _clone_suspected,
    CertificateAuthorityTold: _authority_told,
}
