"""Enrollment tokens: issuing, cancelling, locking, and what redeeming one leads to.

It does not read a CSR or sign: `ca/csr.py` and `ca/issuance.py` do. A stranger learns nothing from
a refusal: whatever is wrong with the token, the text is one and the same, and only `cause` in the
error's facts tells it apart. That is for the ledger's notes and must never be answered.

Causes: unknown-token · wrong-secret · token-expired · token-cancelled · token-locked ·
token-replayed · wrong-pin. What is wrong with a CSR is answered openly: only its maker can send it
with the right secret. `counts_towards_lock` says which failures a token survives ten times only.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from ledger.authorities import Authority
from ledger.bearer import Bearer, same_digest
from ledger.errors import InvalidError, NotFoundError, RefusedError, UnauthorizedError
from ledger.events import (
    EnrollmentTokenCancelled,
    EnrollmentTokenIssued,
    EnrollmentTokenLocked,
    EnrollmentTokenRedeemed,
    Fact,
)
from ledger.grant_state import Grant, GrantStatus, Issuance, Token, TokenState
from ledger.grant_status import (
    effective_status,
    live_tokens,
    refuse,
    require_giving,
    token_state,
)
from ledger.issuance import (
    AlreadyIssued,
    Authorized,
    Order,
    Request,
    StillOpen,
    authorize,
    require_enrollable,
    reuse,
)
from ledger.operators import Operator
from ledger.peers import Peer
from ledger.policy import Policy

LONGEST_LIFE: Final = timedelta(days=7)
FAILURES_TO_LOCK: Final = 10
_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Presented:
    """A token as presented: its accessor and the SHA-256 (hex) of its whole text."""

    accessor: str
    token_sha256: str


# ---- issuing, cancelling, locking -------------------------------------------------------------


def issue_token(
    grant: Grant,
    peer: Peer,
    policy: Policy,
    bearer: Bearer,
    ttl: timedelta | None,
    key_digest: str | None,
    at: datetime,
) -> tuple[Fact, ...]:
    """Record a token just minted; a live one before it is cancelled, so that one exists at a time.

    It ends after `ttl` (None: the policy's), at the latest with the grant. `key_digest` pins the
    key that may enroll.

    Raises:
        InvalidError: token-ttl, key-digest.
        RefusedError: grant-pending-approval, grant-suspended, grant-expired, grant-revoked,
            grant-rejected.
    """
    require_giving(grant, peer, policy, at)
    if effective_status(grant, peer, policy, at) is GrantStatus.PENDING_APPROVAL:
        refuse("grant-pending-approval")
    life = policy.token_life if ttl is None else ttl
    if not timedelta(0) < life <= LONGEST_LIFE:
        raise InvalidError(
            "an enrollment token lives longer than 0 seconds and at most 7 days", code="token-ttl"
        )
    if key_digest is not None and not _DIGEST.fullmatch(key_digest):
        raise InvalidError(
            "the key digest is the SHA-256 of the SubjectPublicKeyInfo as 64 lower-case hex digits",
            code="key-digest",
        )
    replaced = tuple(
        EnrollmentTokenCancelled(accessor=token.accessor, cause="replaced")
        for token in live_tokens(grant, at)
    )
    issued = EnrollmentTokenIssued(
        accessor=bearer.accessor,
        token_sha256=bearer.digest,
        expires_at=min(at + life, grant.expires_at),
        key_digest=key_digest,
    )
    return (*replaced, issued)


def cancel_token(grant: Grant, accessor: str, at: datetime) -> tuple[Fact, ...]:
    """Cancel a token; nothing happens if it can no longer be redeemed anyway.

    Raises:
        NotFoundError: the grant has no such token.
        RefusedError: token-redeemed.
    """
    token = grant.tokens.get(accessor)
    if token is None:
        raise NotFoundError("the grant has no such enrollment token")
    if token.state is TokenState.REDEEMED:
        raise RefusedError(
            "the token was redeemed; revoke the certificate or the grant instead",
            code="token-redeemed",
        )
    if token_state(token, grant, at) is not TokenState.ISSUED:
        return ()
    return (EnrollmentTokenCancelled(accessor=accessor, cause="operator"),)


def lock_token(grant: Grant, accessor: str, failures: int, at: datetime) -> tuple[Fact, ...]:
    """Lock a live token after its tenth failure with the right secret, the last one included in
    `failures`. The only trace that failed redemptions leave in the grant's stream.
    """
    token = grant.tokens.get(accessor)
    if token is None or token_state(token, grant, at) is not TokenState.ISSUED:
        return ()
    if failures < FAILURES_TO_LOCK:
        return ()
    return (EnrollmentTokenLocked(accessor=accessor, failures=failures),)


def counts_towards_lock(cause: str) -> bool:
    """Whether a failure noted with this cause counts towards the lock of its token.

    Only what a holder of the right secret got wrong: the pin, the CSR (`csr-…`) or its key
    (`key-…`). A stranger cannot lock a token he does not know, nor a suspension lock a peer out.
    """
    return cause == "wrong-pin" or cause.startswith(("csr-", "key-"))


# ---- redeeming --------------------------------------------------------------------------------


def redeem(
    grant: Grant,
    peer: Peer,
    policy: Policy,
    operators: Mapping[str, Operator],
    authority: Authority,
    presented: Presented,
    request: Request,
    order: Order,
    at: datetime,
) -> Authorized | StillOpen | AlreadyIssued:
    """Decide what presenting a token with a CSR leads to (steps 1 and 6 of the cycle).

    `operators`: the folded streams of the grant's approvers, by id. `order` is used only for
    `Authorized`. The same token with the same CSR gets the same issuance until the token's end; if
    that failed or was abandoned, a new one with the new serial of `order`.

    Raises:
        UnauthorizedError: with `cause`; see the module's text.
        GoneError: grant-expired, grant-revoked, grant-rejected, certificate-revoked.
        RefusedError: grant-suspended, grant-pending-approval, peer-not-active, not-yet-valid,
            key-compromised, grant-expiring, authority-expiring, order-mismatch.
        UnavailableError: authority-unavailable.
    """
    token = _recognised(grant, presented, request, at)
    before = _last_issuance(grant, token)
    if before is not None:
        found = reuse(before, grant, peer, at)
        if found is not None:
            return found
    require_enrollable(grant, peer, policy, operators, at)
    fact, claims = authorize(
        grant,
        peer,
        policy,
        authority,
        request,
        order,
        at,
        kind="enrollment",
        generation=1,
        accessor=token.accessor,
    )
    if before is not None:
        return Authorized(order.issuance_id, (fact,), claims)
    redeemed = EnrollmentTokenRedeemed(
        accessor=token.accessor,
        issuance_id=order.issuance_id,
        csr_sha256=request.csr_sha256,
        key_digest=request.key_digest,
    )
    return Authorized(order.issuance_id, (redeemed, fact), claims)


def _recognised(grant: Grant, presented: Presented, request: Request, at: datetime) -> Token:
    token = grant.tokens.get(presented.accessor)
    if token is None:
        raise token_refused("unknown-token")
    # Compared again with the folded stream: the table it was found by may be stale or altered.
    if not same_digest(presented.token_sha256, token.token_sha256):
        raise token_refused("wrong-secret")
    if at >= min(token.expires_at, grant.expires_at):
        raise token_refused("token-expired")
    if token.state in (TokenState.CANCELLED, TokenState.LOCKED):
        raise token_refused(f"token-{token.state}")
    if token.state is TokenState.REDEEMED and token.csr_sha256 != request.csr_sha256:
        raise token_refused("token-replayed")
    if token.key_digest is not None and token.key_digest != request.key_digest:
        raise token_refused("wrong-pin")
    return token


def token_refused(cause: str) -> UnauthorizedError:
    """Return the one refusal a stranger sees, whatever the cause.

    For callers too, who find out themselves that a token is malformed or in no table.
    """
    return UnauthorizedError("enrollment token is not valid", cause=cause)


def _last_issuance(grant: Grant, token: Token) -> Issuance | None:
    mine = [
        issuance
        for issuance in grant.issuances.values()
        if issuance.authorization.accessor == token.accessor
    ]
    return mine[-1] if mine else None
