"""Decides commands: loads what they ask for, appends what they answer, decides anew what has moved.

It is the eventsourcing library's `Application` with our mapper and recorder. It knows no rule, no
table and no caller: rules are given per call, tables as `InlineProjection`s.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar, cast
from uuid import UUID

import psycopg
from eventsourcing.application import AggregateNotFoundError, Application
from eventsourcing.persistence import (
    InfrastructureFactory,
    IntegrityError,
    Mapper,
    Notification,
    Recording,
)
from eventsourcing.popo import POPOFactory
from eventsourcing.utils import Environment, EnvType

from ledger.appends import (
    ClaimTakenError,
    Idempotency,
    IdempotencyTakenError,
    StaleReadError,
)
from ledger.database import Reads
from ledger.errors import InvalidError, LedgerError, UnavailableError
from ledger.events import Event, stream_type
from ledger.frozen import made_of
from ledger.history import History
from ledger.mapper import EventMapper
from ledger.reading import Call, Fold, Reading
from ledger.record import Record
from ledger.recorder import LedgerRecorder
from ledger.remembering import Remembered
from ledger.sequencer import InlineProjection, Observer, Sequencer
from ledger.turns import Turns
from ledger.writer import Writer

__all__ = [
    "Call",
    "ClaimTakenError",
    "Clock",
    "Fold",
    "Idempotency",
    "InlineProjection",
    "Reading",
    "Recorded",
    "Store",
]

S = TypeVar("S")
T = TypeVar("T")

Clock = Callable[[], datetime]
"""Returns the present as an aware UTC datetime."""

ANEW: Final = 3
"""How often a command is decided on what is loaded, when what it read keeps moving on."""

_CALL: Final = """SELECT body_sha256, first_position, events FROM ledger_idempotency
    WHERE credential = %s AND method = %s AND path = %s AND key = %s"""


@dataclass(frozen=True, slots=True)
class Recorded(Generic[T]):
    """What became of a command.

    `position`: of the last event written, or the head's size when nothing was appended.
    `events`: what was appended, or would have been by a dry run.
    `replayed`: it had been recorded before; `value` is rebuilt from those events.
    `used`: stream id → the state of every stream the decision read, as it left it, None where there
    is no such stream; empty for a replay.
    """

    value: T
    position: int
    events: tuple[Event, ...]
    replayed: bool = False
    used: Mapping[UUID, object] = field(default_factory=dict, compare=False, repr=False)


class Store(Application[UUID]):
    """The ledger's events and how commands are decided on them. Thread-safe."""

    name = "ledger"

    def __init__(
        self,
        dsn: str,
        *,
        clock: Clock,
        folds: Mapping[type, Fold],
        inline: Sequence[InlineProjection],
        pool_size: int = 16,
        projections_version: int = 1,
        clock_skew: timedelta = timedelta(seconds=30),
        observer: Observer | None = None,
    ) -> None:
        """Connects with the first use, not before.

        `dsn`: of the restricted service role. `pool_size`: connections for reading; one more
        writes. `projections_version`: of the tables `inline` writes; appends are refused when the
        head row says another. `clock_skew`: how far apart `clock` and the database's may be.
        `observer`: is told of every append and batch.
        """
        self.folds = folds
        self.clock = clock
        self._inline: dict[type, list[InlineProjection]] = {}
        for table in inline:
            self._inline.setdefault(table.state, []).append(table)
        self._history = History()
        self._reads = Reads(dsn, pool_size)
        writer = Writer(
            dsn,
            clock=clock,
            stream_type=stream_type,
            history=self._history,
            projections_version=projections_version,
            clock_skew=clock_skew,
        )
        self._sequencer = Sequencer(writer, observer)
        self._recorder = LedgerRecorder(dsn, self._sequencer, self._reads)
        self._turns = Turns()
        self._remembered = Remembered()
        self.record = Record(self._reads, self._history)
        super().__init__()

    @property
    def connections(self) -> tuple[int, int]:
        """How many connections for reading are in use, and how many are open."""
        return self._reads.connections

    def listen(self) -> psycopg.Connection[Any]:
        """Return a connection that is notified of every commit's new size; the caller closes it.

        Raises:
            psycopg.Error: there is no connection to be had.
        """
        return self._recorder.listen()

    @property
    def lost_history(self) -> str | None:
        """Why nothing is written any more, for `/readyz`; None when all is well."""
        return self._history.lost

    def stop_writing(self, reason: str) -> None:
        """Write nothing any more in this process: somebody found that history was lost."""
        with suppress(UnavailableError):
            self._history.declare_lost(reason)

    def close(self) -> None:
        self._sequencer.close()
        self._reads.close()
        super().close()

    def decide(
        self,
        call: Call,
        fn: Callable[[Reading], T],
        *,
        again: Callable[[tuple[Event, ...]], T] | None = None,
        seen: Mapping[UUID, object] = MappingProxyType({}),
    ) -> Recorded[T]:
        """Let `fn` decide on what it reads, and append what it appended to its `Reading`.

        `seen`: states that the caller has just folded, by stream, which saves loading them, as do
        those of streams that are remembered. They serve an append only, which is refused if one of
        them has moved; whatever else `fn` makes of them is decided again on what is loaded.

        `fn` may be called up to four times and must have no effect but on its argument. A call
        whose idempotency record exists is not decided: its value is `again(events)`, or else the
        first event's stream as those events left it.

        Raises:
            ClaimTakenError: naming the stream that holds the claim.
            InvalidError: a value cannot be stored; `idempotency-key-reused`: another body.
            RefusedError: `idempotency-in-flight`: the same call is still being decided after 5 s.
            UnavailableError: `busy` when what was read kept moving; see `Sequencer.append`.
            Whatever `fn` raises.
        """
        if call.dry_run:
            return self._decide(call, fn)
        if call.idempotency is None:
            return self._decide_on(seen, call, fn) or self._decide(call, fn)
        with self._turns.turn(call.idempotency.name):
            return (
                self._replayed(call.idempotency, again)
                or self._decide_on(seen, call, fn)
                or self._decide(call, fn, again)
            )

    def _decide_on(
        self, seen: Mapping[UUID, object], call: Call, fn: Callable[[Reading], T]
    ) -> Recorded[T] | None:
        """Decide on states seen before; None if that leads to no append, or one has moved."""

        def load(kind: type[S], stream_id: UUID) -> S | None:
            state = seen.get(stream_id) or self._remembered.get(stream_id)
            return state if isinstance(state, kind) else self._loaded(kind, stream_id)

        reading = Reading(load, self.folds, call, self.clock())
        try:
            value = fn(reading)
        except LedgerError:
            return None
        if not reading.events:
            return None
        try:
            return self._append(call, reading, value)
        except (IntegrityError, StaleReadError, IdempotencyTakenError):
            return None

    def _decide(
        self,
        call: Call,
        fn: Callable[[Reading], T],
        again: Callable[[tuple[Event, ...]], T] | None = None,
    ) -> Recorded[T]:
        for _ in range(ANEW):
            reading = Reading(self._loaded, self.folds, call, self.clock())
            try:
                return self._append(call, reading, fn(reading))
            except (
                IntegrityError,
                StaleReadError,
                IdempotencyTakenError,
                LedgerError,
            ) as error:
                # Perhaps lost against our own twin in another process, or refused because of what
                # that one did since we looked: then it is recorded now, and this is its answer.
                replayed = call.idempotency and self._replayed(call.idempotency, again)
                if replayed:
                    return replayed
                if isinstance(error, LedgerError):
                    raise
        raise UnavailableError("what this depends on keeps changing; try again", code="busy")

    def _append(self, call: Call, reading: Reading, value: T) -> Recorded[T]:
        events, used = reading.events, reading.states
        # Not `save`: nobody looks at its recordings here. A dry run refuses what cannot be stored, too.
        stored = [self.mapper.to_stored_event(event) for event in events]
        if not stored or call.dry_run:
            return Recorded(value, self.record.head().size, events, used=used)
        conditions = reading.conditions(self._inline)
        positions = self.recorder.insert_events(stored, idempotency=call.idempotency, **conditions)
        self._remember(used)
        return Recorded(value, positions[-1] if positions else 0, events, used=used)

    def save(self, *objs: Any, **conditions: Any) -> list[Recording[UUID]]:
        """Append events under conditions (`LedgerRecorder.insert_events`).

        The library's own asks of each whether it is an event or an aggregate, by looking for every
        attribute of both, and makes its recordings field by field: together longer than writing the
        bodies takes. Here all are events.
        """
        stored = [self.mapper.to_stored_event(event) for event in objs]
        positions = self.recorder.insert_events(stored, **conditions) or ()
        return [
            made_of(
                Recording,
                domain_event=event,
                notification=made_of(Notification, **vars(one), id=position),
            )
            for event, one, position in zip(objs, stored, positions, strict=True)
        ]

    def _replayed(
        self, call: Idempotency, again: Callable[[tuple[Event, ...]], T] | None
    ) -> Recorded[T] | None:
        rows = self._reads.rows(_CALL, call.name)
        if not rows:
            return None
        ((body_sha256, first, count),) = rows
        if body_sha256 != call.body_sha256:
            raise InvalidError(
                "this Idempotency-Key was used with another body", code="idempotency-key-reused"
            )
        events = tuple(
            entry.event for entry in self.record.range(first, first + count - 1, limit=count)
        )
        value = again(events) if again else cast(T, self._left_by(events))
        return Recorded(value, first + count - 1, events, replayed=True)

    def _left_by(self, events: Sequence[Event]) -> object:
        first = events[0]
        kind = next(k for k, f in self.folds.items() if f.stream_type == first.data.STREAM)
        last = [e for e in events if e.originator_id == first.originator_id][-1]
        return self.load(kind, first.originator_id, version=last.originator_version)

    def _loaded(self, kind: type[S], stream_id: UUID) -> S | None:
        """Fold a stream for a command, and remember it if the next command is likely to read it."""
        state = self.load(kind, stream_id)
        self._remember({stream_id: state})
        return state

    def _remember(self, states: Mapping[UUID, object]) -> None:
        for stream_id, state in states.items():
            if state is not None and self.folds[type(state)].remembered:
                self._remembered.keep(stream_id, state)

    def load(self, kind: type[S], stream_id: UUID, *, version: int | None = None) -> S | None:
        """Fold a stream, to `version` if given; None when there is none of this kind."""
        fold = self.folds[kind]

        def project(state: S | None, events: Iterable[Any]) -> S | None:
            for event in events:
                if fold.stream_type != event.data.STREAM:
                    return None
                state = fold.evolve(state, event)
            return state

        try:
            found = self.repository.get(
                stream_id, version=version, projector_func=cast(Any, project)
            )
        except AggregateNotFoundError:
            return None
        return cast(S, found)

    def load_at(self, kind: type[S], stream_id: UUID, position: int) -> S | None:
        """Fold what a stream held at a position of the ledger; None when there was none then."""
        fold = self.folds[kind]
        state: S | None = None
        version = 0
        while found := self.record.stream(stream_id, after_version=version):
            for one in found:
                if one.position > position or one.stream_type != fold.stream_type:
                    return state
                state = fold.evolve(state, one.event)
            version = found[-1].version
        return state

    # ---- how the library is put together: no environment, no tables of its own ---------------

    def construct_env(self, name: str, env: EnvType | None = None) -> Environment:
        return Environment(name, env)

    def construct_factory(self, env: Environment) -> InfrastructureFactory[Any]:
        return POPOFactory(env)

    def construct_mapper(self) -> Mapper[UUID]:
        return EventMapper()

    def construct_recorder(self) -> LedgerRecorder:
        return self._recorder
