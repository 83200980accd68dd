"""Commits batches of appends over one connection, and tells each append its own outcome.

Optimistic first: one statement, no lock. After losing the head to another process, the head row is
locked first for a while. It queues nothing and starts no thread: the sequencer calls it, one batch
at a time, and after a call every request of the batch is settled.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import psycopg

from ledger.appends import Append, StaleReadError
from ledger.connection import ConnectionLostError, StatementError, WriterConnection
from ledger.database import condition_of, error_of, storage_unavailable
from ledger.errors import UnavailableError
from ledger.history import NO_ANCHOR, Anchor, History
from ledger.plan import Head, Plan, Written, plan, tables_of

LOCKED_BATCHES: Final = 64
"""How many batches take the head lock first after the head was lost to another process: pure
optimism starves whoever is farther away, locking always costs the single process two round trips."""

RECONNECT_SECONDS: Final = 5.0
HEAD_AHEAD: Final = timedelta(seconds=60)


@dataclass(eq=False, slots=True)
class Request:
    """One append and, once settled, its outcome: either `written` or `error`."""

    append: Append
    written: Written | None = None
    error: Exception | None = None

    @property
    def settled(self) -> bool:
        return self.written is not None or self.error is not None


@dataclass(eq=False, slots=True)
class _Attempt:
    """A commit that was asked for. Until it is known to have failed it may yet happen."""

    position: int = 0  # of its first event
    leaf: bytes = b""
    anchor: Anchor = NO_ANCHOR
    outcome: list[tuple[Request, Written]] = field(default_factory=list)

    def add(self, planned: Plan, requests: Sequence[Request]) -> None:
        if not self.outcome:
            self.position, self.leaf = planned.written[0].first_position, planned.first_leaf
        self.anchor = Anchor(planned.after.size, planned.last_leaf)
        self.outcome += zip(requests, planned.written, strict=True)


class Writer:
    """The writing end of one process. Not thread-safe: one caller at a time."""

    def __init__(
        self,
        dsn: str,
        *,
        clock: Callable[[], datetime],
        stream_type: Callable[[str], str],
        history: History,
        projections_version: int,
        clock_skew: timedelta,
    ) -> None:
        """`stream_type`: topic → stream type. `clock_skew`: how far apart our clock and the
        database's may be. Connects with the first commit, not before."""
        self._dsn = dsn
        self._clock = clock
        self._stream_type = stream_type
        self._history = history
        self._projections_version = projections_version
        self._clock_skew = clock_skew.total_seconds()
        self._connection: WriterConnection | None = None
        self._head: Head | None = None  # as far as we know; the compare-and-swap tells
        self._locked_batches = 0
        self._attempts: list[_Attempt] = []  # asked for in this call, outcome unknown so far

    def commit(self, requests: Sequence[Request]) -> None:
        """Append what can be appended, in order; afterwards every request is settled.

        No two requests may write the same stream, claim or call, nor may one read what an earlier
        one writes. Raises nothing of its own, but passes on what it did not expect.
        """
        self._attempts.clear()
        try:
            self._history.refuse_if_lost()
            self._commit(list(requests))
        except UnavailableError as error:
            self._head = None
            self._fail_rest(requests, error)
        except BaseException:
            # An interrupt, or a mistake of ours: nobody who waits for us may be left waiting.
            self.close()
            self._fail_rest(requests, storage_unavailable())
            raise

    def close(self) -> None:
        """Drop the connection. The next commit opens another."""
        connection, self._connection, self._head = self._connection, None, None
        if connection is not None:
            connection.close()

    def _commit(self, waiting: list[Request]) -> None:
        deadline: float | None = None
        one_by_one = False
        while waiting:
            try:
                connection = self._connected()
                if self._locked_batches or self._attempts or one_by_one:
                    waiting = self._commit_locked(connection, waiting, one_by_one)
                else:
                    waiting = self._commit_optimistic(connection, waiting)
            except StatementError as error:
                if one_by_one:
                    raise condition_of(error.cause) from None
                one_by_one = True
            except ConnectionLostError:
                self.close()
                deadline = deadline or time.monotonic() + RECONNECT_SECONDS
                if time.monotonic() > deadline:
                    raise storage_unavailable() from None
                time.sleep(0.05)

    def _connected(self) -> WriterConnection:
        if self._connection is None:
            try:
                self._connection = WriterConnection(
                    self._dsn, self._projections_version, self._clock_skew
                )
            except psycopg.Error:
                if not self._attempts:
                    raise storage_unavailable() from None
                # What became of them matters more than answering at once.
                raise ConnectionLostError from None
        return self._connection

    # ---- the usual way: nobody else appended since ------------------------------------------

    def _commit_optimistic(
        self, connection: WriterConnection, waiting: list[Request]
    ) -> list[Request]:
        """One statement for all. Return who is still to be settled."""
        head = self._head or self._read_head(connection)
        planned = self._plan(head, waiting)
        attempt = _Attempt()
        attempt.add(planned, waiting)
        self._attempts.append(attempt)
        try:
            appended = connection.append(planned)
        except StatementError as error:
            self._attempts.remove(attempt)
            self._head = None
            if len(waiting) > 1:
                raise
            self._blame(connection, waiting[0], error)
            return []
        if appended:
            self._settle(attempt, planned.after)
            return []
        self._attempts.remove(attempt)
        rest = self._without_stale(connection, planned, waiting)
        if len(rest) == len(waiting):
            self._head = None
            self._locked_batches = LOCKED_BATCHES
        return rest

    # ---- after contention, a failure or a lost answer: the head row locked first ------------

    def _commit_locked(
        self, connection: WriterConnection, waiting: list[Request], one_by_one: bool
    ) -> list[Request]:
        """One transaction for all. Return who is still to be settled."""
        self._locked_batches = max(0, self._locked_batches - 1)
        attempt = _Attempt()
        with connection.transaction():
            head = self._read_head(connection, tables_of([r.append for r in waiting]))
            landed = self._landed(connection, head)
            waiting = [request for request in waiting if not _in(landed, request)]
            if one_by_one:
                head = self._append_each(connection, head, waiting, attempt)
            else:
                head = self._append_together(connection, head, waiting, attempt)
            if attempt.outcome:
                self._attempts.append(attempt)
            if attempt.outcome or landed:
                # What has landed is committed once more: this waits for a synchronous standby, too.
                self._commit_transaction(connection, attempt)
        for each in (*landed, attempt):
            self._settle(each, head)
        if attempt.outcome:
            self._attempts.clear()  # the head has moved: none of the others can happen any more
        return [request for request in waiting if not request.settled]

    def _commit_transaction(self, connection: WriterConnection, attempt: _Attempt) -> None:
        try:
            connection.commit()
        except StatementError as error:
            if attempt in self._attempts:
                self._attempts.remove(attempt)
            raise condition_of(error.cause) from None

    def _landed(self, connection: WriterConnection, head: Head) -> list[_Attempt]:
        """Return the commits of this call that happened although their answer was lost.

        With the head locked nothing is in flight that could still be decided either way: a backend
        that holds the head was waited for, one that comes later finds it moved.
        """
        landed: list[_Attempt] = []
        for attempt in list(self._attempts):
            if head.size < attempt.position:
                continue  # not yet; it cannot happen once this transaction has moved the head
            if connection.leaf(attempt.position) == attempt.leaf:
                landed.append(attempt)
            else:
                self._attempts.remove(attempt)
        return landed

    def _append_together(
        self, connection: WriterConnection, head: Head, waiting: list[Request], attempt: _Attempt
    ) -> Head:
        while waiting:
            planned = self._plan(head, waiting)
            if connection.append(planned):
                attempt.add(planned, waiting)
                return planned.after
            waiting = self._without_stale(connection, planned, waiting)
        return head

    def _append_each(
        self, connection: WriterConnection, head: Head, waiting: list[Request], attempt: _Attempt
    ) -> Head:
        """A savepoint each, so that only the guilty fail."""
        for request in waiting:
            try:
                with connection.savepoint():
                    planned = self._plan(head, [request])
                    appended = connection.append(planned)
            except StatementError as error:
                self._blame(connection, request, error)
                continue
            if appended:
                attempt.add(planned, [request])
                head = planned.after
            else:
                self._without_stale(connection, planned, [request])
        return head

    # ---- parts of both -----------------------------------------------------------------------

    def _read_head(self, connection: WriterConnection, lock: Sequence[str] | None = None) -> Head:
        """Read the head row; with `lock`, begin a transaction, lock those tables, then the row."""
        seen, anchor = self._history.seen, self._history.anchor
        row = connection.head(anchor.position, lock)
        if row is None:
            self._history.declare_lost("the head row is gone")
        self._history.saw(row.size, seen)
        self._history.check_anchor(anchor, row.anchor_leaf)
        if row.projections_version != self._projections_version:
            raise UnavailableError(
                "the tables belong to another release", code="projections-version"
            )
        if row.head is None:
            self._history.declare_lost("the frontier is not that of the head's size")
        self._history.knows(row.size, row.head.frontier.edge())
        return row.head

    def _plan(self, head: Head, waiting: Sequence[Request]) -> Plan:
        now = self._clock()
        last = head.last_recorded_at
        if last is not None and last - now > HEAD_AHEAD:
            raise _clock_untrusted()
        return plan(head, [request.append for request in waiting], now, self._stream_type)

    def _without_stale(
        self, connection: WriterConnection, planned: Plan, waiting: Sequence[Request]
    ) -> list[Request]:
        """Fail whose reads have moved on; return the others, of whom nothing was appended."""
        refusal = connection.refusal(planned, self._clock())
        if not refusal.clock_good:
            raise _clock_untrusted()
        readers = list(planned.reads.values())
        for read in refusal.moved:
            for number in readers[read - 1]:
                waiting[number].error = StaleReadError()
        return [request for request in waiting if not request.settled]

    def _blame(self, connection: WriterConnection, request: Request, error: StatementError) -> None:
        if error.position_taken:
            self._history.declare_lost("there are events beyond the head")
        request.error = connection.explain(error, request.append) or error_of(error.cause)

    def _settle(self, attempt: _Attempt, after: Head) -> None:
        """Tell the requests of a commit that it happened."""
        for request, written in attempt.outcome:
            request.written = written
        self._head = after
        self._history.knows(after.size, after.frontier.edge())
        if attempt.anchor.position > self._history.anchor.position:
            self._history.wrote(attempt.anchor)
        if attempt in self._attempts:
            self._attempts.remove(attempt)

    def _fail_rest(self, requests: Iterable[Request], error: UnavailableError) -> None:
        """Settle what is left: unknown if a commit of it may have happened, else as `error`.

        After lost history nothing is worth asking again for: that is what all are told.
        """
        lost = error.code == "lost-history"
        attempts = () if lost else self._attempts
        unknown = {id(request) for each in attempts for request, _ in each.outcome}
        for request in requests:
            if request.settled:
                continue
            if id(request) in unknown:
                request.error = UnavailableError(
                    "whether this was recorded is not known; ask again with the same key",
                    code="commit-outcome-unknown",
                )
            else:
                # One exception object each: they are raised in different threads.
                request.error = UnavailableError(error.detail, code=error.code)


def _in(attempts: Sequence[_Attempt], request: Request) -> bool:
    return any(request is other for attempt in attempts for other, _ in attempt.outcome)


def _clock_untrusted() -> UnavailableError:
    return UnavailableError("the clocks disagree", code="clock-untrusted")
