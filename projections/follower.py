"""Fills tables after the commit: events in batches, each with its position in one transaction.

Whoever reads such a table waits until it has come far enough (`Follower.reach`); the thread in
`api/following.py` sees to it that the wait is short. One process at a time writes a table: it holds
the row of its progress. Killed, it leaves whole batches. It decides nothing and knows no table.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final, NamedTuple

import psycopg

from ledger.database import condition_of, conninfo
from ledger.errors import UnavailableError
from ledger.record import RecordedEvent

Write = Callable[[psycopg.Connection[Any], Sequence[RecordedEvent]], None]
"""Adds what follows from some events, the next ones in order. In a transaction that it neither
commits nor ends; it may keep what helps with the next batch, but must not rely on it."""

LONGEST_WAIT: Final = 5.0  # seconds
APPLICATION: Final = "fedledger follower"
"""The name under which the server lists the connection."""
_BATCH: Final = 2000  # events
_PAUSE: Final = 0.01  # seconds between looks at what another process is doing

# Only unique and few rows are looked up here, in tables whose statistics may be of yesterday.
_SESSION: Final = """
    SET timezone = 'UTC';
    SET synchronous_commit = off;
    SET enable_seqscan = off;
    SET enable_hashjoin = off;
    SET enable_mergejoin = off;
    SET lock_timeout = '5s';
    SET idle_in_transaction_session_timeout = '60s'
"""
_BEGIN: Final = """INSERT INTO projection_progress (name, position, release) VALUES (%s, 0, %s)
    ON CONFLICT (name) DO NOTHING"""
_TAKE: Final = """SELECT position, release FROM projection_progress WHERE name = %s
    FOR UPDATE SKIP LOCKED"""
_LOOK: Final = "SELECT position FROM projection_progress WHERE name = %s"
_EVENTS: Final = """SELECT position, stream_id, version, topic, recorded_at, body, leaf
    FROM ledger_events WHERE position > %s ORDER BY position LIMIT %s"""
_HEAD: Final = "SELECT size FROM ledger_head"
_ADVANCE: Final = "UPDATE projection_progress SET position = %s WHERE name = %s"


def progress(connection: psycopg.Connection[Any], name: str, release: int) -> int:
    """How far the tables of `name` have come, as this connection's transaction sees it.

    0 where they are another release's.
    """
    row = connection.execute(f"{_LOOK} AND release = %s", [name, release]).fetchone()
    return int(row[0]) if row else 0


@dataclass(frozen=True, slots=True)
class Followed:
    """Tables filled together after the commit. `name`: of their progress, for ever.

    `open` gives the function that writes; one for each process that follows.
    """

    name: str
    open: Callable[[], Write]


class _Step(NamedTuple):
    """What came of one batch. `ours`: nobody else is writing these tables."""

    position: int
    events: int
    ours: bool


class Follower:
    """Brings followed tables up to date. Safe to use from several threads."""

    def __init__(
        self,
        dsn: str,
        followed: Sequence[Followed],
        *,
        batch: int = _BATCH,
        release: int = 1,
    ) -> None:
        """Connects with the first use. `dsn`: the service role's. `batch`: events in one.

        `release`: of what this process writes; tables of another are left as they are.
        """
        self._release = release
        self._dsn = dsn
        self._batch = batch
        self._followed = {each.name: each for each in followed}
        self._writers = {each.name: each.open() for each in followed}
        self._mutex = Lock()
        self._connection: psycopg.Connection[Any] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Of everything that is followed here."""
        return tuple(self._writers)

    def reach(self, name: str, position: int, *, timeout: float = LONGEST_WAIT) -> None:
        """Return once the tables of `name` hold everything up to `position`, working towards it.

        Raises:
            UnavailableError: `catching-up`, they do not after `timeout` seconds;
                `storage-unavailable`.
        """
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            if not self._mutex.acquire(timeout=left):
                break
            try:
                step = self._step(name)
            finally:
                self._mutex.release()
            if step.position >= position:
                return
            if not step.ours:
                time.sleep(_PAUSE)
        raise UnavailableError(
            "what this reads is still being brought up to date; try again", code="catching-up"
        )

    def follow(
        self,
        progress: Callable[[str, int, int], object] | None = None,
        until: Callable[[], bool] = lambda: False,
    ) -> None:
        """Bring everything up to the head, as it is at the end.

        `progress` is told a name, its position and the head's after each batch; `until` is asked whether to
        stop before one. What another process is working on is left to it.

        Raises:
            UnavailableError: `storage-unavailable`.
        """
        for name in self._writers:
            while not until():
                with self._mutex:
                    step = self._step(name)
                if not step.events:
                    break
                if progress is not None:
                    progress(name, step.position, self._size())

    def position(self, name: str) -> int:
        """How far the tables of `name` have come."""
        with self._mutex:
            row = self._connected().execute(_LOOK, [name]).fetchone()
        return int(row[0]) if row else 0

    def close(self) -> None:
        """Close the connection."""
        with self._mutex:
            self._forget()

    def _size(self) -> int:
        with self._mutex:
            row = self._connected().execute(_HEAD).fetchone()
        return int(row[0]) if row else 0

    def _step(self, name: str) -> _Step:
        """Write one batch of `name`."""
        try:
            connection = self._connected()
            with connection.transaction():
                return self._write(connection, name)
        except psycopg.Error as error:
            # What a writer kept may be of a batch that is not there.
            self._writers[name] = self._followed[name].open()
            self._forget()
            raise condition_of(error) from None
        except BaseException:
            self._writers[name] = self._followed[name].open()
            raise

    def _write(self, connection: psycopg.Connection[Any], name: str) -> _Step:
        seen = connection.execute(_LOOK, [name]).fetchone()
        if seen is None:
            connection.execute(_BEGIN, [name, self._release])
        taken = connection.execute(_TAKE, [name]).fetchone()
        if taken is None or taken[1] != self._release:
            return _Step(int(seen[0]) if seen else 0, 0, ours=False)
        rows = connection.execute(_EVENTS, [taken[0], self._batch], binary=True).fetchall()
        events = [RecordedEvent(*row) for row in rows]
        if not events:
            return _Step(int(taken[0]), 0, ours=True)
        self._writers[name](connection, events)
        last = events[-1].position
        connection.execute(_ADVANCE, [last, name])
        return _Step(last, len(events), ours=True)

    def _connected(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(
                conninfo(self._dsn), autocommit=True, application_name=APPLICATION
            )
            self._connection.execute(_SESSION)
        return self._connection

    def _forget(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()
