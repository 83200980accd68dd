"""The people, peers and rules of a made-up past, and its clock. Whose life goes how is elsewhere.

It keeps the folded state of every stream that may still change and asks the ledger's own rules for
each command, so that nothing is recorded that could not have happened.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from typing import Any, Final, TypeVar
from uuid import UUID

from ledger import alarms, authorities, bearer, identity, operators, peers, policy
from ledger.alarms import Alarm
from ledger.authorities import Authority
from ledger.events import LEDGER_ID, POLICY_ID, Actor, Fact, Role
from ledger.grant_state import Grant
from ledger.identity import Identity
from ledger.notes import Note
from ledger.operators import Operator
from ledger.peers import Peer
from ledger.policy import Policy
from support.past_book import Book
from support.past_forms import Forms

S = TypeVar("S")

Life = Generator[timedelta, None, None]
"""Acts, then says how long until it acts again."""

LOCAL: Final = Actor(kind="local", id="uid:0", auth="local")
RECONCILER: Final = Actor(kind="system", id="reconciler", auth="system")
ISSUANCE: Final = Actor(kind="system", id="issuance", auth="system")
STRANGER: Final = Actor(kind="peer", id="unknown", auth="none", source="203.0.113.99")
REASONS: Final = (
    "asked for by the data owner",
    "ticket OPS-4711",
    "quarterly review",
    "contract of the peer",
    "suspicious queries",
    "on-call decision, see the incident report",
)
EARLIEST: Final = timedelta(hours=1)
"""How much earlier than the mould a copy may live."""
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)
_CREDENTIAL_LIFE: Final = timedelta(days=366)


@dataclass
class World:
    """Everything that is, at `now`."""

    book: Book
    forms: Forms
    authority_id: UUID
    now: datetime
    people: dict[str, list[Actor]] = field(default_factory=dict)  # by role
    operators: dict[str, Operator] = field(default_factory=dict)  # by id
    peers: list[Peer] = field(default_factory=list)  # as registered; the last state of each
    grants: dict[UUID, Grant] = field(default_factory=dict)  # those that may still change
    of_peer: dict[UUID, set[UUID]] = field(default_factory=dict)  # peer → its grants among those
    authorities: dict[UUID, Authority] = field(default_factory=dict)
    policy: Policy = policy.DEFAULT
    identity: Identity | None = None
    tokens: dict[str, str] = field(default_factory=dict)  # role → text of a live credential
    _waiting: list[tuple[datetime, int, Life]] = field(default_factory=list)
    _begun: int = 0
    _quiet_until: datetime = _LONG_AGO

    # ---- time ----

    def begin(self, life: Life, after: timedelta = timedelta(0)) -> None:
        self._begun += 1
        heappush(self._waiting, (self.now + after, self._begun, life))

    def live(self, until: Callable[[], bool]) -> None:
        """Let everybody act in turn until it is enough, or nobody has anything left to do."""
        waiting = self._waiting
        while waiting and not until():
            at, number, life = heappop(waiting)
            if at < self._quiet_until:
                heappush(waiting, (self._quiet_until, number, life))
                continue
            self.now = at
            pause = next(life, None)
            if pause is not None:
                heappush(waiting, (self.now + pause, number, life))

    # ---- chance ----

    def chance(self, share: float) -> bool:
        return self.book.dice.random() < share

    def share(self, least: float, most: float) -> float:
        return least + (most - least) * self.book.dice.random()

    def between(self, least: timedelta, most: timedelta) -> timedelta:
        return least + (most - least) * self.book.dice.random()

    def one_of(self, choices: Sequence[S]) -> S:
        return choices[int(self.book.dice.random() * len(choices))]

    def reason(self) -> str:
        return self.one_of(REASONS)

    def any(self, role: str) -> Actor:
        return self.one_of(self.people[role])

    def peer(self, number: int) -> Peer:
        return self.peers[number]

    # ---- what is written ----

    def note(self, fact: Fact, by: Actor) -> None:
        self.book.append(Note, None, self.book.uuid(), [fact], self.now, by)

    def alarm(self, kind: str, about: Sequence[str], detail: str, by: Actor) -> Alarm:
        facts = alarms.raise_alarm(kind, about, detail)
        return self.book.append(Alarm, None, self.book.uuid(), facts, self.now, by)

    def grant(
        self,
        grant: Grant | None,
        facts: Sequence[Fact],
        by: Actor,
        *,
        reason: str | None = None,
        causation_id: UUID | None = None,
    ) -> Grant:
        """Record what a rule said about a grant; None: a new one."""
        after = self.book.append(
            Grant,
            grant,
            self.book.uuid() if grant is None else grant.id,
            facts,
            self.now,
            by,
            reason=reason,
            causation_id=causation_id,
        )
        self.grants[after.id] = after
        self.of_peer.setdefault(after.peer_id, set()).add(after.id)
        return after

    def over(self, grant: Grant) -> None:
        """Nothing more will happen to this grant."""
        del self.grants[grant.id]
        self.of_peer[grant.peer_id].discard(grant.id)

    def keep(self, kind: type[S], state: S | None, id_: UUID, facts: Any, by: Actor) -> S:
        """Record facts of a stream that is neither grant nor note."""
        if kind in (Operator, Policy):
            # Copies live up to an hour earlier: what they do is under these people and rules too.
            self._quiet_until = self.now + EARLIEST
        return self.book.append(kind, state, id_, facts, self.now, by, reason=self.reason())

    # ---- the beginning ----

    def create(self, origin: str, log_key: str) -> None:
        facts = identity.create(None, origin, log_key, "0.1.0")
        self.identity = self.keep(Identity, None, LEDGER_ID, facts, LOCAL)
        self.change_policy(LOCAL, certificate_ttl=30 * 86400, token_ttl=2 * 86400)
        self.adopt(self.authority_id, self.forms)

    def adopt(self, id_: UUID, forms: Forms) -> None:
        end = forms.issuer.not_valid_after_utc
        facts = authorities.adopt(None, "local", forms.chain, end)
        self.authorities[id_] = self.keep(Authority, None, id_, facts, LOCAL)

    def change_policy(self, by: Actor, **changes: object) -> None:
        self.policy = self.keep(
            Policy,
            self.policy if self.policy.version else None,
            POLICY_ID,
            policy.change(self.policy, changes),
            by,
        )

    def register_operator(self, role: Role, kind: Any = "person") -> Operator:
        id_ = self.book.uuid()
        facts = operators.register(kind, [role])
        operator = self.keep(Operator, None, id_, facts, LOCAL)
        self.operators[str(id_)] = operator
        return self.give_credential(operator)

    def give_credential(self, operator: Operator) -> Operator:
        """A new credential for an operator; older ones are revoked."""
        minted = bearer.mint(bearer.BearerKind.OPERATOR, self.book.dice.randbytes)
        old = [one for one in operator.credentials.values() if one.live(self.now)]
        facts = operators.issue_credential(operator, minted, _CREDENTIAL_LIFE, self.now)
        operator = self.keep(Operator, operator, operator.id, facts, LOCAL)
        for credential in old:
            facts = operators.revoke_credential(operator, credential.accessor)
            operator = self.keep(Operator, operator, operator.id, facts, LOCAL)
        self.operators[str(operator.id)] = operator
        (role,) = operator.roles
        actor = Actor(
            kind="operator",
            id=str(operator.id),
            roles=(role,),
            auth="bearer",
            credential=minted.accessor,
            source=f"192.0.2.{10 + len(self.operators) % 200}",
        )
        others = [one for one in self.people.get(role, ()) if one.id != actor.id]
        self.people[role] = [*others, actor]
        self.tokens[role] = minted.text
        return operator

    def leave(self, operator: Operator) -> None:
        """An operator is disabled for good."""
        others = {"admin", "approver"}
        facts = operators.disable(operator, self.now, others=others)
        self.operators[str(operator.id)] = self.keep(Operator, operator, operator.id, facts, LOCAL)
        for role, actors in self.people.items():
            self.people[role] = [one for one in actors if one.id != str(operator.id)]

    def register_peer(self) -> int:
        """A new peer, pending; its number."""
        name = f"peer-{self.book.dice.getrandbits(64):016x}"
        facts = peers.register(name, f"https://{name}.example")
        self.peers.append(self.keep(Peer, None, self.book.uuid(), facts, self.any("admin")))
        return len(self.peers) - 1

    def change_peer(self, number: int, facts: Sequence[Fact]) -> Peer:
        peer = self.peers[number]
        if facts:
            peer = self.keep(Peer, peer, peer.id, facts, self.any("admin"))
            self.peers[number] = peer
        return peer

    @property
    def authority(self) -> Authority:
        return self.authorities[self.authority_id]

    def approvers(self, grant: Grant) -> dict[str, Operator]:
        return {one.approver: self.operators[one.approver] for one in grant.approvals}


def as_peer(peer: Peer, *, certificate: str | None = None) -> Actor:
    """The actor a peer is, with a token or with the certificate of this serial."""
    return Actor(
        kind="peer",
        id=str(peer.id),
        auth="enrollment-token" if certificate is None else "certificate",
        credential=certificate,
        source=f"198.51.100.{peer.id.int % 250}",
    )
