"""Keeps what happens in the mould of a made-up past, in memory: its appends, and every stream's state.

It writes nothing and asks no rule; what happens is decided by who calls it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

from ledger.events import Actor, AuditRead, Event, ExportMade, Fact
from ledger.folds import FOLDS

S = TypeVar("S")

_ONCE: Final = frozenset({"operator", "policy", "ledger", "authority"})
"""Types of streams of which a ledger has few, however long its record is."""


def only_once(fact: Fact) -> bool:
    """Whether what it belongs to exists once, and in no copy of the mould."""
    # Readers of the record are operators, whose reading is recorded once in a while.
    return fact.STREAM in _ONCE or isinstance(fact, AuditRead | ExportMade)


class Append(NamedTuple):
    """Events of one stream, recorded together."""

    at: datetime
    events: Sequence[Event]


@dataclass(slots=True)
class Book:
    """What has happened so far. `dice` gives ids, so that the same seed gives the same past."""

    dice: Random
    copies: int = 1
    appends: list[Append] = field(default_factory=list)
    states: dict[UUID, Any] = field(default_factory=dict)  # the last one of every stream
    size: int = 0
    """How many events there will be in all, with every copy."""

    def uuid(self) -> UUID:
        return UUID(int=self.dice.getrandbits(128), version=4)

    def append(
        self,
        kind: type[S],
        state: S | None,
        stream_id: UUID,
        facts: Sequence[Fact],
        at: datetime,
        actor: Actor,
        *,
        reason: str | None = None,
        causation_id: UUID | None = None,
    ) -> S:
        """Record one append to one stream, as a command would have; the state after it."""
        evolve = FOLDS[kind].evolve
        request = f"req-{self.dice.getrandbits(64):016x}"
        version = 0 if state is None else state.version  # type: ignore[attr-defined]
        after: Any = state
        events = []
        for fact in facts:
            version += 1
            event = Event(
                stream_id, version, self.uuid(), at, actor, request, causation_id, reason, fact
            )
            causation_id = causation_id or event.id
            after = evolve(after, event)
            events.append(event)
            self.size += 1 if only_once(fact) else self.copies
        self.appends.append(Append(at, events))
        self.states[stream_id] = after
        return after
