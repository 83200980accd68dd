"""What every command does alike: ask whether the caller may, load, ask the rule, append.

It holds no command; those are in the `*_commands.py` files, one per noun, and `Ledger` has them all.
"""

from collections.abc import Callable, Iterable, Sequence
from secrets import token_bytes
from typing import TypeVar
from uuid import UUID

from ledger import operators, policy
from ledger.events import POLICY_ID, Event, Fact
from ledger.grant_state import Grant
from ledger.operators import Operator
from ledger.policy import Policy
from ledger.reading import Call, Reading
from ledger.store import Recorded, Store

S = TypeVar("S")


def policy_in(reading: Reading) -> Policy:
    """Return the policy in force, the defaults if it never was changed; part of what was read."""
    return reading.maybe(Policy, POLICY_ID) or policy.DEFAULT


def approvers_in(reading: Reading, grant: Grant) -> dict[str, Operator]:
    """Return the operators who approved the grant's terms, by id; part of what was read."""
    found = {one.approver: reading.maybe(Operator, UUID(one.approver)) for one in grant.approvals}
    return {name: operator for name, operator in found.items() if operator is not None}


def permit(reading: Reading, call: Call, command: str) -> None:
    """Refuse unless the caller may give `command`, by its own folded stream at this moment.

    Raises:
        UnauthorizedError, ForbiddenError: see `operators.require`.
    """
    actor = call.actor
    mine = reading.maybe(Operator, UUID(actor.id)) if actor.kind == "operator" else None
    operators.require(command, actor, mine, reading.at)


def put(
    reading: Reading,
    state: S | None,
    kind: type[S],
    stream_id: UUID,
    facts: Sequence[Fact],
    claims: Iterable[tuple[str, str]] = (),
) -> S:
    """Append the facts, if the rule found anything to do; return the state after them."""
    if facts:
        return reading.append(kind, stream_id, *facts, claims=claims)
    # A rule answers a stream that is not there with facts or an error, never with nothing.
    return reading.state(kind, stream_id) if state is None else state


class Commands(Store):
    """A store that gives commands. `randomness(n)` returns n unpredictable bytes."""

    randomness: Callable[[int], bytes] = staticmethod(token_bytes)

    def change(
        self,
        call: Call,
        command: str,
        kind: type[S],
        stream_id: UUID,
        rule: Callable[[Reading, S], Sequence[Fact]],
    ) -> Recorded[S]:
        """Give `command` to a stream that exists, if the caller may."""

        def decide(reading: Reading) -> S:
            permit(reading, call, command)
            state = reading.target(kind, stream_id)
            return put(reading, state, kind, stream_id, rule(reading, state))

        return self.decide(call, decide)

    def left_by(self, kind: type[S], events: Sequence[Event]) -> S:
        """Return a stream as these events of one repeat left it."""
        state = self.load(kind, events[-1].originator_id, version=events[-1].originator_version)
        if state is None:
            raise LookupError("events are on record, but their stream is not")
        return state
