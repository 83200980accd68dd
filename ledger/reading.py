"""One try of one command: what it loads is remembered, what it appends is gathered, nothing is written.

It touches no database: loading is handed in, and the store takes the result.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar, cast
from uuid import UUID, uuid4

from ledger.appends import Claim, Idempotency, InlineProjection
from ledger.errors import NotFoundError, StaleError
from ledger.events import Actor, Event, Fact

S = TypeVar("S")

Load = Callable[[type[Any], UUID], Any]


@dataclass(frozen=True, slots=True)
class Call:
    """Who asks, and under which conditions.

    `expected_version`: the If-Match version, checked against the command's target stream.
    `dry_run`: decide, append nothing.
    """

    actor: Actor
    correlation_id: str
    reason: str | None = None
    expected_version: int | None = None
    idempotency: Idempotency | None = None
    dry_run: bool = False
    causation_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Fold:
    """How the events of one stream type become its state.

    `evolve`: (state or None, event) → state. States are frozen and have `id` and `version`.
    `remembered`: many commands read them, few change them (`ledger/remembering.py`).
    """

    stream_type: str
    evolve: Callable[[Any, Event], Any]
    remembered: bool = False


@dataclass(slots=True)
class _Stream:
    """A stream as one try sees it: as it was loaded, and as it has evolved since."""

    kind: type
    loaded: Any  # None: there was no such stream
    state: Any
    version: int  # of `loaded`
    written: int = 0


class Reading:
    """One try of one command. Everything it loads is remembered as what the command has read."""

    def __init__(self, load: Load, folds: Mapping[type, Fold], call: Call, at: datetime) -> None:
        """`load`: (kind, stream id) → the folded state or None. `at`: the present of this try."""
        self._load = load
        self._folds = folds
        self._call = call
        self._streams: dict[UUID, _Stream] = {}
        self._events: list[Event] = []
        self._claims: list[Claim] = []
        self.at = at

    def state(self, kind: type[S], stream_id: UUID) -> S:
        """Return the folded state. Raises NotFoundError when there is no such stream."""
        state = self.maybe(kind, stream_id)
        if state is None:
            raise NotFoundError(f"there is no {self._folds[kind].stream_type} of this id")
        return state

    def maybe(self, kind: type[S], stream_id: UUID) -> S | None:
        """Return the folded state, or None when there is no such stream of this kind."""
        stream = self._streams.get(stream_id)
        if stream is None:
            state = self._load(kind, stream_id)
            version = 0 if state is None else state.version
            stream = self._streams[stream_id] = _Stream(kind, state, state, version)
        return cast(S, stream.state) if stream.kind is kind else None

    def target(self, kind: type[S], stream_id: UUID) -> S:
        """Return the state of what the command is about.

        Raises:
            NotFoundError: there is no such stream.
            StaleError: its version is not the one the caller expects.
        """
        state = self.state(kind, stream_id)
        expected = self._call.expected_version
        found = self._streams[stream_id].version
        if expected is not None and expected != found:
            raise StaleError("this has changed since it was read", version=found)
        return state

    def append(
        self,
        kind: type[S],
        stream_id: UUID,
        *facts: Fact,
        claims: Iterable[tuple[str, str]] = (),
        reason: str | None = None,
    ) -> S:
        """Add facts to a stream and return its new state; nothing is written yet.

        A stream that was not loaded is taken to be new. The first fact of the command carries the
        call's causation id, every further one the first's id. `reason`: instead of the call's.
        `claims`: (kind, key) pairs that only one stream may ever hold.
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            stream = self._streams[stream_id] = _Stream(kind, None, None, 0)
        if stream.kind is not kind:
            raise TypeError("a stream has one kind")
        fold = self._folds[kind]
        if not facts or any(fold.stream_type != fact.STREAM for fact in facts):
            raise TypeError(f"facts of a {fold.stream_type} stream are expected")
        self._claims += (Claim(name, key, len(self._events)) for name, key in claims)
        for fact in facts:
            stream.written += 1
            event = self._event(stream_id, stream.version + stream.written, fact, reason)
            self._events.append(event)
            stream.state = fold.evolve(stream.state, event)
        return cast(S, stream.state)

    def _event(self, stream_id: UUID, version: int, fact: Fact, reason: str | None) -> Event:
        return Event(
            originator_id=stream_id,
            originator_version=version,
            id=uuid4(),
            at=self.at,
            actor=self._call.actor,
            correlation_id=self._call.correlation_id,
            causation_id=self._events[0].id if self._events else self._call.causation_id,
            reason=reason or self._call.reason,
            data=fact,
        )

    @property
    def events(self) -> tuple[Event, ...]:
        return tuple(self._events)

    @property
    def states(self) -> dict[UUID, object]:
        """The state of every stream looked at, with what was appended; None where there is none."""
        return {stream_id: stream.state for stream_id, stream in self._streams.items()}

    def conditions(self, inline: Mapping[type, Sequence[InlineProjection]]) -> dict[str, Any]:
        """What travels with the events: reads, claims and current-state rows."""
        rows: dict[InlineProjection, set[tuple[object, ...]]] = {}
        for stream in self._streams.values():
            if stream.written:
                for table in inline.get(stream.kind, ()):
                    rows.setdefault(table, set()).update(table.changed(stream.loaded, stream.state))
        reads = {
            stream_id: stream.version
            for stream_id, stream in self._streams.items()
            if not stream.written
        }
        return {"reads": reads, "claims": self._claims, "rows": rows}
