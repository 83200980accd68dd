"""What if something had not happened, or had been revoked: what follows is decided again. Pure.

Two histories are folded side by side, as it was and as it would have been. A command of which nothing it
read differs stands as recorded: it was right at its own position. Any other is decided again by the real
rules (`projections/redeciding.py`); what it would not record then, would not have been, and neither
would what has that for its cause. Nothing that did not happen is made up: a command that was refused,
or never given, stays so.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, Final, NamedTuple
from uuid import UUID

from msgspec import structs

from ledger import grants
from ledger.errors import LedgerError
from ledger.events import POLICY_ID, Actor, Event, Fact, GrantProposed, IssuanceAuthorized
from ledger.folds import FOLDS
from ledger.grant_state import Grant
from ledger.grant_status import effective_status
from ledger.issuance import revocation_of
from ledger.operators import Operator
from ledger.peers import Peer
from ledger.policy import DEFAULT, Policy
from projections.redeciding import Command, decide
from projections.replay import unfoldable

_EVOLVE: Final = {fold.stream_type: fold.evolve for fold in FOLDS.values()}
_NOBODY: Final = Actor(kind="system", id="what-if", auth="system")


class Placed(NamedTuple):
    """One event with its place in the ledger. Events of one append share `recorded_at`."""

    position: int
    recorded_at: datetime
    event: Event


@dataclass(frozen=True, slots=True)
class Without:
    """Without the whole command of which the event at this position is a part."""

    position: int


@dataclass(frozen=True, slots=True)
class Revoked:
    """With a grant revoked at a moment, after all that is recorded up to it."""

    grant_id: UUID
    at: datetime


Alteration = Without | Revoked


class WhatIfError(ValueError):
    """The alteration makes no sense for this history; the text says why."""


@dataclass(frozen=True, slots=True)
class Gone:
    """An event that would not have been, or would have said something else (`instead`).

    `because`: the code of the refusal, or in a word: left-out, no-cause, nothing-to-do, differs.
    """

    position: int
    topic: str
    stream_id: UUID
    because: str
    instead: Fact | None = None


@dataclass(frozen=True, slots=True)
class Changed:
    """A grant or certificate that ends up differently. None: it would not be there."""

    kind: str
    id: str
    grant_id: UUID
    actual: str
    altered: str | None


@dataclass(frozen=True, slots=True)
class Difference:
    """What would be different. `at`: the moment both histories are looked at, the last one's."""

    at: datetime
    events: tuple[Gone, ...]
    changed: tuple[Changed, ...]


def what_if(events: Iterable[Placed], alteration: Alteration) -> Difference:
    """Tell what would be different. `events`: all of the ledger, in order.

    Raises:
        WhatIfError: there is no such event, or the grant could not have been revoked then.
        FoldError: these are not the events of commands, or not all of them.
    """
    histories = _Histories(alteration)
    for _, append in groupby(events, lambda placed: placed.recorded_at):
        histories.take(list(append))
    return histories.difference()


class _Histories:
    """The ledger as it was and as it would have been, up to the same moment."""

    def __init__(self, alteration: Alteration) -> None:
        self._alteration = alteration
        self._done = False
        self._last: datetime | None = None
        self._actual: dict[UUID, Any] = {}
        # Only of streams that differ; None: it would have no event.
        self._altered: dict[UUID, Any] = {}
        self._gone_ids: set[UUID] = set()
        self._gone: list[Gone] = []

    def take(self, append: Sequence[Placed]) -> None:
        """Let one more append happen in both."""
        moment = append[0].recorded_at
        if (
            isinstance(self._alteration, Revoked)
            and not self._done
            and moment > self._alteration.at
        ):
            self._revoke(self._alteration)
        left_out = isinstance(self._alteration, Without) and any(
            placed.position == self._alteration.position for placed in append
        )
        self._done = self._done or left_out
        # Both are decided on what was there before the append: its streams are one decision.
        for stream_id, group in _by_stream(append):
            if left_out:
                self._drop(group, "left-out")
            elif self._done:
                self._decide_again(stream_id, group)
        for placed in append:
            event = placed.event
            before = self._actual.get(event.originator_id)
            try:
                self._actual[event.originator_id] = _EVOLVE[event.data.STREAM](before, event)
            except (ValueError, KeyError, TypeError) as error:
                raise unfoldable(event.originator_version - 1, error) from error
        self._last = moment

    def difference(self) -> Difference:
        if isinstance(self._alteration, Revoked) and not self._done and self._last is not None:
            self._revoke(self._alteration)
        if not self._done or self._last is None:
            raise WhatIfError("the ledger holds no such event")
        at = self._last
        if isinstance(self._alteration, Revoked):
            at = max(at, self._alteration.at)
        return Difference(at, tuple(self._gone), tuple(self._changes(at)))

    # ---- deciding again ---------------------------------------------------------------------

    def state(self, stream_id: UUID) -> Any:
        """A stream's state as it would have been."""
        if stream_id in self._altered:
            return self._altered[stream_id]
        return self._actual.get(stream_id)

    def _operators(self) -> list[Operator]:
        states = (self.state(one) for one in self._actual)
        return [state for state in states if isinstance(state, Operator)]

    def _decide_again(self, stream_id: UUID, group: Sequence[Placed]) -> None:
        first = group[0].event
        if first.causation_id in self._gone_ids:
            self._drop(group, "no-cause")
            return
        if self._altered.keys().isdisjoint(self._read_by(stream_id, group)):
            return
        before = self._actual.get(POLICY_ID)
        command = Command(
            [placed.event for placed in group],
            self.state,
            self._operators,
            before if isinstance(before, Policy) else DEFAULT,
        )
        try:
            facts = list(decide(command))
        except LedgerError as error:
            self._drop(group, error.code)
            return
        if facts == [placed.event.data for placed in group]:
            if stream_id in self._altered:
                self._happen(stream_id, group[0].event, facts)
            return
        self._replace(stream_id, group, facts)

    def _read_by(self, stream_id: UUID, group: Sequence[Placed]) -> Iterator[UUID]:
        """The streams a command may have read: more than it did is right, less is not."""
        yield from (stream_id, POLICY_ID)
        first = group[0].event
        grant = self._actual.get(stream_id)
        if first.actor.kind == "operator":
            yield UUID(first.actor.id)
        if first.data.STREAM == "operator":
            yield from (one.id for one in self._operators())
        if isinstance(grant, Grant):
            yield grant.peer_id
            yield from (UUID(one.approver) for one in grant.approvals)
        for placed in group:
            if isinstance(placed.event.data, GrantProposed):
                yield placed.event.data.peer_id
            if isinstance(placed.event.data, IssuanceAuthorized):
                yield placed.event.data.authority_id

    def _replace(self, stream_id: UUID, group: Sequence[Placed], facts: list[Fact]) -> None:
        """Let a command record something else than it did."""
        left = list(facts)
        missing: list[Placed] = []
        for placed in group:
            if placed.event.data in left:
                left.remove(placed.event.data)
            else:
                missing.append(placed)
        for placed in missing:
            instead = next((one for one in left if type(one) is type(placed.event.data)), None)
            if instead is not None:
                left.remove(instead)
            else:
                self._gone_ids.add(placed.event.id)
            because = "nothing-to-do" if instead is None else "differs"
            self._note(placed, because, instead)
        self._happen(stream_id, group[0].event, facts)

    def _happen(self, stream_id: UUID, like: Event, facts: Sequence[Fact]) -> None:
        state = self.state(stream_id)
        for fact in facts:
            version = 1 if state is None else state.version + 1
            event = structs.replace(like, originator_version=version, data=fact)
            state = _EVOLVE[fact.STREAM](state, event)
        self._altered[stream_id] = state

    def _drop(self, group: Sequence[Placed], because: str) -> None:
        stream_id = group[0].event.originator_id
        for placed in group:
            self._gone_ids.add(placed.event.id)
            self._note(placed, because)
        self._altered.setdefault(stream_id, self._actual.get(stream_id))

    def _note(self, placed: Placed, because: str, instead: Fact | None = None) -> None:
        event = placed.event
        self._gone.append(
            Gone(placed.position, event.data.TOPIC, event.originator_id, because, instead)
        )

    def _revoke(self, wish: Revoked) -> None:
        self._done = True
        grant = self._actual.get(wish.grant_id)
        if not isinstance(grant, Grant):
            raise WhatIfError("the grant did not exist at that time")
        try:
            facts = grants.revoke(grant, "what if", wish.at)
        except LedgerError as error:
            raise WhatIfError(
                f"the grant could not have been revoked then: {error.detail}"
            ) from None
        if not facts:
            raise WhatIfError("the grant was revoked by then")
        like = Event(
            grant.id, grant.version + 1, UUID(int=0), wish.at, _NOBODY, "what-if", None, "what if",
            facts[0],
        )  # fmt: skip
        self._happen(grant.id, like, facts)

    # ---- what it comes to -------------------------------------------------------------------

    def _changes(self, at: datetime) -> Iterator[Changed]:
        """Grants and certificates that end up differently: their own streams differ, or what they
        hang on does."""
        for stream_id, actual in self._actual.items():
            if not isinstance(actual, Grant):
                continue
            altered = self.state(stream_id)
            was, would = self._told(actual, self._actual, at), self._told(altered, None, at)
            for key, word in was.items():
                if would.get(key) != word:
                    yield Changed(key[0], key[1], stream_id, word, would.get(key))

    def _told(
        self, grant: Grant | None, states: dict[UUID, Any] | None, at: datetime
    ) -> dict[tuple[str, str], str]:
        """In words: a grant's effective status, and what each of its certificates is worth."""
        if grant is None:
            return {}
        look = states.get if states is not None else self.state
        peer, policy = look(grant.peer_id), look(POLICY_ID) or DEFAULT
        if not isinstance(peer, Peer):
            return {}
        status = effective_status(grant, peer, policy, at)
        told = {("grant", str(grant.id)): status.value}
        for one in grant.issuances.values():
            revocation = revocation_of(one, grant, peer, at)
            word = f"revoked ({revocation.detail})" if revocation else one.state.value
            told["certificate", one.serial] = word
        return told


def _by_stream(append: Sequence[Placed]) -> Iterator[tuple[UUID, list[Placed]]]:
    groups: dict[UUID, list[Placed]] = {}
    for placed in append:
        groups.setdefault(placed.event.originator_id, []).append(placed)
    yield from groups.items()
