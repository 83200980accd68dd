"""Group commit on a real database: who is guilty fails, alone; everybody else is committed."""

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from eventsourcing.persistence import IntegrityError

from ledger.appends import Claim, Idempotency, IdempotencyTakenError, StaleReadError
from ledger.errors import InvalidError, LedgerError, UnavailableError
from ledger.events import CallDenied, PeerRegistered, PeerSuspended, PeerUpdated
from ledger.mapper import body_of
from ledger.peers import Peer, claimed_name
from ledger.store import ClaimTakenError, Store
from projections import peers
from support.appending import (
    ahead,
    assert_right,
    checked_store,
    event_of,
    held_head,
    one_batch,
    outcomes,
    real_clock,
    register,
    store_on,
    update,
)
from support.databases import Database
from support.waiting import wait_until

pytestmark = pytest.mark.postgres

PEER = PeerRegistered(name="Acme", base_url="https://acme.example")
NOTE = CallDenied(operation="GET /v1/events", problem="forbidden", count=1)
"""In a stream of its own, with neither claim nor row: what a bare save may hold."""
IDEMPOTENCY = Idempotency("0123456789abcdef", "POST", "/v1/peers", "key-1", "ab" * 32)

Bad = Callable[[Store, UUID], object]


def _taken_claim(store: Store, existing: UUID) -> object:
    return register(store, "acme")  # "Acme" is the existing one's, case-folded


def _stale_version(store: Store, existing: UUID) -> object:
    return store.save(event_of(existing, 1, PeerSuspended()))


def _stale_read(store: Store, existing: UUID) -> object:
    return store.save(event_of(uuid4(), 1, PEER), reads={existing: 0})


def _taken_call(store: Store, existing: UUID) -> object:
    return store.save(event_of(uuid4(), 1, PEER), idempotency=IDEMPOTENCY)


def _hostile_row(value: str) -> Bad:
    """A value that only the database refuses, in a row that travels along."""

    def append(store: Store, existing: UUID) -> object:
        state = store.load(Peer, existing)
        assert state is not None
        new = uuid4()
        (row,) = peers.rows(replace(state, id=new))
        number = peers.PROJECTION.names.index("state")
        row = (*row[:number], value, *row[number + 1 :])
        return store.save(event_of(new, 1, PEER), rows={peers.PROJECTION: {row}})

    return append


BAD: dict[str, tuple[Bad, type[Exception]]] = {
    "claim taken": (_taken_claim, ClaimTakenError),
    "stale read": (_stale_read, StaleReadError),
    "stale version": (_stale_version, IntegrityError),  # after its reader, or they part company
    "call taken": (_taken_call, IdempotencyTakenError),
    "no such state": (_hostile_row("no-such-state"), InvalidError),
    "NUL in a row": (_hostile_row("\x00"), InvalidError),
}


@pytest.fixture(params=["optimistic", "head locked"])
def path(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def lose_the_head_once(store: Store, database: Database) -> None:
    """Let another process append in between, so that ours takes the head lock from now on."""
    register(store)
    other = store_on(database.service_dsn)
    register(other)
    other.close()
    register(store)
    assert store._sequencer._writer._locked_batches > 40


@pytest.mark.parametrize("bad", BAD)
def test_one_bad_request_in_a_batch_of_16_fails_alone(
    database: Database, path: str, bad: str
) -> None:
    append, error = BAD[bad]
    with checked_store(database) as store:
        existing = register(store, "Acme", idempotency=IDEMPOTENCY).value.id
        if path == "head locked":
            lose_the_head_once(store, database)
        work: list[Callable[[], object]] = [lambda: register(store)] * 16
        work[7] = lambda: append(store, existing)
        before = store.record.head().size
        found = one_batch(store, database, work)
        assert type(found[7]) is error, found[7]
        assert not any(isinstance(one, Exception) for n, one in enumerate(found) if n != 7)
        assert store.record.head().size == before + 1 + 15


def test_every_kind_of_bad_request_in_one_batch(database: Database, path: str) -> None:
    with checked_store(database) as store:
        existing = register(store, "Acme", idempotency=IDEMPOTENCY).value.id
        if path == "head locked":
            lose_the_head_once(store, database)
        work: list[Callable[[], object]] = []
        for append, _ in BAD.values():
            work += [lambda append=append: append(store, existing), lambda: register(store)]
        found = one_batch(store, database, work)
        assert [type(one) for one in found[::2]] == [error for _, error in BAD.values()]
        assert not any(isinstance(one, Exception) for one in found[1::2])


def test_a_taken_claim_names_who_holds_it(database: Database) -> None:
    with checked_store(database) as store:
        existing = register(store, "Acme").value.id
        with pytest.raises(ClaimTakenError) as caught:
            register(store, "ACME")
        assert (caught.value.kind, caught.value.key) == claimed_name("Acme")
        assert caught.value.stream_id == existing


def test_of_many_claimants_at_once_one_wins_and_the_others_are_told_who(database: Database) -> None:
    with checked_store(database) as store:
        found = outcomes([lambda: register(store, "Acme")] * 16)
        (winner,) = [one for one in found if not isinstance(one, Exception)]
        losers = [one for one in found if isinstance(one, ClaimTakenError)]
        assert len(losers) == 15
        assert {one.stream_id for one in losers} == {winner.value.id}


def test_of_many_writers_of_one_version_one_wins(database: Database) -> None:
    with checked_store(database) as store:
        peer = register(store).value.id
        events = [
            event_of(peer, 2, PeerUpdated(base_url=f"https://{n}.example")) for n in range(16)
        ]
        state = store.load(Peer, peer)
        assert state is not None
        rows = [
            {peers.PROJECTION: set(peers.rows(store.folds[Peer].evolve(state, event)))}
            for event in events
        ]
        found = outcomes(
            [
                lambda event=event, row=row: store.save(event, rows=row)
                for event, row in zip(events, rows, strict=True)
            ]
        )
        assert sorted(type(one).__name__ for one in found) == ["IntegrityError"] * 15 + ["list"]
        assert [e.event for e in store.record.stream(peer)][1:] == [
            event for event, one in zip(events, found, strict=True) if isinstance(one, list)
        ]


def test_a_reader_behind_a_writer_in_the_same_queue_is_stale(database: Database) -> None:
    """What one request writes and a later one has read never commits together unnoticed."""
    with checked_store(database) as store:
        peer = register(store).value.id
        with held_head(database) as let_go:
            threads = []
            found: dict[str, Any] = {}

            def run(name: str, work: Callable[[], object]) -> None:
                def body() -> None:
                    try:
                        found[name] = work()
                    except StaleReadError as error:
                        found[name] = error

                threads.append(threading.Thread(target=body))
                threads[-1].start()
                queue = store._sequencer
                expected = len(threads) - 1
                wait_until(lambda: queue._led and len(queue._queue) == expected, "it is queued")

            run("first", lambda: register(store))
            run("writer", lambda: update(store, peer))
            run("reader", lambda: store.save(event_of(uuid4(), 1, PEER), reads={peer: 1}))
            let_go()
            for thread in threads:
                thread.join(60)
        assert isinstance(found["reader"], StaleReadError)
        assert not isinstance(found["writer"], Exception)


def test_all_or_nothing(database: Database) -> None:
    with checked_store(database) as store:
        peer, new = register(store).value.id, uuid4()
        with pytest.raises(IntegrityError):
            store.save(event_of(new, 1, PEER), event_of(peer, 1, PeerSuspended()))
        assert store.record.stream(new) == []


def test_times_never_decrease_and_one_append_has_one(database: Database) -> None:
    clock = [real_clock()]
    with checked_store(database, lambda: clock[0]) as store:
        for seconds in (0, -10, -10, 0):
            clock[0] += timedelta(seconds=seconds)
            store.save(event_of(uuid4(), 1, NOTE), event_of(uuid4(), 1, NOTE))
        times = [row.recorded_at for row in store.record.range(1, 100)]
        assert times[::2] == times[1::2]
        one = timedelta(microseconds=1)
        first = times[0]
        assert times[::2] == [first, first + one, first + 2 * one, first + 3 * one]
        assert store.record.position_at(first) == 2
        assert store.record.position_at(first - one) == 0


@pytest.mark.parametrize(("seconds", "trusted"), [(55, True), (65, False)])
def test_a_head_more_than_60_seconds_ahead(database: Database, seconds: int, trusted: bool) -> None:
    far = store_on(
        database.service_dsn, ahead(timedelta(seconds=seconds)), clock_skew=timedelta(minutes=5)
    )
    register(far)
    far.close()
    with checked_store(database) as store:
        if trusted:
            register(store)
        else:
            with pytest.raises(UnavailableError) as caught:
                register(store)
            assert caught.value.code == "clock-untrusted"


def test_rows_of_another_release_are_not_written(database: Database) -> None:
    with checked_store(database) as store:
        register(store)
        with psycopg.connect(database.owner_dsn) as connection:
            connection.execute("UPDATE ledger_head SET projections_version = 2")
        for _ in range(2):
            with pytest.raises(UnavailableError) as caught:
                register(store)
            assert caught.value.code == "projections-version"
        assert store.lost_history is None
        newer = store_on(database.service_dsn, projections_version=2)
        register(newer)
        newer.close()


def test_a_full_disk_is_told_and_gone_when_there_is_room_again(database: Database) -> None:
    with checked_store(database) as store:
        register(store)
        with psycopg.connect(database.owner_dsn, autocommit=True) as connection:
            connection.execute(
                "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$"
                " BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = '53100'; END $$"
            )
            connection.execute(
                "CREATE TRIGGER full_disk BEFORE INSERT ON ledger_events"
                " FOR EACH ROW EXECUTE FUNCTION full_disk()"
            )
            found = one_batch_or_more(store)
            assert {one.code for one in found if isinstance(one, LedgerError)} == {"storage-full"}
            assert all(isinstance(one, UnavailableError) for one in found)
            connection.execute("DROP TRIGGER full_disk ON ledger_events")
        register(store)
        assert store.record.head().size == 2


def one_batch_or_more(store: Store) -> list[Any]:
    return outcomes([lambda: register(store)] * 4)


def test_somebody_who_keeps_the_head_is_not_waited_for_for_ever(database: Database) -> None:
    with checked_store(database) as store:
        register(store)
        store._sequencer._writer._connection._connection.execute("SET lock_timeout = '50ms'")
        with held_head(database), pytest.raises(UnavailableError) as caught:
            register(store)
        assert caught.value.code == "busy"
        register(store)


def test_long_keys_and_hostile_claims_never_reach_the_queue(database: Database) -> None:
    with checked_store(database) as store:
        for key in ("x" * 1001, "a\x00b", "\ud800"):
            with pytest.raises(InvalidError):
                store.save(event_of(uuid4(), 1, PEER), claims=[Claim("kind", key, 0)])
            with pytest.raises(InvalidError):
                store.save(event_of(uuid4(), 1, PEER), idempotency=replace(IDEMPOTENCY, key=key))
        with pytest.raises(InvalidError):
            register(store, reason="\ud800")
        with pytest.raises(InvalidError):
            register(store, reason="x" * 70_000)
        assert store.record.head().size == 0


def test_subtree_roots_are_stored_with_the_batch_that_completes_them(database: Database) -> None:
    with checked_store(database) as store:
        store.save(*[event_of(uuid4(), 1, NOTE) for _ in range(250)])
        outcomes([lambda: store.save(event_of(uuid4(), 1, NOTE))] * 16)
        store.save(*[event_of(uuid4(), 1, NOTE) for _ in range(1000)])
        with psycopg.connect(database.service_dsn) as connection:
            found = connection.execute("SELECT level, index FROM ledger_nodes ORDER BY index")
            assert found.fetchall() == [(8, n) for n in range(4)]
    assert assert_right(database) == 1266


def test_bodies_are_stored_as_they_are(database: Database) -> None:
    with checked_store(database) as store:
        event = event_of(uuid4(), 1, NOTE)
        store.save(event)
        row = store.record.at(1)
        assert row.body == body_of(event)
        assert row.event == event
