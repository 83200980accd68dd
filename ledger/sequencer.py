"""Group commit: whoever comes first commits, in one statement, whatever is waiting by then.

No writer thread and no added wait: a batch forms while the batch before it is being committed. It
knows no table and no statement; the writer does. Two appends that touch the same stream, claim or
call never share a batch, so who lost against whom is always known exactly.
"""

from collections.abc import Hashable, Iterable
from itertools import pairwise
from threading import Lock
from time import perf_counter
from typing import Final, Protocol
from uuid import UUID

from ledger.appends import (
    Append,
    ClaimTakenError,
    IdempotencyTakenError,
    InlineProjection,
    StaleReadError,
    VersionConflictError,
)
from ledger.errors import UnavailableError
from ledger.plan import Written
from ledger.writer import Request

__all__ = ["InlineProjection", "Observer", "Sequencer"]

MAX_EVENTS: Final = 512
"""Per batch; an append larger than this is a batch of its own."""


class Commits(Protocol):
    """The writer, as the sequencer sees it."""

    def commit(self, requests: list[Request]) -> None: ...

    def close(self) -> None: ...


class Observer(Protocol):
    """Whoever wants to count. Called in the threads that append, so it must be quick and may not
    raise: an append that is committed would look as if it had failed."""

    def batch(self, appends: int, events: int, seconds: float) -> None:
        """One batch was committed: how many appends and events of it, and how long that took."""

    def append(self, seconds: float, *, written: bool) -> None:
        """One append is settled, after so long in the queue and the commit together."""


class _Nobody:
    """Counts nothing."""

    def batch(self, appends: int, events: int, seconds: float) -> None: ...

    def append(self, seconds: float, *, written: bool) -> None: ...


class _Waiting(Request):
    """A request in the queue, and the lock its thread sleeps on."""

    __slots__ = ("gone", "next", "promoted", "wake", "woken")

    def __init__(self, append: Append) -> None:
        super().__init__(append)
        self.promoted = False  # woken to lead, not because it is settled
        self.woken = False  # because it is settled
        self.next: _Waiting | None = None  # whom its thread wakes then
        self.gone = False  # its thread does not wait any more
        self.wake = Lock()
        self.wake.acquire()


class Sequencer:
    """The queue in front of the writer. Any number of threads may append."""

    def __init__(self, writer: Commits, observer: Observer | None = None) -> None:
        self._writer = writer
        self._observer: Observer = observer or _Nobody()
        self._mutex = Lock()
        self._queue: list[_Waiting] = []
        self._led = False
        self._closed = False

    def append(self, append: Append) -> Written:
        """Commit one append, alone or with others; return where it stands.

        Raises:
            VersionConflictError: a stream already has an event of that version.
            StaleReadError: a stream that was read has moved on.
            ClaimTakenError: naming the stream that holds it.
            IdempotencyTakenError: the call, or its twin, has been recorded already.
            InvalidError: the database cannot hold a value.
            UnavailableError: nothing was recorded, or (`commit-outcome-unknown`) perhaps.
        """
        request = _Waiting(append)
        begun = perf_counter()
        with self._mutex:
            if self._closed:
                raise UnavailableError("this ledger is closed", code="storage-unavailable")
            self._queue.append(request)
            leads, self._led = not self._led, True
        if not leads:
            self._follow(request)
        if not request.settled:
            self._lead(request)
        self._observer.append(perf_counter() - begun, written=request.written is not None)
        if request.written is None:
            raise request.error or RuntimeError("an append was left without an outcome")
        return request.written

    def close(self) -> None:
        """Take nothing more; what is queued is still committed by its own threads."""
        with self._mutex:
            self._closed = True
            idle = not self._led
        if idle:
            self._writer.close()

    def _follow(self, request: _Waiting) -> None:
        """Sleep until settled or promoted."""
        try:
            request.wake.acquire()
        except BaseException:
            # Interrupted: take the request back if nobody has it yet, and hand on the lead if it
            # was just given to us; otherwise all that come after would wait for ever.
            with self._mutex:
                if request in self._queue:
                    self._queue.remove(request)
                    if request.promoted:
                        self._hand_on()
                else:
                    request.gone = True
            raise
        finally:
            with self._mutex:
                if request.woken:
                    self._wake(request.next)

    def _wake(self, request: _Waiting | None) -> None:
        """Wake the thread of a settled request, which wakes the next.

        One after the other, for they can only run one at a time: all at once they would stand before
        the thread that commits the next batch, which has to come to the interpreter again and again.
        """
        while request is not None and request.gone:
            request = request.next
        if request is not None:
            request.woken = True
            request.wake.release()

    def _lead(self, own: _Waiting) -> None:
        """Commit one batch, which begins with our own request; then hand on the lead."""
        batch: list[_Waiting] = []
        try:
            with self._mutex:
                batch = self._take()
            begun = perf_counter()
            self._writer.commit(list(batch))
            self._count(batch, perf_counter() - begun)
        finally:
            with self._mutex:
                if own in self._queue:  # interrupted before it was taken
                    self._queue.remove(own)
                settled = [*batch, *self._losers(batch)]
                for request in settled:
                    if not request.settled:  # whatever happened, nobody is left waiting
                        request.error = UnavailableError(
                            "whether this was recorded is not known", code="commit-outcome-unknown"
                        )
                self._hand_on()
                others = [request for request in settled if request is not own]
                for request, following in pairwise(others):
                    request.next = following
                self._wake(others[0] if others else None)

    def _count(self, batch: list[_Waiting], seconds: float) -> None:
        events = [len(r.append.events) for r in batch if r.written is not None]
        if events:
            self._observer.batch(len(events), sum(events), seconds)

    def _hand_on(self) -> None:
        if self._queue:
            self._queue[0].promoted = True
            self._queue[0].wake.release()
        else:
            self._led = False
            if self._closed:
                self._writer.close()

    def _take(self) -> list[_Waiting]:
        """Take from the queue, in order, what can be committed together."""
        batch: list[_Waiting] = []
        left: list[_Waiting] = []
        written: set[Hashable] = set()
        events = 0
        for request in self._queue:
            append = request.append
            fits = not batch or events + len(append.events) <= MAX_EVENTS
            if fits and written.isdisjoint(append.needs):
                batch.append(request)
                events += len(append.events)
            else:
                left.append(request)
            # Also when left behind: who comes after it may not overtake it on the same stream.
            written |= append.writes
        self._queue = left
        return batch

    def _losers(self, batch: list[_Waiting]) -> list[_Waiting]:
        """Take from the queue, settled, who has lost against what was just committed."""
        if not self._queue:
            return []
        won = [request.append for request in batch if request.written is not None]
        written = frozenset().union(*[append.writes for append in won])
        if all(written.isdisjoint(request.append.needs) for request in self._queue):
            return []  # nearly always
        refusal = _Won(won).refusal
        left: list[_Waiting] = []
        lost: list[_Waiting] = []
        for request in self._queue:
            request.error = refusal(request.append)
            (left if request.error is None else lost).append(request)
        self._queue = left
        return lost


class _Won:
    """What was just committed, to compare the others with."""

    def __init__(self, appends: Iterable[Append]) -> None:
        self._versions: set[tuple[UUID, int]] = set()
        self._claims: dict[tuple[str, str], UUID] = {}
        self._calls: set[tuple[str, ...]] = set()
        for append in appends:
            self._versions.update((event.stream_id, event.version) for event in append.events)
            for claim in append.claims:
                self._claims[claim.kind, claim.key] = append.events[claim.event].stream_id
            if append.idempotency is not None:
                self._calls.add(append.idempotency.name)

    def refusal(self, append: Append) -> Exception | None:
        """What the database would say of `append` now; None when it has no reason to refuse."""
        if append.idempotency is not None and append.idempotency.name in self._calls:
            return IdempotencyTakenError()
        if any((event.stream_id, event.version) in self._versions for event in append.events):
            return VersionConflictError()
        for claim in append.claims:
            if holder := self._claims.get((claim.kind, claim.key)):
                return ClaimTakenError(claim.kind, claim.key, holder)
        if any((stream, version + 1) in self._versions for stream, version in append.reads.items()):
            return StaleReadError()
        return None
