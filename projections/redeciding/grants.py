"""Commands on grants, decided again. Pure."""

from typing import Final

from ledger import grants
from ledger.errors import NotFoundError
from ledger.events import (
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
from ledger.grant_state import Grant
from ledger.peers import Peer
from projections.redeciding.command import Command, Facts, Rules, permitted


def _propose(c: Command) -> Facts:
    c.permit("propose-grant")
    fact = c.fact(GrantProposed)
    peer = c.state(fact.peer_id)
    if not isinstance(peer, Peer):
        raise NotFoundError("its peer would not be there")
    return grants.propose(
        peer, c.policy, fact.subject_user_id, fact.scope, fact.not_before, fact.expires_at,
        c.reason, c.at,
    )  # fmt: skip


def _approve(c: Command) -> Facts:
    c.permit("approve-grant" if c.policy.four_eyes else "approve-grant-without-four-eyes")
    grant = c.own(Grant)
    named = c.fact(GrantApproved).terms_digest
    return grants.approve(
        grant, c.peer_of(grant), c.policy, c.approvers(grant), named, c.actor, c.reason, c.at
    )


def _amend(c: Command) -> Facts:
    c.permit("amend-grant")
    grant, fact = c.own(Grant), c.fact(GrantAmended)
    return grants.amend(
        grant, c.peer_of(grant), c.policy, scope=fact.scope, not_before=fact.not_before,
        expires_at=fact.expires_at, reason=c.reason, at=c.at,
    )  # fmt: skip


def _narrow(c: Command) -> Facts:
    c.permit("narrow-grant")
    fact = c.fact(GrantNarrowed)
    return grants.narrow(
        c.own(Grant), scope=fact.scope, expires_at=fact.expires_at, reason=c.reason, at=c.at
    )


def _resume(c: Command) -> Facts:
    grant = c.own(Grant)
    c.permit("resume-grant-after-clone" if grant.clone_suspected else "resume-grant")
    return grants.resume(grant, c.peer_of(grant), c.policy, c.reason, c.at)


def _revoke(c: Command) -> Facts:
    grant = c.own(Grant)
    peer = c.peer_of(grant)
    if c.first.causation_id is not None and c.first.causation_id == peer.revocation_event:
        return grants.revoke(grant, c.reason, c.at, detail="peer-revoked")
    c.permit("revoke-grant")
    return grants.revoke(grant, c.reason, c.at)


def _expire(c: Command) -> Facts:
    grant = c.own(Grant)
    return grants.expire(grant, c.peer_of(grant), c.policy, c.at)


RULES: Final[Rules] = {
    GrantProposed: _propose,
    GrantApproved: _approve,
    GrantRejected: permitted("reject-grant", Grant, lambda g, c: grants.reject(g, c.reason, c.at)),
    GrantAmended: _amend,
    GrantNarrowed: _narrow,
    GrantSuspended: permitted(
        "suspend-grant", Grant, lambda grant, c: grants.suspend(grant, c.reason)
    ),
    GrantResumed: _resume,
    GrantRevoked: _revoke,
    GrantExpired: _expire,
}
