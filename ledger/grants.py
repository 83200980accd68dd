"""What may be done to a grant: propose, approve, reject, amend, narrow, suspend, resume, revoke.

Each command takes states and the time, and returns the facts to append or raises why not. It does
not load or store; who may give a command at all is `ledger/operators.py`, tokens are in
`ledger/enrollment.py`, certificates in `ledger/certificates.py`. The status a command starts from
is the stored one. Commands that give rights also need an effective status that is neither final
nor suspended; commands that take rights work whatever the clock or the peer say.
"""

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from ledger.canonical import canonical_json, format_time
from ledger.errors import ForbiddenError, InvalidError, RefusedError
from ledger.events import (
    Actor,
    CertificateRevoked,
    EnrollmentTokenCancelled,
    Fact,
    GrantAmended,
    GrantApproved,
    GrantExpired,
    GrantNarrowed,
    GrantProposed,
    GrantRejected,
    GrantResumed,
    GrantRevoked,
    GrantSuspended,
)
from ledger.grant_state import TERMINAL, Grant, GrantStatus, IssuanceState
from ledger.grant_status import (
    counting_approvers,
    effective_status,
    is_author,
    live_tokens,
    require_giving,
    require_not_ended,
)
from ledger.operators import Operator, require_reason
from ledger.peers import Peer, PeerState
from ledger.policy import Policy
from ledger.scope import Scope, narrower

_SUBJECT: Final = re.compile(r"[0-9A-Za-z._:@-]{1,100}", re.ASCII)


def terms_digest(
    peer_id: UUID, subject_user_id: str, scope: Scope, not_before: datetime, expires_at: datetime
) -> str:
    """Return the SHA-256 (hex) of the RFC 8785 JSON of a grant's terms: what an approver names."""
    terms = {
        "peer_id": str(peer_id),
        "subject_user_id": subject_user_id,
        "scope": scope.canonical(),
        "not_before": format_time(not_before),
        "expires_at": format_time(expires_at),
    }
    return hashlib.sha256(canonical_json(terms)).hexdigest()


# ---- giving rights ----------------------------------------------------------------------------


def propose(
    peer: Peer,
    policy: Policy,
    subject_user_id: str,
    scope: Scope,
    not_before: datetime | None,
    expires_at: datetime,
    reason: str | None,
    at: datetime,
) -> tuple[Fact, ...]:
    """Propose a grant to a peer. `not_before` None means from now on.

    Raises:
        InvalidError: subject-user-id, expires-in-past, expires-too-late, empty-validity,
            reason-required (sensitive scopes), reason-too-long.
        RefusedError: peer-not-active (suspended or revoked; a pending peer may be proposed to).
    """
    if not _SUBJECT.fullmatch(subject_user_id):
        raise InvalidError(
            "subject_user_id is 1 to 100 of the characters 0-9 A-Z a-z . _ : @ -",
            code="subject-user-id",
        )
    start = at if not_before is None else not_before
    _require_validity(policy, start, expires_at, at)
    if peer.state not in (PeerState.PENDING, PeerState.ACTIVE):
        raise RefusedError(
            f"the peer is {peer.state}; a grant can be proposed to a pending or active peer only",
            code="peer-not-active",
        )
    if scope.sensitive:
        require_reason(reason, "propose a sensitive scope")
    return (
        GrantProposed(
            peer_id=peer.id,
            subject_user_id=subject_user_id,
            scope=scope,
            not_before=start,
            expires_at=expires_at,
            terms_digest=terms_digest(peer.id, subject_user_id, scope, start, expires_at),
            sensitive=bool(scope.sensitive),
        ),
    )


def approve(
    grant: Grant,
    peer: Peer,
    policy: Policy,
    operators: Mapping[str, Operator],
    named_terms: str,
    actor: Actor,
    reason: str | None,
    at: datetime,
) -> tuple[Fact, ...]:
    """Approve the terms named by their digest, if that still counts for something.

    `operators`: the folded streams of everybody who approved so far, by id: an approval of a
    person who has lost the role leaves room for another.

    Raises:
        InvalidError: reason-required, reason-too-long.
        ForbiddenError: four-eyes, forbidden (not an operator: nobody to recount later).
        RefusedError: terms-changed, approval-not-needed, already-approved, grant-suspended,
            grant-expired, grant-revoked, grant-rejected.
    """
    require_giving(grant, peer, policy, at)
    if named_terms != grant.terms_digest:
        raise RefusedError(
            "these are not the grant's present terms; read them again and name their digest",
            code="terms-changed",
            terms_digest=grant.terms_digest,
        )
    counting = counting_approvers(grant, policy, operators, at)
    _require_room_for_approval(grant, policy, len(counting))
    if actor.kind != "operator":
        raise ForbiddenError("only an operator can approve, so that it can be recounted later")
    if policy.four_eyes and is_author(grant, actor.id):
        raise ForbiddenError(
            "who proposed or amended a grant cannot approve it; ask another approver",
            code="four-eyes",
        )
    sufficient = len(counting | {actor.id}) >= policy.approvals
    if actor.id in counting and not sufficient:
        raise RefusedError(
            "you have approved these terms already; another approver is needed",
            code="already-approved",
        )
    require_reason(reason, "approve a sensitive scope")
    return (
        GrantApproved(
            terms_digest=grant.terms_digest,
            lapses_at=at + policy.approval_life,
            sufficient=sufficient,
        ),
    )


def _require_room_for_approval(grant: Grant, policy: Policy, counting: int) -> None:
    waiting = grant.status is GrantStatus.PENDING_APPROVAL or (
        grant.status is GrantStatus.PENDING_ENROLLMENT
        and grant.sensitive
        and counting < policy.approvals
    )
    if not waiting:
        raise RefusedError(
            "the grant is not waiting for an approval; nothing is left to approve",
            code="approval-not-needed",
            status=grant.status.value,
        )


def amend(
    grant: Grant,
    peer: Peer,
    policy: Policy,
    *,
    scope: Scope | None,
    not_before: datetime | None,
    expires_at: datetime | None,
    reason: str | None,
    at: datetime,
) -> tuple[Fact, ...]:
    """Change the terms of a grant nobody has enrolled for; None keeps a term.

    Voids the approvals and cancels live tokens. An issuance still open closes as withheld if the
    new terms do not allow it (`certificates.complete`).

    Raises:
        InvalidError: reason-required, reason-too-long, expires-in-past, expires-too-late,
            empty-validity.
        RefusedError: wrong-status, nothing-to-amend, grant-expired, grant-revoked, grant-rejected.
    """
    require_not_ended(grant, peer, policy, at)
    _require_status(grant, "amend", GrantStatus.PENDING_APPROVAL, GrantStatus.PENDING_ENROLLMENT)
    new_scope, start, end = (
        scope or grant.scope,
        not_before or grant.not_before,
        expires_at or grant.expires_at,
    )
    digest = terms_digest(grant.peer_id, grant.subject_user_id, new_scope, start, end)
    if digest == grant.terms_digest:
        raise RefusedError(
            "these are the grant's present terms; name at least one other", code="nothing-to-amend"
        )
    _require_validity(policy, start, end, at)
    require_reason(reason, "amend a grant")
    amended = GrantAmended(
        scope=new_scope,
        not_before=start,
        expires_at=end,
        terms_digest=digest,
        sensitive=bool(new_scope.sensitive),
    )
    return (amended, *_cancelled_tokens(grant, at, amended=True))


def resume(
    grant: Grant, peer: Peer, policy: Policy, reason: str | None, at: datetime
) -> tuple[Fact, ...]:
    """Restore what a suspension interrupted. After a clone alarm that is an approver's to do.

    Raises:
        InvalidError: reason-required, reason-too-long.
        RefusedError: wrong-status, peer-not-active, grant-expired, grant-revoked.
    """
    _require_status(grant, "resume", GrantStatus.SUSPENDED)
    require_not_ended(grant, peer, policy, at)
    if peer.state is PeerState.SUSPENDED:
        raise RefusedError("the peer is suspended; resume the peer first", code="peer-not-active")
    require_reason(reason, "resume a grant")
    return (GrantResumed(),)


# ---- taking rights ----------------------------------------------------------------------------


def reject(grant: Grant, reason: str | None, at: datetime) -> tuple[Fact, ...]:
    """Reject a proposal; one rejection ends it.

    Raises:
        InvalidError: reason-required, reason-too-long.
        RefusedError: wrong-status.
    """
    _require_status(grant, "reject", GrantStatus.PENDING_APPROVAL)
    require_reason(reason, "reject a grant")
    return (GrantRejected(), *_cancelled_tokens(grant, at))


def narrow(
    grant: Grant,
    *,
    scope: Scope | None,
    expires_at: datetime | None,
    reason: str | None,
    at: datetime,
) -> tuple[Fact, ...]:
    """Take away part of a grant, at once; None keeps a term.

    Certificates that would outlive the new expiry are revoked. An issuance still open that would
    is withheld when it completes.

    Raises:
        InvalidError: reason-required, reason-too-long, expires-in-past, empty-validity.
        RefusedError: wrong-status, widening-requires-new-grant (with `widened`),
            nothing-to-narrow.
    """
    _require_status(grant, "narrow", GrantStatus.ACTIVE, GrantStatus.SUSPENDED)
    new_scope, end = scope or grant.scope, expires_at or grant.expires_at
    comparison = narrower(new_scope, grant.scope)
    widened = (*comparison.widened, *(("expires_at",) if end > grant.expires_at else ()))
    if widened:
        raise RefusedError(
            f"this would widen {', '.join(widened)}; propose a new grant for that",
            code="widening-requires-new-grant",
            widened=list(widened),
        )
    if not comparison.changed and end == grant.expires_at:
        raise RefusedError(
            "nothing would become smaller; name a smaller scope or an earlier expiry",
            code="nothing-to-narrow",
        )
    if end != grant.expires_at:
        _require_end(grant.not_before, end, at)
    require_reason(reason, "narrow a grant")
    narrowed = GrantNarrowed(
        scope=new_scope,
        not_before=grant.not_before,
        expires_at=end,
        terms_digest=terms_digest(
            grant.peer_id, grant.subject_user_id, new_scope, grant.not_before, end
        ),
        sensitive=bool(new_scope.sensitive),
    )
    return (narrowed, *_revoked_certificates(grant, "grant-narrowed", at, outliving=end))


def suspend(grant: Grant, reason: str | None) -> tuple[Fact, ...]:
    """Suspend a grant until it is resumed; its certificates are on hold as long.

    Raises:
        InvalidError: reason-required, reason-too-long.
        RefusedError: wrong-status.
    """
    _require_status(grant, "suspend", GrantStatus.PENDING_ENROLLMENT, GrantStatus.ACTIVE)
    require_reason(reason, "suspend a grant")
    return (GrantSuspended(),)


def revoke(
    grant: Grant, reason: str | None, at: datetime, *, detail: str = "grant-revoked"
) -> tuple[Fact, ...]:
    """Revoke a grant for good; nothing happens the second time.

    In the same append: live tokens are cancelled and every issued, unexpired, unrevoked
    certificate is revoked. What is authorized but not yet signed cannot be listed here: nobody
    knows its bytes. It counts as revoked through the grant from now on, and whoever completes it
    decides anew and withholds it (`certificates.complete`).

    Raises:
        InvalidError: reason-required, reason-too-long.
        RefusedError: wrong-status (expired or rejected).
    """
    if grant.status is GrantStatus.REVOKED:
        return ()
    _require_status(grant, "revoke", *(frozenset(GrantStatus) - TERMINAL))
    require_reason(reason, "revoke a grant")
    return (
        GrantRevoked(),
        *_cancelled_tokens(grant, at),
        *_revoked_certificates(grant, detail, at),
    )


def expire(grant: Grant, peer: Peer, policy: Policy, at: datetime) -> tuple[Fact, ...]:
    """Put on record that the clock has ended a grant: bookkeeping, nothing depends on it.

    Nothing happens unless the effective status says expired: a grant whose peer was revoked
    before its expiry is revoked, and an expiry on record would hide that.
    """
    if grant.status in TERMINAL or effective_status(grant, peer, policy, at) is not (
        GrantStatus.EXPIRED
    ):
        return ()
    return (GrantExpired(), *_cancelled_tokens(grant, at))


# ---- shared by the commands -------------------------------------------------------------------


def _cancelled_tokens(grant: Grant, at: datetime, *, amended: bool = False) -> tuple[Fact, ...]:
    return tuple(
        EnrollmentTokenCancelled(
            accessor=token.accessor, cause="grant-amended" if amended else "grant-ended"
        )
        for token in live_tokens(grant, at)
    )


def _revoked_certificates(
    grant: Grant, detail: str, at: datetime, *, outliving: datetime | None = None
) -> tuple[Fact, ...]:
    return tuple(
        CertificateRevoked(
            serial=issuance.serial, revocation_reason="cessationOfOperation", detail=detail
        )
        for issuance in grant.issuances.values()
        if issuance.state is IssuanceState.ISSUED
        and issuance.revocation is None
        and at <= issuance.not_after
        and (outliving is None or issuance.not_after > outliving)
    )


def _require_status(grant: Grant, command: str, *allowed: GrantStatus) -> None:
    if grant.status not in allowed:
        names = sorted(one.value for one in allowed)
        raise RefusedError(
            f"{command} needs a grant that is {' or '.join(names)}; this one is {grant.status}",
            code="wrong-status",
            status=grant.status.value,
            allowed=names,
        )


def _require_validity(
    policy: Policy, not_before: datetime, expires_at: datetime, at: datetime
) -> None:
    _require_end(not_before, expires_at, at)
    if expires_at > at + timedelta(days=policy.max_grant_days):
        raise InvalidError(
            f"the policy allows grants of {policy.max_grant_days} days; choose an earlier expiry",
            code="expires-too-late",
            max_grant_days=policy.max_grant_days,
        )


def _require_end(not_before: datetime, expires_at: datetime, at: datetime) -> None:
    if expires_at <= at:
        raise InvalidError(
            "expires_at lies in the past; choose a later moment, or revoke", code="expires-in-past"
        )
    if expires_at <= not_before:
        raise InvalidError(
            "expires_at must be later than not_before; the grant would never be valid",
            code="empty-validity",
        )
