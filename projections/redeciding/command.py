"""A recorded command, and the states of the history in which it is decided again. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias, TypeVar
from uuid import UUID

from ledger import operators
from ledger.authorities import Authority
from ledger.errors import NotFoundError
from ledger.events import POLICY_ID, Actor, Event, Fact
from ledger.grant_state import Grant
from ledger.operators import Operator
from ledger.peers import Peer
from ledger.policy import DEFAULT, Policy

S = TypeVar("S")
Facts: TypeAlias = Sequence[Fact]


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
        if found is None or not isinstance(found, kind):
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


Rule: TypeAlias = Callable[[Command], Facts]
Rules: TypeAlias = Mapping[type[Fact], Rule]
"""By the first fact of a command: it is told apart from its companions by that alone."""


def permitted(name: str, kind: type[S], rule: Callable[[S, Command], Facts]) -> Rule:
    """A rule on the stream's own state, for whom the command of that name is permitted to."""

    def decide_it(c: Command) -> Facts:
        c.permit(name)
        return rule(c.own(kind), c)

    return decide_it
