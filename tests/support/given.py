"""Given, when, then: a small world of folded streams in memory, for tests of the rules.

    world = World()
    peer = world.active_peer()
    grant = world.grant(peer, SENSITIVE_SCOPE)          # given
    with refused("four-eyes"):                          # then
        world.approve(grant, by=world.admin)            # when

Every method asks the rule, records the facts it returns as events and folds them. It knows no
database: it shows what the rules say, not that anything is stored.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar
from uuid import UUID, uuid4

import pytest

from ledger import (
    alarms,
    authorities,
    bearer,
    certificates,
    enrollment,
    grant_state,
    grant_status,
    grants,
    issuance,
    operators,
    peers,
    policy,
)
from ledger.appends import ClaimTakenError
from ledger.authorities import Authority
from ledger.errors import LedgerError
from ledger.events import POLICY_ID, Actor, Event, Fact
from ledger.grant_state import Grant, GrantStatus, Token
from ledger.operators import Operator
from ledger.peers import Peer
from ledger.policy import Policy
from ledger.scope import Scope, scope_from_stored

START: Final = datetime(2026, 11, 23, 15, 0, tzinfo=UTC)
REASON: Final = "because a test says so"

EVOLVE: Final[Mapping[type, Any]] = {
    Peer: peers.evolve,
    Grant: grant_state.evolve,
    Operator: operators.evolve,
    Policy: policy.evolve,
    Authority: authorities.evolve,
    alarms.Alarm: alarms.evolve,
}

S = TypeVar("S")


def scope(
    *resources: str,
    excluded: Sequence[str] = (),
    teams: Mapping[str, Sequence[str]] | None = None,
    personal: Mapping[str, bool] | None = None,
    rows: int = 100,
) -> Scope:
    """Return a scope; `teams` and `personal` are per resource."""
    named = [*(teams or {}), *(one for one in personal or {} if one not in (teams or {}))]
    return scope_from_stored(
        {
            "resources": list(resources),
            "excluded_resources": list(excluded),
            "filters": {
                name: {
                    "include_teams": list((teams or {}).get(name, ())),
                    "include_personal": (personal or {}).get(name, True),
                }
                for name in named
            },
            "max_rows_per_query": rows,
        }
    )


PLAIN_SCOPE: Final = scope("tasks", "notes")
SENSITIVE_SCOPE: Final = scope("tasks", "credentials")


def digest(text: str) -> str:
    """Return some SHA-256, the same for the same text."""
    return hashlib.sha256(text.encode()).hexdigest()


def request(name: str, *, key: str | None = None) -> issuance.Request:
    """Return a checked CSR; the same name gives the same bytes and, unless `key`, the same key."""
    der = f"csr {name} {key}".encode()
    return issuance.Request(der, hashlib.sha256(der).hexdigest(), digest(f"key {key or name}"))


def signed(name: str = "certificate") -> issuance.Signed:
    """Return a certificate as an authority hands it over."""
    return issuance.Signed(name.encode(), digest(name), digest(f"tbs {name}"))


@contextmanager
def refused(
    code: str, kind: type[LedgerError] = LedgerError
) -> Iterator[pytest.ExceptionInfo[LedgerError]]:
    """Expect a refusal with this code, and a text that says something."""
    with pytest.raises(kind) as caught:
        yield caught
    assert caught.value.code == code
    assert len(caught.value.detail) > 10


@dataclass(frozen=True)
class Redemption:
    """What the peer did: the grant afterwards, the outcome, and the issuance's id if there is one."""

    grant: Grant
    outcome: issuance.Authorized | issuance.StillOpen | issuance.AlreadyIssued
    issuance_id: UUID


class World:
    """Two admins, two approvers, a signing authority, and whatever a test adds. Time stands still
    until `later` is called.
    """

    def __init__(self, now: datetime = START) -> None:
        self.now = now
        self.events: list[Event] = []
        self.states: dict[UUID, Any] = {}
        self.claims: dict[tuple[str, str], UUID] = {}
        self._drawn = 0
        self.local = Actor(kind="local", id="uid:0", auth="local")
        self.system = Actor(kind="system", id="reconciler", auth="system")
        self.admin = self.person("admin")
        self.admin_2 = self.person("admin")
        self.approver = self.person("approver")
        self.approver_2 = self.person("approver")
        self.authority = self.record(
            Authority,
            uuid4(),
            authorities.adopt(None, "local", [b"issuer", b"root"], now + timedelta(days=3650)),
        )

    # ---- streams ----

    def later(self, **delta: float) -> datetime:
        """Let time pass (arguments of timedelta)."""
        self.now += timedelta(**delta)
        return self.now

    def record(
        self,
        kind: type[S],
        stream_id: UUID,
        facts: Sequence[Fact],
        *,
        by: Actor | None = None,
        reason: str | None = REASON,
        claims: Sequence[tuple[str, str]] = (),
    ) -> S:
        """Append facts to a stream and return its state; a claim can be made once, by anyone."""
        for kind_and_key in claims:
            if kind_and_key in self.claims:
                raise ClaimTakenError(*kind_and_key, self.claims[kind_and_key])
            self.claims[kind_and_key] = stream_id
        for fact in facts:
            before = self.states.get(stream_id)
            event = Event(
                originator_id=stream_id,
                originator_version=1 if before is None else before.version + 1,
                id=uuid4(),
                at=self.now,
                actor=by or self.local,
                correlation_id="test",
                causation_id=None,
                reason=reason,
                data=fact,
            )
            self.events.append(event)
            self.states[stream_id] = EVOLVE[kind](before, event)
        state = self.states[stream_id]
        assert isinstance(state, kind)
        return state

    def again(self, state: S) -> S:
        """Return the present state of the stream an older state belongs to."""
        found: S = self.states[state.id]  # type: ignore[attr-defined]
        return found

    def randomness(self, count: int) -> bytes:
        """Return bytes that never repeat."""
        self._drawn += 1
        return hashlib.shake_256(str(self._drawn).encode()).digest(count)

    # ---- operators and policy ----

    @property
    def policy(self) -> Policy:
        return self.states.get(POLICY_ID, policy.DEFAULT)

    def change_policy(self, **changes: object) -> Policy:
        return self.record(Policy, POLICY_ID, policy.change(self.policy, changes), by=self.approver)

    def person(self, *roles: str) -> Actor:
        """Register an operator with a credential; return it as an actor."""
        operator_id = uuid4()
        operator = self.record(Operator, operator_id, operators.register("person", roles))
        minted = bearer.mint(bearer.BearerKind.OPERATOR, self.randomness)
        self.record(
            Operator,
            operator_id,
            operators.issue_credential(operator, minted, timedelta(days=366), self.now),
        )
        return Actor(
            kind="operator",
            id=str(operator_id),
            roles=tuple(sorted(roles)),
            auth="bearer",
            credential=minted.accessor,
            source="192.0.2.7",
        )

    def operator(self, actor: Actor) -> Operator:
        found = self.states[UUID(actor.id)]
        assert isinstance(found, Operator)
        return found

    def change_roles(
        self, actor: Actor, *roles: str, others: Collection[str] = ("admin", "approver")
    ) -> Operator:
        before = self.operator(actor)
        facts = operators.change_roles(before, roles, self.local, self.now, others=others)
        return self.record(Operator, before.id, facts)

    def disable(self, actor: Actor) -> Operator:
        before = self.operator(actor)
        facts = operators.disable(before, self.now, others=("admin", "approver"))
        return self.record(Operator, before.id, facts)

    def approvers_of(self, grant: Grant) -> dict[str, Operator]:
        return {
            one.approver: self.states[UUID(one.approver)] for one in self.again(grant).approvals
        }

    # ---- peers ----

    def peer(self, name: str = "Example Org") -> Peer:
        facts = peers.register(name, "https://peer.example")
        return self.record(Peer, uuid4(), facts, claims=[peers.claimed_name(name)])

    def active_peer(self, name: str = "Example Org") -> Peer:
        peer = self.peer(name)
        return self.record(Peer, peer.id, peers.activate(peer, "saw the contract"))

    def suspend_peer(self, peer: Peer) -> Peer:
        return self.record(Peer, peer.id, peers.suspend(self.again(peer), REASON))

    def resume_peer(self, peer: Peer) -> Peer:
        return self.record(Peer, peer.id, peers.resume(self.again(peer), REASON))

    def revoke_peer(self, peer: Peer) -> Peer:
        facts = peers.revoke(self.again(peer), REASON, live_grants=(), revoke_grants=True)
        return self.record(Peer, peer.id, facts)

    # ---- grants ----

    def _of(self, grant: Grant) -> tuple[Grant, Peer]:
        now = self.again(grant)
        return now, self.states[now.peer_id]

    def grant(
        self,
        peer: Peer,
        wanted: Scope = PLAIN_SCOPE,
        *,
        days: float = 30,
        not_before: datetime | None = None,
        subject: str = "user-7",
        by: Actor | None = None,
        reason: str | None = REASON,
    ) -> Grant:
        facts = grants.propose(
            self.again(peer),
            self.policy,
            subject,
            wanted,
            not_before,
            self.now + timedelta(days=days),
            reason,
            self.now,
        )
        return self.record(Grant, uuid4(), facts, by=by or self.admin, reason=reason)

    def approve(
        self,
        grant: Grant,
        *,
        by: Actor | None = None,
        terms: str | None = None,
        reason: str | None = REASON,
    ) -> Grant:
        now, peer = self._of(grant)
        actor = by or self.approver
        facts = grants.approve(
            now,
            peer,
            self.policy,
            self.approvers_of(grant),
            terms or now.terms_digest,
            actor,
            reason,
            self.now,
        )
        return self.record(Grant, now.id, facts, by=actor)

    def reject(self, grant: Grant, *, reason: str | None = REASON) -> Grant:
        facts = grants.reject(self.again(grant), reason, self.now)
        return self.record(Grant, grant.id, facts, by=self.approver)

    def amend(
        self,
        grant: Grant,
        *,
        scope: Scope | None = None,
        not_before: datetime | None = None,
        expires_at: datetime | None = None,
        by: Actor | None = None,
        reason: str | None = REASON,
    ) -> Grant:
        now, peer = self._of(grant)
        facts = grants.amend(
            now,
            peer,
            self.policy,
            scope=scope,
            not_before=not_before,
            expires_at=expires_at,
            reason=reason,
            at=self.now,
        )
        return self.record(Grant, now.id, facts, by=by or self.admin)

    def narrow(
        self,
        grant: Grant,
        *,
        scope: Scope | None = None,
        expires_at: datetime | None = None,
        reason: str | None = REASON,
    ) -> Grant:
        facts = grants.narrow(
            self.again(grant), scope=scope, expires_at=expires_at, reason=reason, at=self.now
        )
        return self.record(Grant, grant.id, facts, by=self.admin)

    def suspend(self, grant: Grant, *, reason: str | None = REASON) -> Grant:
        facts = grants.suspend(self.again(grant), reason)
        return self.record(Grant, grant.id, facts, by=self.admin)

    def resume(self, grant: Grant, *, reason: str | None = REASON) -> Grant:
        now, peer = self._of(grant)
        facts = grants.resume(now, peer, self.policy, reason, self.now)
        return self.record(Grant, now.id, facts, by=self.admin)

    def revoke(self, grant: Grant, *, reason: str | None = REASON) -> Grant:
        facts = grants.revoke(self.again(grant), reason, self.now)
        return self.record(Grant, grant.id, facts, by=self.admin)

    def expire(self, grant: Grant) -> Grant:
        now, peer = self._of(grant)
        facts = grants.expire(now, peer, self.policy, self.now)
        return self.record(Grant, now.id, facts, by=self.system)

    def status(self, grant: Grant) -> GrantStatus:
        """Return the effective status now."""
        now, peer = self._of(grant)
        return grant_status.effective_status(now, peer, self.policy, self.now)

    def unusable(self, grant: Grant, *, enrolling: bool = False) -> str | None:
        now, peer = self._of(grant)
        return grant_status.unusable_because(now, peer, self.policy, self.now, enrolling=enrolling)

    # ---- tokens and certificates ----

    def token(self, grant: Grant, *, ttl: timedelta | None = None, pin: str | None = None) -> Token:
        now, peer = self._of(grant)
        minted = bearer.mint(bearer.BearerKind.ENROLLMENT, self.randomness)
        facts = enrollment.issue_token(now, peer, self.policy, minted, ttl, pin, self.now)
        after = self.record(Grant, now.id, facts, by=self.admin)
        return after.tokens[minted.accessor]

    def cancel_token(self, grant: Grant, token: Token) -> Grant:
        facts = enrollment.cancel_token(self.again(grant), token.accessor, self.now)
        return self.record(Grant, grant.id, facts, by=self.admin)

    def order(self, grant: Grant, **changes: Any) -> issuance.Order:
        """Return what `ca` would order now: whole seconds, never past the grant."""
        now, peer = self._of(grant)
        end = min(self.now + self.policy.certificate_life, now.expires_at)
        made = issuance.Order(
            issuance_id=uuid4(),
            serial="4" + self.randomness(16).hex()[1:],
            not_before=(self.now - timedelta(seconds=60)).replace(microsecond=0),
            not_after=end.replace(microsecond=0),
            subject=peer.name,
            san=(f"urn:uuid:{now.id}",),
            extensions=(),
            authority_id=self.authority.id,
            profile_version=1,
        )
        return replace(made, **changes)

    def redeem(
        self,
        grant: Grant,
        token: Token,
        name: str = "first",
        *,
        key: str | None = None,
        secret: str | None = None,
        order: issuance.Order | None = None,
    ) -> Redemption:
        now, peer = self._of(grant)
        outcome = enrollment.redeem(
            now,
            peer,
            self.policy,
            self.approvers_of(grant),
            self.again(self.authority),
            enrollment.Presented(token.accessor, secret or token.token_sha256),
            request(name, key=key),
            order or self.order(grant),
            self.now,
        )
        if isinstance(outcome, issuance.Authorized):
            after = self.record(
                Grant, now.id, outcome.facts, by=self._peer_actor(peer), claims=outcome.claims
            )
            return Redemption(after, outcome, outcome.issuance_id)
        return Redemption(now, outcome, outcome.issuance.id)

    def complete(
        self, grant: Grant, issuance_id: UUID, certificate: issuance.Signed | None = None
    ) -> issuance.Closed | issuance.AlreadyClosed:
        now, peer = self._of(grant)
        outcome = issuance.complete(
            now,
            peer,
            self.policy,
            self.approvers_of(grant),
            issuance_id,
            certificate or signed(str(issuance_id)),
            self.now,
        )
        return self.close(grant, outcome)

    def close(
        self, grant: Grant, outcome: issuance.Closed | issuance.AlreadyClosed
    ) -> issuance.Closed | issuance.AlreadyClosed:
        """Record how an issuance closed."""
        if isinstance(outcome, issuance.Closed):
            self.record(Grant, grant.id, outcome.facts, by=self.system)
        return outcome

    def enroll(self, grant: Grant, name: str = "first") -> str:
        """Token, redemption, certificate; return its serial."""
        redemption = self.redeem(grant, self.token(grant), name)
        outcome = self.complete(grant, redemption.issuance_id)
        assert isinstance(outcome, issuance.Closed)
        assert outcome.error is None
        return self.again(grant).issuances[redemption.issuance_id].serial

    def active_grant(self, peer: Peer, wanted: Scope = PLAIN_SCOPE, **terms: Any) -> Grant:
        grant = self.grant(peer, wanted, **terms)
        if wanted.sensitive:
            self.approve(grant)
        self.enroll(grant, name=str(grant.id))
        return self.again(grant)

    def renew(
        self, grant: Grant, serial: str, name: str, *, order: issuance.Order | None = None
    ) -> (
        issuance.Authorized
        | issuance.StillOpen
        | issuance.AlreadyIssued
        | certificates.CloneSuspected
    ):
        now, peer = self._of(grant)
        outcome = certificates.renew(
            now,
            peer,
            self.policy,
            self.again(self.authority),
            serial,
            request(name),
            order or self.order(grant),
            self.now,
        )
        claims = outcome.claims if isinstance(outcome, issuance.Authorized) else ()
        if isinstance(outcome, issuance.Authorized | certificates.CloneSuspected):
            by = self._peer_actor(peer)
            self.record(Grant, now.id, outcome.facts, by=by, claims=claims)
        return outcome

    def revoke_certificate(self, grant: Grant, serial: str, why: Any = "keyCompromise") -> Grant:
        facts = certificates.revoke(self.again(grant), [serial], why, "a detail", REASON)
        return self.record(Grant, grant.id, facts, by=self.admin)

    def standing(self, grant: Grant, digest: str, at: datetime) -> str | None:
        """How the grant's only certificate stands when somebody presents bytes of this SHA-256."""
        now, peer = self._of(grant)
        [issuance] = now.issuances.values()
        return certificates.standing_of(now, peer, issuance.serial, digest, at)

    def revocation(self, grant: Grant, serial: str) -> grant_state.Revocation | None:
        now, peer = self._of(grant)
        found = now.issuance_of(serial)
        assert found is not None
        return issuance.revocation_of(found, now, peer, self.now)

    @staticmethod
    def _peer_actor(peer: Peer) -> Actor:
        return Actor(kind="peer", id=str(peer.id), auth="enrollment-token", source="198.51.100.4")
