"""The eventsourcing library's own recorder suites, run against ours.

They use topics such as "topic1", versions from 0 and bodies that are no JSON, so what is checked at
the end is the chain: positions, leaves, frontier.
"""

import importlib
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from unittest.mock import Mock

import psycopg
import pytest
from eventsourcing.persistence import AggregateRecorder, StoredEvent

from ledger.canonical import format_time
from ledger.database import Reads
from ledger.history import History
from ledger.recorder import LedgerRecorder
from ledger.sequencer import Sequencer
from ledger.tlog.entry import entry_text, leaf_hash
from ledger.tlog.merkle import Frontier
from ledger.writer import Writer
from support.databases import Database

# The suites' module also tests ciphers and would import a package that nothing here needs.
sys.modules.setdefault("eventsourcing.cipher", Mock())
suites = importlib.import_module("eventsourcing.tests.persistence")

pytestmark = pytest.mark.postgres


def stream_type(topic: str) -> str:
    return "suite"


class _Ours:
    """A recorder on the test's database, and the check of the chain at the end."""

    @pytest.fixture(autouse=True)
    def _recorder(self, database: Database) -> Iterator[None]:
        writer = Writer(
            database.service_dsn,
            clock=lambda: datetime.now(UTC),  # noqa: TID251 -- judged against the database's own
            stream_type=stream_type,
            history=History(),
            projections_version=1,
            clock_skew=timedelta(seconds=30),
        )
        reads = Reads(database.service_dsn, 8)
        sequencer = Sequencer(writer)
        self.recorder = LedgerRecorder(database.service_dsn, sequencer, reads)
        yield
        sequencer.close()
        reads.close()
        check_chain(database.owner_dsn)

    def create_recorder(self) -> Any:
        return self.recorder


def check_chain(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        tree, previous = Frontier(), None
        for position, stream, version, topic, recorded_at, body, leaf in connection.execute(
            "SELECT position, stream_id, version, topic, recorded_at, body, leaf"
            " FROM ledger_events ORDER BY position"
        ):
            moment = format_time(recorded_at)
            digest = sha256(body).hexdigest()
            entry = entry_text(position, "suite", stream, version, topic, moment, digest)
            assert position == tree.size + 1
            assert leaf == leaf_hash(entry)
            assert previous is None or recorded_at >= previous
            previous = recorded_at
            tree.append(leaf)
        head = connection.execute("SELECT size, frontier, last_recorded_at FROM ledger_head")
        assert head.fetchall() == [(tree.size, tree.edge(), previous)]


class TestApplicationRecorder(_Ours, suites.ApplicationRecorderTestCase):
    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TestNonInterleaving(_Ours, suites.NonInterleavingNotificationIDsBaseCase):
    pass


class _WithoutPositions(AggregateRecorder):
    """The aggregate suite wants a recorder that numbers nothing: the same one, its answer hidden."""

    def __init__(self, recorder: LedgerRecorder) -> None:
        self._recorder = recorder

    def insert_events(
        self, stored_events: Sequence[StoredEvent], **kwargs: Any
    ) -> Sequence[int] | None:
        self._recorder.insert_events(stored_events, **kwargs)
        return None

    def select_events(self, *args: Any, **kwargs: Any) -> Sequence[StoredEvent]:
        return self._recorder.select_events(*args, **kwargs)


class TestAggregateRecorder(_Ours, suites.AggregateRecorderTestCase):
    def create_recorder(self) -> Any:
        return _WithoutPositions(self.recorder)
