"""The eventsourcing library's recorder, on our tables: appends go to the sequencer.

It maps no event and decides nothing. The library's own recorder is not used: it locks the whole
table, and its tables have neither leaves nor a head.
"""

from collections.abc import Collection, Mapping, Sequence
from threading import Thread
from typing import Any, Final
from uuid import UUID

import psycopg
from eventsourcing.persistence import (
    ApplicationRecorder,
    IntegrityError,
    ListenNotifySubscription,
    Notification,
    StoredEvent,
    Subscription,
)
from psycopg import sql

from ledger.appends import Claim, Draft, Idempotency, VersionConflictError, prepare
from ledger.database import Reads, conninfo
from ledger.lookups import Lookup
from ledger.packing import integer
from ledger.sequencer import InlineProjection, Sequencer
from ledger.statement import CHANNEL

_STREAM: Final = """SELECT stream_id, version, topic, body FROM ledger_events
    WHERE stream_id = $1 AND version > $2 AND version <= $3 ORDER BY version"""
_ASCENDING: Final = Lookup(_STREAM + " LIMIT $4")
_DESCENDING: Final = Lookup(_STREAM + " DESC LIMIT $4")
_POSITIONS: Final = """SELECT stream_id, version, topic, body, position FROM ledger_events
    WHERE position >= %s AND position <= %s ORDER BY position LIMIT %s"""
_TOPICS: Final = """SELECT stream_id, version, topic, body, position FROM ledger_events
    WHERE position >= %s AND position <= %s AND topic = ANY(%s::text[])
    ORDER BY position LIMIT %s"""
_MAXIMUM: Final = "SELECT max(position) FROM ledger_events"
_LAST: Final = 2**63 - 1


class LedgerRecorder(ApplicationRecorder):
    """Appends through a sequencer, reads through a pool."""

    def __init__(self, dsn: str, sequencer: Sequencer, reads: Reads) -> None:
        self._dsn = dsn
        self._sequencer = sequencer
        self._reads = reads

    def insert_events(
        self,
        stored_events: Sequence[StoredEvent],
        *,
        reads: Mapping[UUID, int] | None = None,
        claims: Sequence[Claim] = (),
        rows: Mapping[InlineProjection, Collection[tuple[object, ...]]] | None = None,
        idempotency: Idempotency | None = None,
        **_: Any,
    ) -> Sequence[int]:
        """Append all or nothing; return the positions.

        Raises:
            IntegrityError: a stream has moved on. Otherwise as `Sequencer.append`.
        """
        if not stored_events:
            return []
        append = prepare(
            [
                Draft(_uuid(e.originator_id), e.originator_version, e.topic, e.state)
                for e in stored_events
            ],
            reads=reads or {},
            claims=claims,
            rows=rows or {},
            idempotency=idempotency,
        )
        try:
            written = self._sequencer.append(append)
        except VersionConflictError:
            raise IntegrityError("a stream has moved on") from None
        first = written.first_position
        return list(range(first, first + len(stored_events)))

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        rows = self._reads.look(
            _DESCENDING if desc else _ASCENDING,
            _uuid(originator_id).bytes,
            integer(-1 if gt is None else gt),
            integer(_LAST if lte is None else lte),
            integer(_LAST if limit is None else limit),
        )
        return [StoredEvent(*row) for row in rows]

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        first = (0 if start is None else start) + (not inclusive_of_start)
        last = _LAST if stop is None else stop
        rows = (
            self._reads.rows(_TOPICS, (first, last, list(topics), limit))
            if topics
            else self._reads.rows(_POSITIONS, (first, last, limit))
        )
        return [Notification(*row) for row in rows]

    def max_notification_id(self) -> int | None:
        position: int | None = self._reads.rows(_MAXIMUM)[0][0]
        return position

    def subscribe(
        self, gt: int | None = None, topics: Sequence[str] = ()
    ) -> Subscription[ApplicationRecorder]:
        return _LedgerSubscription(self, gt, topics)

    def listen(self) -> psycopg.Connection[Any]:
        """Return a connection of its own that hears of every commit; the caller closes it."""
        connection = psycopg.connect(conninfo(self._dsn), autocommit=True)
        connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
        return connection


class _LedgerSubscription(ListenNotifySubscription[LedgerRecorder]):
    """All events, then each new one when it is committed."""

    def __init__(self, recorder: LedgerRecorder, gt: int | None, topics: Sequence[str]) -> None:
        super().__init__(recorder=recorder, gt=gt, topics=topics)
        self._listen_thread = Thread(target=self._listen)
        self._listen_thread.start()

    def __exit__(self, *args: object, **kwargs: Any) -> None:
        try:
            super().__exit__(*args, **kwargs)
        finally:
            self._listen_thread.join()

    def _listen(self) -> None:
        try:
            with self._recorder.listen() as connection:
                # What was committed before we listened was not announced to us.
                self._has_been_notified.set()
                while not self._has_been_stopped:
                    # The library stops a subscription by a flag, so it is looked at now and then.
                    for _ in connection.notifies(timeout=0.1, stop_after=1):
                        self._has_been_notified.set()
        except BaseException as error:  # noqa: BLE001 - handed to the thread that iterates
            self._thread_error = self._thread_error or error
            self.stop()


def _uuid(stream_id: UUID | str) -> UUID:
    return stream_id if isinstance(stream_id, UUID) else UUID(stream_id)
