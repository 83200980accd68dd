"""The commands about operators and their credentials: see `ledger/operators.py` for their rules."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID, uuid4

from ledger import bearer, operators
from ledger.commands import Commands, permit, put
from ledger.events import CredentialIssued, Event, Fact
from ledger.operators import Operator
from ledger.reading import Call, Reading
from ledger.store import Recorded

FindHolders = Callable[[str], Sequence[UUID]]
"""Looks up ids in a table: the enabled operators that hold a role."""


@dataclass(frozen=True, slots=True)
class IssuedCredential:
    """An operator's bearer token. `text` is the secret, shown once: None when a repeat."""

    text: str | None = field(repr=False)
    accessor: str
    expires_at: datetime
    operator: Operator


class OperatorCommands(Commands):
    """Register, change roles, disable; issue and revoke credentials."""

    def register_operator(
        self, call: Call, kind: Literal["person", "machine"], roles: Sequence[str]
    ) -> Recorded[Operator]:
        """See `operators.register`."""
        operator_id = uuid4()

        def decide(reading: Reading) -> Operator:
            permit(reading, call, operators.command_for(roles))
            return reading.append(Operator, operator_id, *operators.register(kind, roles))

        return self.decide(call, decide)

    def change_roles(
        self, call: Call, operator_id: UUID, roles: Sequence[str], *, holders_of: FindHolders
    ) -> Recorded[Operator]:
        """See `operators.change_roles`."""

        def rule(reading: Reading, operator: Operator) -> Sequence[Fact]:
            others = _other_holders(reading, operator, holders_of)
            return operators.change_roles(operator, roles, call.actor, reading.at, others=others)

        return self._change_operator(call, operator_id, roles, rule)

    def disable_operator(
        self, call: Call, operator_id: UUID, *, holders_of: FindHolders
    ) -> Recorded[Operator]:
        """See `operators.disable`."""

        def rule(reading: Reading, operator: Operator) -> Sequence[Fact]:
            others = _other_holders(reading, operator, holders_of)
            return operators.disable(operator, reading.at, others=others)

        return self._change_operator(call, operator_id, (), rule)

    def issue_credential(
        self, call: Call, operator_id: UUID, *, ttl: timedelta
    ) -> Recorded[IssuedCredential]:
        """See `operators.issue_credential`. The secret is in the answer and nowhere else."""
        minted = bearer.mint(bearer.BearerKind.OPERATOR, self.randomness)

        def decide(reading: Reading) -> IssuedCredential:
            operator = _permitted_operator(reading, call, operator_id, ())
            facts = operators.issue_credential(operator, minted, ttl, reading.at)
            after = reading.append(Operator, operator_id, *facts)
            end = after.credentials[minted.accessor].expires_at
            return IssuedCredential(minted.text, minted.accessor, end, after)

        def again(events: tuple[Event, ...]) -> IssuedCredential:
            fact = next(e.data for e in events if isinstance(e.data, CredentialIssued))
            after = self.left_by(Operator, events)
            return IssuedCredential(None, fact.accessor, fact.expires_at, after)

        return self.decide(call, decide, again=again)

    def revoke_credential(self, call: Call, operator_id: UUID, accessor: str) -> Recorded[Operator]:
        """See `operators.revoke_credential`."""
        return self._change_operator(
            call,
            operator_id,
            (),
            lambda _, operator: operators.revoke_credential(operator, accessor),
        )

    def _change_operator(
        self,
        call: Call,
        operator_id: UUID,
        roles: Sequence[str],
        rule: Callable[[Reading, Operator], Sequence[Fact]],
    ) -> Recorded[Operator]:
        def decide(reading: Reading) -> Operator:
            operator = _permitted_operator(reading, call, operator_id, roles)
            return put(reading, operator, Operator, operator_id, rule(reading, operator))

        return self.decide(call, decide)


def _permitted_operator(
    reading: Reading, call: Call, operator_id: UUID, roles: Sequence[str]
) -> Operator:
    """Load an operator to be written, if the caller may write one with its present and new roles."""
    found = reading.maybe(Operator, operator_id)
    present = () if found is None else found.roles
    permit(reading, call, operators.command_for(present, roles))
    return reading.target(Operator, operator_id)


def _other_holders(reading: Reading, operator: Operator, holders_of: FindHolders) -> frozenset[str]:
    """Return the roles of `operator` that some other enabled operator is seen to hold as well.

    One witness per role is folded, so becomes part of what was read: two admins who disable each
    other at the same moment cannot both succeed.
    """
    return frozenset(
        role
        for role in operator.roles & {"admin", "approver"}
        if any(_holds(reading, one, role) for one in holders_of(role) if one != operator.id)
    )


def _holds(reading: Reading, operator_id: UUID, role: str) -> bool:
    found = reading.maybe(Operator, operator_id)
    return found is not None and found.holds(role)
