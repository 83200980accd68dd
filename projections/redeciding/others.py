"""Commands on peers, operators, the policy, authorities and alarms, decided again. Pure."""

from collections.abc import Callable, Sequence
from typing import Final

from msgspec.structs import asdict

from ledger import alarms, authorities, operators, peers, policy
from ledger.alarms import Alarm
from ledger.authorities import Authority
from ledger.bearer import Bearer
from ledger.events import (
    AlarmAcknowledged,
    AuthorityAdopted,
    AuthorityRetired,
    CertificateFoundUnknown,
    CredentialIssued,
    CredentialRevoked,
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
from ledger.operators import Operator
from ledger.peers import Peer
from projections.redeciding.command import Command, Facts, Rule, Rules, permitted


def _register_peer(c: Command) -> Facts:
    c.permit("register-peer")
    fact = c.fact(PeerRegistered)
    return peers.register(fact.name, fact.base_url)


def _register_operator(c: Command) -> Facts:
    fact = c.fact(OperatorRegistered)
    c.permit(operators.command_for(fact.roles))
    return operators.register(fact.kind, fact.roles)


def _operator(
    rule: Callable[[Operator, Command], Facts], roles: Callable[[Command], Sequence[str]]
) -> Rule:
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
    recorded = asdict(c.fact(PolicyChanged))
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


RULES: Final[Rules] = {
    PeerRegistered: _register_peer,
    PeerActivated: permitted(
        "activate-peer",
        Peer,
        lambda peer, c: peers.activate(peer, c.fact(PeerActivated).verification),
    ),
    PeerUpdated: permitted(
        "update-peer", Peer, lambda peer, c: peers.update(peer, c.fact(PeerUpdated).base_url)
    ),
    PeerSuspended: permitted("suspend-peer", Peer, lambda peer, c: peers.suspend(peer, c.reason)),
    PeerResumed: permitted("resume-peer", Peer, lambda peer, c: peers.resume(peer, c.reason)),
    PeerRevoked: permitted(
        "revoke-peer",
        Peer,
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
    AlarmAcknowledged: permitted(
        "acknowledge-alarm", Alarm, lambda alarm, c: alarms.acknowledge(alarm, c.reason)
    ),
}
