"""What a grant's state means at a moment: effective status, usability, counting approvals, tokens.

Pure functions of state and time for commands, access decisions, filters and replay alike; nothing
here changes anything. The stored status alone never says whether a grant may be used.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final, NoReturn

from ledger.errors import GoneError, RefusedError
from ledger.grant_state import TERMINAL, Grant, GrantStatus, Token, TokenState
from ledger.operators import Operator
from ledger.peers import Peer, PeerState
from ledger.policy import Policy

_TEXTS: Final[Mapping[str, str]] = {
    "grant-expired": "the grant has expired; ask for a new grant",
    "grant-revoked": "the grant was revoked; ask for a new grant",
    "grant-rejected": "the grant was rejected; ask for a new grant",
    "grant-suspended": "the grant or its peer is suspended; wait until it is resumed",
    "grant-pending-approval": "the grant lacks approval; have its present terms approved first",
    "grant-pending-enrollment": "the peer has not enrolled yet; enroll with a token first",
    "peer-not-active": "the peer is not active; have it activated or resumed first",
    "not-yet-valid": "the grant is not valid yet; try again once its not_before has come",
}


def effective_status(grant: Grant, peer: Peer, policy: Policy, at: datetime) -> GrantStatus:
    """Return the grant's status at `at`; the first of these that holds.

    An end on record; its peer revoked before the grant's expiry; expired by the clock; grant or
    peer suspended; sensitive, never activated and with fewer unlapsed approvals than the policy
    asks for now; else what is stored. `peer` and `policy` are those of the same position.
    """
    if grant.status in TERMINAL:
        return grant.status
    if peer.revoked_at is not None and peer.revoked_at < grant.expires_at:
        return GrantStatus.REVOKED
    if at >= grant.expires_at:
        return GrantStatus.EXPIRED
    if GrantStatus.SUSPENDED is grant.status or peer.state is PeerState.SUSPENDED:
        return GrantStatus.SUSPENDED
    if (
        grant.status is GrantStatus.PENDING_ENROLLMENT
        and grant.sensitive
        and unlapsed_approvals(grant, at) < policy.approvals
    ):
        return GrantStatus.PENDING_APPROVAL
    return grant.status


def unlapsed_approvals(grant: Grant, at: datetime) -> int:
    """Count the people whose approval of the present terms has not lapsed at `at`."""
    return sum(at < approval.lapses_at for approval in grant.approvals)


def counting_approvers(
    grant: Grant, policy: Policy, operators: Mapping[str, Operator], at: datetime
) -> frozenset[str]:
    """Return who counts as an approver now: unlapsed, enabled, still in the role, and not an author
    of the terms while four eyes are asked for.

    `operators`: the folded streams of the approvers, by id as text; who is missing does not count.
    """
    roles = ("approver",) if policy.four_eyes else ("approver", "admin")
    return frozenset(
        approval.approver
        for approval in grant.approvals
        if at < approval.lapses_at
        and approval.approver in operators
        and operators[approval.approver].holds(*roles)
        and not (policy.four_eyes and is_author(grant, approval.approver))
    )


def is_author(grant: Grant, actor_id: str) -> bool:
    """Whether this actor proposed or ever amended the grant."""
    return actor_id == grant.proposed_by or actor_id in grant.amended_by


def unusable_because(
    grant: Grant, peer: Peer, policy: Policy, at: datetime, *, enrolling: bool
) -> str | None:
    """Return the code of what keeps the grant from being used at `at`, None if nothing does.

    `enrolling`: use means enrolling, so a grant waiting for enrollment is usable too.

    Codes: grant-expired, grant-revoked, grant-rejected, grant-suspended, grant-pending-approval,
    grant-pending-enrollment, peer-not-active, not-yet-valid.
    """
    status = effective_status(grant, peer, policy, at)
    waiting = enrolling and status is GrantStatus.PENDING_ENROLLMENT
    if status is not GrantStatus.ACTIVE and not waiting:
        return _code(status)
    if peer.state is not PeerState.ACTIVE:
        return "peer-not-active"
    return "not-yet-valid" if at < grant.not_before else None


def require_usable(
    grant: Grant, peer: Peer, policy: Policy, at: datetime, *, enrolling: bool
) -> None:
    """Refuse unless the grant is usable at `at`.

    Raises:
        GoneError: grant-expired, grant-revoked, grant-rejected.
        RefusedError: the other codes of `unusable_because`.
    """
    code = unusable_because(grant, peer, policy, at, enrolling=enrolling)
    if code is not None:
        refuse(code)


def refuse(code: str) -> NoReturn:
    """Raise the error of one code of `unusable_because`."""
    ended = code in {_code(status) for status in TERMINAL}
    raise (GoneError if ended else RefusedError)(_TEXTS[code], code=code)


def refuse_if_ended(grant: Grant, peer: Peer, policy: Policy, at: datetime) -> None:
    """Refuse a peer's request for a grant whose effective status is final.

    Raises:
        GoneError: grant-expired, grant-revoked, grant-rejected.
    """
    status = effective_status(grant, peer, policy, at)
    if status in TERMINAL:
        refuse(_code(status))


def require_not_ended(grant: Grant, peer: Peer, policy: Policy, at: datetime) -> None:
    """Refuse a command to a grant whose effective status is final.

    Raises:
        RefusedError: grant-expired, grant-revoked, grant-rejected.
    """
    status = effective_status(grant, peer, policy, at)
    if status in TERMINAL:
        raise RefusedError(_TEXTS[_code(status)], code=_code(status))


def require_giving(grant: Grant, peer: Peer, policy: Policy, at: datetime) -> None:
    """Refuse a command that gives rights to a grant that has ended or is suspended.

    Raises:
        RefusedError: grant-expired, grant-revoked, grant-rejected, grant-suspended.
    """
    require_not_ended(grant, peer, policy, at)
    if effective_status(grant, peer, policy, at) is GrantStatus.SUSPENDED:
        refuse("grant-suspended")


def token_state(token: Token, grant: Grant, at: datetime) -> TokenState:
    """Return the token's state at `at`: as stored, or expired by its own or the grant's end."""
    if token.state is TokenState.ISSUED and at >= min(token.expires_at, grant.expires_at):
        return TokenState.EXPIRED
    return token.state


def live_tokens(grant: Grant, at: datetime) -> tuple[Token, ...]:
    """Return the tokens that could still be redeemed at `at`, the grant's status aside."""
    return tuple(
        token
        for token in grant.tokens.values()
        if token_state(token, grant, at) is TokenState.ISSUED
    )


def _code(status: GrantStatus) -> str:
    return "grant-" + status.value.replace("_", "-")
