"""Decides a recorded command again, by the rules of `ledger/`, on other states than it was decided on. Pure.

A command is told by the first of its facts: whoever gave it, when, and with what is in the events; the
states are those of a history in which something is different. The answer is what the command would have
recorded then, or nothing. What the rules read but no event keeps (that a peer's revocation was told to
take its grants along, the failures a lock counted) is taken as it was.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar
from uuid import UUID

from ledger import (
    alarms,
    authorities,
    certificates,
    enrollment,
    grants,
    issuance,
    operators,
    peers,
    policy,
)
from ledger.alarms import Alarm
from ledger.authorities import Authority
from ledger.bearer import Bearer
from ledger.certificates import CloneSuspected
from ledger.errors import NotFoundError
from ledger.events import (
    POLICY_ID,
    Actor,
    AlarmAcknowledged,
    AuthorityAdopted,
    AuthorityRetired,
    CertificateAuthorityTold,
    CertificateCloneSuspected,
    CertificateFoundUnknown,
    CertificateIssued,
    CertificateMisIssued,
    CertificateRevoked,
    CredentialIssued,
    CredentialRevoked,
    EnrollmentTokenCancelled,
    EnrollmentTokenIssued,
    EnrollmentTokenLocked,
    EnrollmentTokenRedeemed,
    Event,
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
    IssuanceAbandoned,
    IssuanceAuthorized,
    IssuanceFailed,
    OperatorDisabled,
    OperatorRegistered,
    OperatorRolesChanged,
    PeerActivated,
    PeerRegistered,
    PeerResumed,
    PeerRevoked,
    PeerSuspended,
    PeerUpdated,
    PolicyChanged,
)
from ledger.grant_state import Grant
from ledger.issuance import AlreadyClosed, Authorized, Closed, Order, Request, Signed
from ledger.operators import Operator
from ledger.peers import Peer
from ledger.policy import DEFAULT, Policy

S = TypeVar("S")
Facts = Sequence[Fact]


@dataclass(frozen=True, slots=True)
class Command:
    """One command as recorded: its events of one stream, in order.

    `state` gives the folded state of a stream in the other history, None if it has none there;
    `operators` all operators there are in it. `before`: the policy as it really was.
    """

    events: Sequence[Event]
    state: Callable[[UUID], Any]
    operators: Callable[[], Sequence[Operator]]
    before: Policy

    @property
    def first(self) -> Event:
        return self.events[0]

    @property
    def at(self) -> datetime:
        return self.first.at

    @property
    def reason(self) -> str | None:
        return self.first.reason

    @property
    def actor(self) -> Actor:
        return self.first.actor

    def own(self, kind: type[S]) -> S:
        """The stream's own state. Raises NotFoundError."""
        found = self.state(self.first.originator_id)
        if not isinstance(found, kind):
            raise NotFoundError("it would not be there")
        return found

    def peer_of(self, grant: Grant) -> Peer:
        found = self.state(grant.peer_id)
        if not isinstance(found, Peer):
            raise NotFoundError("its peer would not be there")
        return found

    @property
    def policy(self) -> Policy:
        return self.state(POLICY_ID) or DEFAULT

    def approvers(self, grant: Grant) -> Mapping[str, Operator]:
        named = {one.approver: self.state(UUID(one.approver)) for one in grant.approvals}
        return {name: one for name, one in named.items() if isinstance(one, Operator)}

    def authority(self, authority_id: UUID) -> Authority:
        found = self.state(authority_id)
        if not isinstance(found, Authority):
            raise NotFoundError("its authority would not be there")
        return found

    def permit(self, name: str) -> None:
        """Refuse unless the actor may give this command there. Raises LedgerError."""
        mine = self.state(UUID(self.actor.id)) if self.actor.kind == "operator" else None
        operators.require(name, self.actor, mine, self.at)

    def fact(self, kind: type[S]) -> S:
        """The command's first fact of a kind."""
        return next(event.data for event in self.events if isinstance(event.data, kind))


def decide(command: Command) -> Facts:
    """Return the facts that the command would record.

    Raises:
        LedgerError: the rules would refuse it.
    """
    rule = _RULES.get(type(command.first.data))
    # What has no rule (notes, the ledger's own stream) is no one's decision: it stands.
    return rule(command) if rule else [event.data for event in command.events]


# ---- peers, operators, policy, authorities, alarms --------------------------------------------


def _register_peer(c: Command) -> Facts:
    c.permit("register-peer")
    fact = c.fact(PeerRegistered)
    return peers.register(fact.name, fact.base_url)


def _peer(name: str, rule: Callable[[Peer, Command], Facts]) -> Callable[[Command], Facts]:
    def decide_it(c: Command) -> Facts:
        c.permit(name)
        return rule(c.own(Peer), c)

    return decide_it


def _register_operator(c: Command) -> Facts:
    fact = c.fact(OperatorRegistered)
    c.permit(operators.command_for(fact.roles))
    return operators.register(fact.kind, fact.roles)


def _operator(
    rule: Callable[[Operator, Command], Facts], roles: Callable[[Command], Sequence[str]]
) -> Callable[[Command], Facts]:
    def decide_it(c: Command) -> Facts:
        operator = c.own(Operator)
        c.permit(operators.command_for(operator.roles, roles(c)))
        return rule(operator, c)

    return decide_it


def _no_roles(c: Command) -> Sequence[str]:
    return ()


def _others(operator: Operator, c: Command) -> frozenset[str]:
    return frozenset(
        role
        for one in c.operators()
        if one.id != operator.id
        for role in ("admin", "approver")
        if one.holds(role)
    )


def _issue_credential(operator: Operator, c: Command) -> Facts:
    fact = c.fact(CredentialIssued)
    bearer = Bearer("", fact.accessor, fact.token_sha256)
    return operators.issue_credential(operator, bearer, fact.expires_at - c.at, c.at)


def _change_policy(c: Command) -> Facts:
    c.permit("change-policy")
    recorded = c.fact(PolicyChanged).model_dump()
    changes = {name: v for name, v in recorded.items() if v != getattr(c.before, name)}
    return policy.change(c.policy, changes)


def _adopt(c: Command) -> Facts:
    fact = c.fact(AuthorityAdopted)
    present = c.state(c.first.originator_id)
    return authorities.adopt(present, fact.kind, fact.chain, fact.not_after)


def _find_unknown(c: Command) -> Facts:
    fact = c.fact(CertificateFoundUnknown)
    authority = c.own(Authority)
    return authorities.find_unknown(authority, fact.serial, fact.certificate, fact.found_in)


def _acknowledge(c: Command) -> Facts:
    c.permit("acknowledge-alarm")
    return alarms.acknowledge(c.own(Alarm), c.reason)


# ---- grants -----------------------------------------------------------------------------------


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


def _taking(name: str, rule: Callable[[Grant, Command], Facts]) -> Callable[[Command], Facts]:
    def decide_it(c: Command) -> Facts:
        c.permit(name)
        return rule(c.own(Grant), c)

    return decide_it


def _expire(c: Command) -> Facts:
    grant = c.own(Grant)
    return grants.expire(grant, c.peer_of(grant), c.policy, c.at)


# ---- tokens and certificates ------------------------------------------------------------------


def _token(c: Command) -> Facts:
    """A new token, which may cancel one before it; or a cancellation alone."""
    issued = [e.data for e in c.events if isinstance(e.data, EnrollmentTokenIssued)]
    grant = c.own(Grant)
    if not issued:
        c.permit("cancel-enrollment-token")
        return enrollment.cancel_token(grant, c.fact(EnrollmentTokenCancelled).accessor, c.at)
    c.permit("issue-enrollment-token")
    (fact,) = issued
    bearer = Bearer("", fact.accessor, fact.token_sha256)
    life = fact.expires_at - c.at
    return enrollment.issue_token(
        grant, c.peer_of(grant), c.policy, bearer, life, fact.key_digest, c.at
    )


def _lock(c: Command) -> Facts:
    fact = c.fact(EnrollmentTokenLocked)
    return enrollment.lock_token(c.own(Grant), fact.accessor, fact.failures, c.at)


def _authorize(c: Command) -> Facts:
    """An enrollment or a renewal: the same request, and an order cut to what would be allowed."""
    grant, fact = c.own(Grant), c.fact(IssuanceAuthorized)
    peer, authority = c.peer_of(grant), c.authority(fact.authority_id)
    request = Request(fact.csr, fact.csr_sha256, fact.key_digest)
    order = _order(fact, grant, authority, c)
    found: object
    if fact.kind == "renewal":
        found = certificates.renew(
            grant, peer, c.policy, authority, fact.predecessor or "", request, order, c.at
        )
    else:
        token = grant.tokens.get(fact.accessor or "")
        if token is None:
            raise NotFoundError("its enrollment token would not be there")
        presented = enrollment.Presented(token.accessor, token.token_sha256)
        found = enrollment.redeem(
            grant, peer, c.policy, c.approvers(grant), authority, presented, request, order, c.at
        )
    return found.facts if isinstance(found, Authorized | CloneSuspected) else ()


def _order(fact: IssuanceAuthorized, grant: Grant, authority: Authority, c: Command) -> Order:
    end = min(
        fact.not_after,
        grant.expires_at.replace(microsecond=0),
        authority.not_after - timedelta(seconds=1),
        (c.at + c.policy.certificate_life).replace(microsecond=0),
    )
    return Order(
        fact.issuance_id, fact.serial, fact.not_before, end, fact.subject, fact.san,
        fact.extensions, fact.authority_id, fact.profile_version,
    )  # fmt: skip


def _suspect_clone(c: Command) -> Facts:
    """Still two holders? Without the successor it would have been a renewal like any other."""
    grant, fact = c.own(Grant), c.fact(CertificateCloneSuspected)
    successor = grant.issuance_of(fact.successor)
    if successor is None:
        raise NotFoundError("the certificate would have no successor")
    authority = c.authority(successor.authorization.authority_id)
    found = certificates.renew(
        grant, c.peer_of(grant), c.policy, authority, fact.serial,
        Request(b"", fact.csr_sha256, fact.key_digest),
        _order(successor.authorization, grant, authority, c), c.at,
    )  # fmt: skip
    return found.facts if isinstance(found, CloneSuspected) else ()


def _close(rule: Callable[[Grant, Command], Closed | AlreadyClosed]) -> Callable[[Command], Facts]:
    def decide_it(c: Command) -> Facts:
        outcome = rule(c.own(Grant), c)
        return outcome.facts if isinstance(outcome, Closed) else ()

    return decide_it


def _complete(grant: Grant, c: Command) -> Closed | AlreadyClosed:
    fact = c.fact(CertificateIssued)
    signed = Signed(fact.certificate, fact.certificate_sha256, fact.tbs_sha256)
    return issuance.complete(
        grant, c.peer_of(grant), c.policy, c.approvers(grant), fact.issuance_id, signed, c.at
    )


def _mis_issued(grant: Grant, c: Command) -> Closed | AlreadyClosed:
    fact = c.fact(CertificateMisIssued)
    return issuance.mis_issued(grant, fact.issuance_id, fact.certificate, fact.findings)


def _failed(grant: Grant, c: Command) -> Closed | AlreadyClosed:
    fact = c.fact(IssuanceFailed)
    return issuance.fail(grant, fact.issuance_id, fact.status, fact.detail)


def _abandoned(grant: Grant, c: Command) -> Closed | AlreadyClosed:
    fact = c.fact(IssuanceAbandoned)
    return issuance.abandon(grant, fact.issuance_id, fact.detail)


def _revoke_certificates(grant: Grant, c: Command) -> Facts:
    facts = [e.data for e in c.events if isinstance(e.data, CertificateRevoked)]
    known = [fact for fact in facts if grant.issuance_of(fact.serial) is not None]
    if not known:
        raise NotFoundError("the certificate would not be there")
    first = known[0]
    serials = [fact.serial for fact in known]
    return certificates.revoke(grant, serials, first.revocation_reason, first.detail, c.reason)


def _tell_authority(c: Command) -> Facts:
    grant, fact = c.own(Grant), c.fact(CertificateAuthorityTold)
    peer = c.peer_of(grant)
    return certificates.tell_authority(grant, peer, fact.serial, fact.answer, fact.status, c.at)


_RULES: Final[Mapping[type[Fact], Callable[[Command], Facts]]] = {
    PeerRegistered: _register_peer,
    PeerActivated: _peer(
        "activate-peer", lambda peer, c: peers.activate(peer, c.fact(PeerActivated).verification)
    ),
    PeerUpdated: _peer(
        "update-peer", lambda peer, c: peers.update(peer, c.fact(PeerUpdated).base_url)
    ),
    PeerSuspended: _peer("suspend-peer", lambda peer, c: peers.suspend(peer, c.reason)),
    PeerResumed: _peer("resume-peer", lambda peer, c: peers.resume(peer, c.reason)),
    PeerRevoked: _peer(
        "revoke-peer",
        lambda peer, c: peers.revoke(peer, c.reason, live_grants=(), revoke_grants=True),
    ),
    OperatorRegistered: _register_operator,
    OperatorRolesChanged: _operator(
        lambda operator, c: operators.change_roles(
            operator,
            c.fact(OperatorRolesChanged).roles,
            c.actor,
            c.at,
            others=_others(operator, c),
        ),
        lambda c: c.fact(OperatorRolesChanged).roles,
    ),
    OperatorDisabled: _operator(
        lambda operator, c: operators.disable(operator, c.at, others=_others(operator, c)),
        _no_roles,
    ),
    CredentialIssued: _operator(_issue_credential, _no_roles),
    CredentialRevoked: _operator(
        lambda operator, c: operators.revoke_credential(
            operator, c.fact(CredentialRevoked).accessor
        ),
        _no_roles,
    ),
    PolicyChanged: _change_policy,
    AuthorityAdopted: _adopt,
    AuthorityRetired: lambda c: authorities.retire(c.own(Authority)),
    CertificateFoundUnknown: _find_unknown,
    AlarmAcknowledged: _acknowledge,
    GrantProposed: _propose,
    GrantApproved: _approve,
    GrantRejected: _taking("reject-grant", lambda g, c: grants.reject(g, c.reason, c.at)),
    GrantAmended: _amend,
    GrantNarrowed: _narrow,
    GrantSuspended: _taking("suspend-grant", lambda grant, c: grants.suspend(grant, c.reason)),
    GrantResumed: _resume,
    GrantRevoked: _revoke,
    GrantExpired: _expire,
    EnrollmentTokenIssued: _token,
    EnrollmentTokenCancelled: _token,
    EnrollmentTokenLocked: _lock,
    EnrollmentTokenRedeemed: _authorize,
    IssuanceAuthorized: _authorize,
    CertificateIssued: _close(_complete),
    CertificateMisIssued: _close(_mis_issued),
    IssuanceFailed: _close(_failed),
    IssuanceAbandoned: _close(_abandoned),
    CertificateRevoked: _taking("revoke-certificate", _revoke_certificates),
    CertificateCloneSuspected: _suspect_clone,
    CertificateAuthorityTold: _tell_authority,
}
"""By the first fact of a command. It is told apart from its companions by that alone."""
