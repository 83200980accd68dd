"""The queue in front of the writer: who shares a batch, and that nobody is ever left waiting."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from ledger import sequencer as module
from ledger.appends import (
    Append,
    Claim,
    ClaimTakenError,
    Draft,
    Idempotency,
    IdempotencyTakenError,
    StaleReadError,
    VersionConflictError,
    prepare,
)
from ledger.errors import UnavailableError
from ledger.plan import Written
from ledger.sequencer import MAX_EVENTS, Sequencer
from ledger.writer import Request
from support.waiting import wait_until

NOW = datetime(2026, 11, 23, tzinfo=UTC)
STREAM, OTHER = uuid4(), uuid4()
CALL = Idempotency("c", "POST", "/", "key", "0" * 64)


def an_append(
    stream: UUID | None = None,
    version: int = 1,
    *,
    reads: dict[UUID, int] | None = None,
    claim: str | None = None,
    idempotency: Idempotency | None = None,
    events: int = 1,
) -> Append:
    stream = stream or uuid4()
    return prepare(
        [Draft(stream, version + n, "topic", b"{}") for n in range(events)],
        reads=reads or {},
        claims=[Claim("name", claim, 0)] if claim else [],
        rows={},
        idempotency=idempotency,
    )


class Gate:
    """A writer that takes what it is given and commits it when told; `failing`: streams it refuses."""

    def __init__(self) -> None:
        self.batches: list[list[Append]] = []
        self.failing: set[UUID] = set()
        self.closed = 0
        self.open = threading.Event()
        self.act: Callable[[], None] = lambda: None

    def commit(self, requests: list[Request]) -> None:
        self.batches.append([request.append for request in requests])
        assert self.open.wait(60)
        self.act()
        for number, request in enumerate(requests, 1):
            if request.append.events[0].stream_id in self.failing:
                request.error = VersionConflictError()
            else:
                request.written = Written(number, NOW)

    def close(self) -> None:
        self.closed += 1


class Crowd:
    """Threads that append, one after the other, while the first waits at the gate."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.sequencer = Sequencer(self.gate)
        self.outcomes: dict[int, object] = {}
        self._threads: list[threading.Thread] = []

    def come(self, append: Append) -> int:
        """Let one more append; return its number. The first leads, the others queue up."""
        number = len(self._threads)

        def run() -> None:
            try:
                self.outcomes[number] = self.sequencer.append(append)
            except BaseException as error:  # noqa: BLE001 -- it is the outcome
                self.outcomes[number] = error

        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()
        wait_until(
            lambda: len(self.gate.batches) == 1 and len(self.sequencer._queue) == number,
            "it has come",
        )
        return number

    def go(self) -> list[object]:
        self.gate.open.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "somebody was left waiting"
        return [self.outcomes[number] for number in range(len(self._threads))]


@contextmanager
def a_crowd() -> Iterator[Crowd]:
    crowd = Crowd()
    crowd.come(an_append())
    yield crowd
    assert not crowd.sequencer._queue
    assert not crowd.sequencer._led


def test_what_waits_is_committed_together_and_in_order() -> None:
    with a_crowd() as crowd:
        appends = [an_append() for _ in range(20)]
        for append in appends:
            crowd.come(append)
        assert all(isinstance(one, Written) for one in crowd.go())
        assert [len(batch) for batch in crowd.gate.batches] == [1, 20]
        assert crowd.gate.batches[1] == appends


def test_a_batch_has_a_limit_but_a_larger_append_goes_alone() -> None:
    with a_crowd() as crowd:
        for events in (MAX_EVENTS + 1, MAX_EVENTS - 1, 1, 1):
            crowd.come(an_append(events=events))
        crowd.go()
        sizes = [[len(append.events) for append in batch] for batch in crowd.gate.batches]
        assert sizes == [[1], [MAX_EVENTS + 1], [MAX_EVENTS - 1, 1], [1]]


@pytest.mark.parametrize(
    ("winner", "loser", "error"),
    [
        (an_append(STREAM), an_append(STREAM), VersionConflictError),
        (an_append(STREAM, 3), an_append(OTHER, reads={STREAM: 2}), StaleReadError),
        (an_append(STREAM, claim="x"), an_append(OTHER, claim="x"), ClaimTakenError),
        (
            an_append(STREAM, idempotency=CALL),
            an_append(OTHER, idempotency=CALL),
            IdempotencyTakenError,
        ),
        (
            an_append(STREAM, idempotency=CALL),
            an_append(STREAM, idempotency=CALL),
            IdempotencyTakenError,
        ),
    ],
)
def test_who_lost_in_the_queue_is_told_without_asking(
    winner: Append, loser: Append, error: type[Exception]
) -> None:
    with a_crowd() as crowd:
        crowd.come(winner)
        crowd.come(loser)
        crowd.come(an_append())
        _, won, lost, neither = crowd.go()
        assert isinstance(won, Written)
        assert type(lost) is error
        assert isinstance(neither, Written)
        assert [len(batch) for batch in crowd.gate.batches] == [1, 2]
        if isinstance(lost, ClaimTakenError):
            assert (lost.kind, lost.key, lost.stream_id) == ("name", "x", STREAM)


def test_who_stood_behind_a_loser_is_asked_for() -> None:
    """A conflict is with what was committed, never with what only wanted to be."""
    with a_crowd() as crowd:
        crowd.gate.failing = {STREAM}
        crowd.come(an_append(STREAM, claim="x"))
        crowd.come(an_append(OTHER, claim="x"))
        _, failed, second = crowd.go()
        assert isinstance(failed, VersionConflictError)
        assert isinstance(second, Written)
        assert [len(batch) for batch in crowd.gate.batches] == [1, 1, 1]


def test_the_next_version_waits_for_the_one_before() -> None:
    with a_crowd() as crowd:
        crowd.come(an_append(STREAM, 1))
        crowd.come(an_append(STREAM, 2))
        crowd.come(an_append(OTHER, reads={STREAM: 2}))
        assert all(isinstance(one, Written) for one in crowd.go())
        assert [len(batch) for batch in crowd.gate.batches] == [1, 1, 1, 1]


def test_an_earlier_reader_is_no_hindrance() -> None:
    with a_crowd() as crowd:
        crowd.come(an_append(OTHER, reads={STREAM: 2}))
        crowd.come(an_append(STREAM, 3))
        assert all(isinstance(one, Written) for one in crowd.go())
        assert [len(batch) for batch in crowd.gate.batches] == [1, 2]


@pytest.mark.parametrize("crash", [KeyboardInterrupt, MemoryError, SystemExit, ValueError])
def test_a_leader_that_crashes_strands_nobody(crash: type[BaseException]) -> None:
    with a_crowd() as crowd:
        crowd.come(an_append())
        crowd.come(an_append())

        def act() -> None:
            if len(crowd.gate.batches) == 2:
                raise crash

        crowd.gate.act = act
        first, second, third = crowd.go()
        assert isinstance(first, Written)
        crashed, told = sorted((second, third), key=lambda one: not isinstance(one, crash))
        assert isinstance(crashed, crash)
        assert isinstance(told, UnavailableError)
        assert told.code == "commit-outcome-unknown"
        assert isinstance(crowd.sequencer.append(an_append()), Written)


class _Interrupted:
    """A lock whose sleeper is interrupted, as a signal interrupts the main thread."""

    def __init__(self, until: threading.Event) -> None:
        self._until = until

    def acquire(self) -> None:
        assert self._until.wait(60)
        raise KeyboardInterrupt

    def release(self) -> None:
        self._until.set()


def next_one_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Whoever comes next is interrupted in its sleep when this event is set."""
    interrupt = threading.Event()
    ordinary = module._Waiting.__init__

    def once(self: module._Waiting, append: Append) -> None:
        ordinary(self, append)
        self.wake = _Interrupted(interrupt)
        monkeypatch.setattr(module._Waiting, "__init__", ordinary)

    monkeypatch.setattr(module._Waiting, "__init__", once)
    return interrupt


@pytest.mark.parametrize("promoted", [False, True])
def test_a_follower_that_is_interrupted_strands_nobody(
    promoted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with a_crowd() as crowd:
        interrupt = next_one_is_interrupted(monkeypatch)
        number = crowd.come(an_append(STREAM))
        crowd.come(an_append())
        if not promoted:
            interrupt.set()
            wait_until(lambda: number in crowd.outcomes, "it was interrupted in the queue")
        first, interrupted, last = crowd.go()
        assert isinstance(first, Written)
        assert isinstance(interrupted, KeyboardInterrupt)
        assert isinstance(last, Written)
        written = {e.stream_id for batch in crowd.gate.batches for a in batch for e in a.events}
        assert STREAM not in written


@pytest.mark.parametrize("woken", [False, True])
def test_who_is_interrupted_while_it_is_committed_for_does_not_keep_the_next_asleep(
    woken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A settled thread wakes the next: also when a signal comes before, or as it is woken."""
    with a_crowd() as crowd:
        crowd.come(an_append())  # will lead
        interrupt = next_one_is_interrupted(monkeypatch)
        number = crowd.come(an_append(STREAM))
        crowd.come(an_append())
        crowd.come(an_append())

        def act() -> None:
            if len(crowd.gate.batches) == 2 and not woken:
                interrupt.set()
                wait_until(lambda: number in crowd.outcomes, "it was interrupted")

        crowd.gate.act = act
        _, leader, interrupted, *others = crowd.go()
        assert isinstance(interrupted, KeyboardInterrupt)
        assert all(isinstance(one, Written) for one in (leader, *others))
        assert [len(batch) for batch in crowd.gate.batches] == [1, 4]


def test_closing_lets_the_queue_finish_and_takes_nothing_more() -> None:
    with a_crowd() as crowd:
        crowd.come(an_append())
        crowd.sequencer.close()
        with pytest.raises(UnavailableError):
            crowd.sequencer.append(an_append())
        assert crowd.gate.closed == 0
        assert all(isinstance(one, Written) for one in crowd.go())
    assert crowd.gate.closed == 1


def test_closing_when_nobody_is_there() -> None:
    gate = Gate()
    Sequencer(gate).close()
    assert gate.closed == 1


class Count:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int]] = []
        self.appends: list[bool] = []

    def batch(self, appends: int, events: int, seconds: float) -> None:
        assert seconds >= 0
        self.batches.append((appends, events))

    def append(self, seconds: float, *, written: bool) -> None:
        assert seconds >= 0
        self.appends.append(written)


def test_an_observer_is_told_of_what_was_written_and_of_every_append() -> None:
    count = Count()
    with a_crowd() as crowd:
        crowd.sequencer._observer = count
        crowd.come(an_append(events=3))
        crowd.come(an_append())
        crowd.gate.failing.add(OTHER)
        crowd.come(an_append(OTHER))
        crowd.go()
    assert count.batches == [(1, 1), (2, 4)]  # who was refused is not part of what was committed
    assert sorted(count.appends) == [False, True, True, True]
