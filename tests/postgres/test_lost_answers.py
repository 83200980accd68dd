"""A commit whose answer was lost: told exactly, both ways; told to be unknown when it is."""

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from ledger import writer
from ledger.errors import UnavailableError
from ledger.events import CallDenied
from ledger.store import Store
from support.appending import (
    assert_right,
    event_of,
    held_head,
    one_batch,
    outcomes,
    real_clock,
    register,
    store_on,
)
from support.databases import Database
from support.proxy import Proxy, proxied
from support.waiting import wait_until

pytestmark = pytest.mark.postgres

NOTE = CallDenied(operation="GET /v1/events", problem="forbidden", count=1)


@contextmanager
def store_behind(database: Database) -> Iterator[tuple[Store, Proxy]]:
    """A store that writes through a proxy and reads past it; the ledger is checked at the end."""
    folder = Path(tempfile.mkdtemp(prefix="fl-", dir="/tmp"))
    store = store_on(database.service_dsn)
    try:
        with proxied(database.service_dsn, folder) as proxy:
            store._sequencer._writer._dsn = proxy.dsn
            yield store, proxy
            store.close()
    finally:
        store.close()
        shutil.rmtree(folder)
    assert_right(database)


@pytest.fixture(params=["optimistic", "head locked"])
def locked(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "head locked")


def take_path(store: Store, locked: bool) -> None:
    register(store)
    store._sequencer._writer._locked_batches = 64 if locked else 0


@pytest.mark.parametrize("fault", ["before statement", "before answer", "statement in flight"])
def test_what_became_of_it_is_told_exactly(database: Database, locked: bool, fault: str) -> None:
    """Whether it had been committed or not: afterwards it is, once, and its caller knows where."""
    with store_behind(database) as (store, proxy):
        take_path(store, locked)
        event = event_of(uuid4(), 1, NOTE)
        proxy.arm(fault)
        (recording,) = store.save(event)
        assert proxy.struck.is_set()
        assert recording.notification.id == 2
        assert [row.event for row in store.record.stream(event.originator_id)] == [event]
        register(store)
        assert store.record.head().size == 3


@pytest.mark.parametrize("fault", ["before statement", "before answer"])
def test_a_batch_of_16_with_a_guilty_one(database: Database, locked: bool, fault: str) -> None:
    with store_behind(database) as (store, proxy):
        take_path(store, locked)
        existing = register(store, "Acme").value.id
        take_path(store, locked)
        work: list[Callable[[], object]] = [lambda: register(store)] * 16
        work[3] = lambda: store.save(event_of(existing, 1, NOTE))
        before = store.record.head().size
        armed = threading.Event()
        commit = store._sequencer._writer.commit

        def arming(requests: list[object]) -> None:
            if len(requests) == 16 and not armed.is_set():
                armed.set()
                proxy.arm(fault)
            commit(requests)

        store._sequencer._writer.commit = arming
        found = one_batch(store, database, work)
        assert proxy.struck.is_set()
        assert [n for n, one in enumerate(found) if isinstance(one, Exception)] == [3]
        assert store.record.head().size == before + 1 + 15


def test_an_event_of_somebody_else_in_its_place_is_not_taken_for_it(
    database: Database, locked: bool
) -> None:
    """The lost one never arrived, and another process has had its position since."""
    with store_behind(database) as (store, proxy):
        take_path(store, locked)
        event = event_of(uuid4(), 1, NOTE)
        found: list[object] = []
        proxy.arm("before statement", refuse=True)
        thread = threading.Thread(target=lambda: found.extend(store.save(event)))
        thread.start()
        assert proxy.struck.wait(60)
        other = store_on(database.service_dsn)
        theirs = register(other)
        other.close()
        proxy.recover()
        thread.join(60)
        assert theirs.position == 2
        assert [recording.notification.id for recording in found] == [3]  # type: ignore[attr-defined]
        assert [row.event for row in store.record.stream(event.originator_id)] == [event]
        assert store.record.head().size == 3


def test_a_statement_in_flight_is_waited_for(database: Database) -> None:
    """Its backend waits for the head when the connection is lost, and commits afterwards."""
    with store_behind(database) as (store, proxy):
        take_path(store, locked=False)
        event = event_of(uuid4(), 1, NOTE)
        found: list[object] = []
        with held_head(database) as let_go:
            proxy.arm("statement in flight")
            thread = threading.Thread(target=lambda: found.extend(store.save(event)))
            thread.start()
            assert proxy.struck.wait(60)
            # The lost statement first, then the question what became of it.
            wait_until(lambda: waiting_for_a_lock(database) == 2, "both wait for the head")
            let_go()
            thread.join(60)
        assert len(found) == 1
        assert [row.event for row in store.record.stream(event.originator_id)] == [event]
        assert store.record.head().size == 2


def test_a_statement_in_flight_that_is_killed_is_carried_out_again(database: Database) -> None:
    with store_behind(database) as (store, proxy):
        take_path(store, locked=False)
        event = event_of(uuid4(), 1, NOTE)
        found: list[object] = []
        with held_head(database) as let_go:
            proxy.arm("statement in flight")
            thread = threading.Thread(target=lambda: found.extend(store.save(event)))
            thread.start()
            assert proxy.struck.wait(60)
            wait_until(lambda: waiting_for_a_lock(database) == 2, "both wait for the head")
            with psycopg.connect(database.superuser_dsn) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE"
                    " wait_event_type = 'Lock' AND datname = current_database()"
                    " AND query LIKE 'WITH%'"
                )
            wait_until(lambda: waiting_for_a_lock(database) == 1, "the statement is gone")
            let_go()
            thread.join(60)
        assert len(found) == 1
        assert [row.event for row in store.record.stream(event.originator_id)] == [event]
        assert store.record.head().size == 2


def waiting_for_a_lock(database: Database) -> int:
    with psycopg.connect(database.superuser_dsn) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock' AND datname = current_database()"
        ).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize(("fault", "size"), [("before statement", 1), ("before answer", 2)])
def test_unknown_while_the_database_stays_away(
    database: Database, locked: bool, fault: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "RECONNECT_SECONDS", 0.2)
    with store_behind(database) as (store, proxy):
        take_path(store, locked)
        proxy.arm(fault, refuse=True)
        with pytest.raises(UnavailableError) as caught:
            register(store)
        assert caught.value.code == "commit-outcome-unknown"
        assert store.record.head().size == size
        with pytest.raises(UnavailableError) as caught:
            register(store)
        assert caught.value.code == "storage-unavailable"
        proxy.recover()
        register(store)
        assert store.record.head().size == size + 1


def test_a_refused_connection_is_no_unknown_outcome(database: Database) -> None:
    with store_behind(database) as (store, proxy):
        proxy.refuse()
        found = outcomes([lambda: register(store)] * 8)
        codes = {one.code for one in found if isinstance(one, UnavailableError)}
        assert codes == {"storage-unavailable"}
        proxy.recover()
        register(store)
        assert store.record.head().size == 1


def test_a_restarted_server_is_not_noticed_by_callers(database: Database) -> None:
    with store_behind(database) as (store, _):
        register(store)
        with psycopg.connect(database.superuser_dsn) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        register(store)
        assert store.record.head().size == 2


def test_a_standby_that_was_not_waited_for(database: Database, locked: bool) -> None:
    """Committed here, perhaps not where it will be after a failover: that is not known."""
    with store_behind(database) as (store, proxy):
        take_path(store, locked)
        proxy.arm("warning")
        with pytest.raises(UnavailableError) as caught:
            register(store)
        assert caught.value.code == "commit-outcome-unknown"
        assert store.record.head().size == 2
        register(store)
        assert store.lost_history is None


def test_times_of_the_clock_are_those_of_the_try(database: Database) -> None:
    """A try that is repeated after a loss is stamped again, not with a moment long gone."""
    with store_behind(database) as (store, proxy):
        register(store)
        proxy.arm("before statement")
        before = real_clock()
        register(store)
        assert store.record.at(2).recorded_at >= before
