"""Store.decide: what was read and has moved is decided anew; calls are answered once."""

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from ledger.appends import Idempotency
from ledger.errors import InvalidError, NotFoundError, RefusedError, StaleError, UnavailableError
from ledger.events import PeerActivated, PeerRegistered, PeerSuspended, PeerUpdated
from ledger.grant_state import Grant
from ledger.peers import Peer, claimed_name
from ledger.reading import Reading
from ledger.record import Filter
from ledger.store import ClaimTakenError, Recorded
from ledger.terms import Question
from ledger.turns import Turns
from support.appending import (
    ACTOR,
    call,
    checked_store,
    event_of,
    outcomes,
    register,
    store_on,
    update,
)
from support.databases import Database
from support.waiting import wait_until

pytestmark = pytest.mark.postgres

IDEMPOTENCY = Idempotency("0123456789abcdef", "POST", "/v1/peers", "key-1", "ab" * 32)


def after(peer_id: UUID, new: UUID, interfere: Callable[[int], object]) -> Callable[[Reading], int]:
    """A command that reads one peer and registers another; `interfere(try)` in between."""
    tries = [0]

    def decision(reading: Reading) -> int:
        reading.state(Peer, peer_id)
        tries[0] += 1
        interfere(tries[0])
        name = f"peer {new.hex[:12]}"
        fact = PeerRegistered(name=name, base_url="https://new.example")
        reading.append(Peer, new, fact, claims=[claimed_name(name)])
        return tries[0]

    return decision


@pytest.mark.parametrize("moves", [0, 1, 3])
def test_a_read_stream_that_moves_is_read_again(database: Database, moves: int) -> None:
    other = store_on(database.service_dsn)
    with checked_store(database) as store:
        peer, new = register(store).value.id, uuid4()

        def interfere(number: int) -> None:
            if number <= moves:
                update(other, peer, f"https://{number}.example")

        recorded = store.decide(call(), after(peer, new, interfere))
        assert recorded.value == moves + 1
        assert recorded.position == store.record.head().size == 2 + moves
    other.close()


def test_one_that_keeps_moving_is_busy(database: Database) -> None:
    other = store_on(database.service_dsn)
    with checked_store(database) as store:
        peer, new = register(store).value.id, uuid4()
        tries: list[int] = []

        def interfere(number: int) -> None:
            tries.append(number)
            update(other, peer, f"https://{number}.example")

        with pytest.raises(UnavailableError) as caught:
            store.decide(call(), after(peer, new, interfere))
        assert caught.value.code == "busy"
        assert tries == [1, 2, 3, 4]
        assert store.record.stream(new) == []
    other.close()


def test_one_that_comes_to_exist_is_read_again(database: Database) -> None:
    """What was read as absent is part of what was read."""
    other = store_on(database.service_dsn)
    with checked_store(database) as store:
        absent, new = uuid4(), uuid4()
        seen: list[bool] = []

        def decision(reading: Reading) -> None:
            seen.append(reading.maybe(Peer, absent) is not None)
            if len(seen) == 1:
                register(other, "absent", peer_id=absent)
            fact = PeerRegistered(name="new", base_url="https://new.example")
            reading.append(Peer, new, fact, claims=[claimed_name("new")])

        store.decide(call(), decision)
        assert seen == [False, True]
    other.close()


def test_two_streams_of_one_kind_get_their_rows(database: Database) -> None:
    ids = uuid4(), uuid4()

    def decision(reading: Reading) -> None:
        for number, peer_id in enumerate(ids):
            name = f"peer {number}"
            fact = PeerRegistered(name=name, base_url="https://new.example")
            reading.append(Peer, peer_id, fact, claims=[claimed_name(name)])

    with checked_store(database) as store:
        store.decide(call(), decision)
    with psycopg.connect(database.service_dsn) as connection:
        found = connection.execute("SELECT id FROM federation_peers").fetchall()
    assert {peer_id for (peer_id,) in found} == set(ids)


def test_a_state_seen_before_saves_loading_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with checked_store(database) as store:
        peer = register(store).value

        def fail(*_: object) -> None:
            raise AssertionError("it was loaded")

        decision = after(peer.id, uuid4(), lambda number: None)
        with monkeypatch.context() as patched:
            patched.setattr(store, "load", fail)
            recorded = store.decide(call(), decision, seen={peer.id: peer})
        assert recorded.value == 1


@pytest.mark.parametrize("written", [False, True])
def test_a_state_seen_before_that_has_moved_is_decided_anew(
    database: Database, written: bool
) -> None:
    with checked_store(database) as store:
        peer, new = register(store).value, uuid4()
        update(store, peer.id, "https://moved.example")
        found: list[str] = []

        def decision(reading: Reading) -> None:
            found.append(reading.state(Peer, peer.id).base_url)
            if written:
                reading.append(Peer, peer.id, PeerUpdated(base_url="https://next.example"))
            else:
                fact = PeerRegistered(name="new", base_url="https://new.example")
                reading.append(Peer, new, fact, claims=[claimed_name("new")])

        store.decide(call(), decision, seen={peer.id: peer})
        assert found == [peer.base_url, "https://moved.example"]


@pytest.mark.parametrize("refuses", [False, True])
def test_what_is_no_append_is_never_the_last_word_on_a_state_seen_before(
    database: Database, refuses: bool
) -> None:
    with checked_store(database) as store:
        peer = register(store).value
        update(store, peer.id, "https://moved.example")

        def decision(reading: Reading) -> str:
            url = reading.state(Peer, peer.id).base_url
            if refuses and url == peer.base_url:
                raise RefusedError("not while it is there", code="grant-suspended")
            return url

        assert store.decide(call(), decision, seen={peer.id: peer}).value == "https://moved.example"


def test_what_a_command_has_read_is_remembered_for_the_next(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with checked_store(database) as store:
        peer = register(store).value.id

        def fail(*_: object) -> None:
            raise AssertionError("it was loaded")

        monkeypatch.setattr(store, "load", fail)
        twin = replace(call(), idempotency=IDEMPOTENCY)
        for each in (call(), twin):
            assert store.decide(each, after(peer, uuid4(), lambda number: None)).value == 1


@pytest.mark.parametrize("answers", ["appends", "returns", "refuses"])
def test_what_is_remembered_and_has_moved_is_never_the_last_word(
    database: Database, answers: str
) -> None:
    """Moved by another process, which tells this one nothing."""
    other = store_on(database.service_dsn)
    with checked_store(database) as store:
        peer, new = register(store).value, uuid4()
        update(other, peer.id, "https://moved.example")
        found: list[str] = []

        def decision(reading: Reading) -> str:
            found.append(reading.state(Peer, peer.id).base_url)
            if answers == "refuses" and len(found) == 1:
                raise RefusedError("not while it is there", code="grant-suspended")
            if answers == "appends":
                fact = PeerRegistered(name="new", base_url="https://new.example")
                reading.append(Peer, new, fact, claims=[claimed_name("new")])
            return found[-1]

        assert store.decide(call(), decision).value == "https://moved.example"
        assert found == [peer.base_url, "https://moved.example"]
    other.close()


def test_a_conflict_on_the_written_stream_is_decided_anew(database: Database) -> None:
    with checked_store(database) as store:
        peer = register(store).value.id
        found = outcomes(
            [lambda n=n: update(store, peer, f"https://{n}.example") for n in range(3)]
        )
        assert not any(isinstance(one, Exception) for one in found)
        assert [row.version for row in store.record.stream(peer)] == [1, 2, 3, 4]


def test_if_match(database: Database) -> None:
    other = store_on(database.service_dsn)
    with checked_store(database) as store:
        peer = register(store).value.id
        assert update(store, peer, expected_version=1).value.version == 2
        with pytest.raises(StaleError):
            update(store, peer, expected_version=1)

        def interfered(reading: Reading) -> None:
            reading.target(Peer, peer)
            update(other, peer, "https://other.example")
            reading.append(Peer, peer, PeerUpdated(base_url="https://mine.example"))

        with pytest.raises(StaleError):  # not decided anew: the caller has not seen version 3
            store.decide(call(expected_version=2), interfered)
        assert store.record.head().size == 3
    other.close()


def test_events_carry_who_why_and_what_caused_them(database: Database) -> None:
    with checked_store(database) as store:
        cause, new = uuid4(), uuid4()

        def decision(reading: Reading) -> Peer:
            fact = PeerRegistered(name="new", base_url="https://new.example")
            reading.append(Peer, new, fact, claims=[claimed_name("new")])
            reading.append(Peer, new, PeerActivated(verification="met"), reason="another")
            return reading.append(Peer, new, PeerSuspended())

        recorded = store.decide(call(reason="because", causation_id=cause), decision)
        first, second, third = recorded.events
        assert [e.causation_id for e in recorded.events] == [cause, first.id, first.id]
        assert [e.reason for e in recorded.events] == ["because", "another", "because"]
        assert {(e.actor, e.correlation_id) for e in recorded.events} == {(ACTOR, "test-request")}
        assert len({first.at, second.at, third.at}) == 1
        assert tuple(row.event for row in store.record.stream(new)) == recorded.events
        assert (recorded.value.version, recorded.position, recorded.replayed) == (3, 3, False)
        assert store.load(Peer, new) == recorded.value
        assert store.load(Peer, new, version=1) != recorded.value


def test_not_found_and_not_of_this_kind(database: Database) -> None:
    with checked_store(database) as store:
        peer = register(store).value.id
        for kind, stream_id in ((Peer, uuid4()), (Grant, peer)):
            with pytest.raises(NotFoundError):
                store.decide(call(), lambda r, k=kind, s=stream_id: r.state(k, s))


def test_a_dry_run_appends_nothing_and_refuses_what_could_not_be_stored(database: Database) -> None:
    with checked_store(database) as store:
        register(store)
        recorded = register(store, "dry", dry_run=True, idempotency=IDEMPOTENCY)
        assert (len(recorded.events), recorded.position) == (1, 1)
        with pytest.raises(InvalidError):
            register(store, dry_run=True, reason="x" * 70_000)
        assert store.record.head().size == 1
        assert not register(store, idempotency=IDEMPOTENCY).replayed


def test_nothing_to_append_is_the_head(database: Database) -> None:
    with checked_store(database) as store:
        peer = register(store).value.id
        recorded = store.decide(call(), lambda r: r.state(Peer, peer).version)
        assert (recorded.value, recorded.position, recorded.events) == (1, 1, ())


# ---- idempotency -----------------------------------------------------------------------------


def test_a_repeat_is_answered_from_what_was_recorded(database: Database) -> None:
    with checked_store(database) as store:
        first = register(store, "Acme", idempotency=IDEMPOTENCY)
        update(store, first.value.id)
        again = register(store, "Acme", idempotency=IDEMPOTENCY)
        assert again.replayed
        assert not first.replayed
        assert replace(again, replayed=False) == first  # as it was then, not as it is now
        named = store.decide(
            call(idempotency=IDEMPOTENCY), lambda r: "decided", again=lambda e: e[0].data.TOPIC
        )
        assert named.value == "peer.registered.v1"


def test_the_same_key_with_another_body_is_refused(database: Database) -> None:
    with checked_store(database) as store:
        register(store, idempotency=IDEMPOTENCY)
        with pytest.raises(InvalidError) as caught:
            register(store, idempotency=replace(IDEMPOTENCY, body_sha256="cd" * 32))
        assert caught.value.code == "idempotency-key-reused"
        for other in ({"credential": "x"}, {"method": "PUT"}, {"path": "/y"}, {"key": "key-2"}):
            assert not register(store, idempotency=replace(IDEMPOTENCY, **other)).replayed


def test_a_refusal_is_not_recorded(database: Database) -> None:
    with checked_store(database) as store:
        register(store, "Acme")
        with pytest.raises(ClaimTakenError):
            register(store, "Acme", idempotency=IDEMPOTENCY)
        assert not register(store, "Other", idempotency=IDEMPOTENCY).replayed


@pytest.mark.parametrize("stores", [1, 2], ids=["one process", "two processes"])
def test_of_many_twins_one_is_carried_out(database: Database, stores: int) -> None:
    others = [store_on(database.service_dsn) for _ in range(stores - 1)]
    with checked_store(database) as store:
        places = [store, *others]
        found = outcomes(
            [
                lambda n=n: register(places[n % stores], "Acme", idempotency=IDEMPOTENCY)
                for n in range(12)
            ]
        )
        assert not [one for one in found if isinstance(one, Exception)]
        assert sorted(one.replayed for one in found) == [False] + [True] * 11
        assert len({one.value.id for one in found}) == 1
    for other in others:
        other.close()


def test_a_twin_in_another_process_that_was_faster(database: Database) -> None:
    other = store_on(database.service_dsn)
    with checked_store(database) as store:
        peer, new = register(store).value.id, uuid4()
        winner = []

        def interfere(number: int) -> None:
            if number == 1:
                winner.append(register(other, "Acme", idempotency=IDEMPOTENCY))

        recorded = store.decide(
            call(idempotency=IDEMPOTENCY),
            after(peer, new, interfere),
            again=lambda events: events[0].originator_version,
        )
        assert recorded.replayed
        assert recorded.position == winner[0].position
        assert store.record.stream(new) == []
    other.close()


def test_what_a_faster_twin_did_is_no_reason_to_refuse(database: Database) -> None:
    other = store_on(database.service_dsn)
    with checked_store(database) as store:
        peer = register(store).value.id

        def activate(reading: Reading) -> Peer:
            state = reading.state(Peer, peer)
            if state.activated_at is not None:
                raise RefusedError("it is active")
            return reading.append(Peer, peer, PeerActivated(verification="x"))

        def late(reading: Reading) -> Peer:
            if not winner:
                # We have looked for a record of the call and found none; now there is one.
                winner.append(other.decide(call(idempotency=IDEMPOTENCY), activate))
            return activate(reading)

        winner: list[Recorded[Peer]] = []
        recorded = store.decide(call(idempotency=IDEMPOTENCY), late)
        assert recorded.replayed
        assert recorded.value == winner[0].value
        with pytest.raises(RefusedError):
            store.decide(call(idempotency=replace(IDEMPOTENCY, key="key-2")), activate)
    other.close()


def test_a_claim_of_a_faster_twin_is_no_reason_to_refuse(database: Database) -> None:
    other = store_on(database.service_dsn)
    with checked_store(database) as store:
        new = uuid4()
        winner: list[Recorded[Peer]] = []

        def late(reading: Reading) -> Peer:
            if not winner:
                winner.append(register(other, "Acme", idempotency=IDEMPOTENCY))
            fact = PeerRegistered(name="Acme", base_url="https://peer.example")
            return reading.append(Peer, new, fact, claims=[claimed_name("Acme")])

        recorded = store.decide(call(idempotency=IDEMPOTENCY), late)
        assert recorded.replayed
        assert recorded.value == winner[0].value
    other.close()


def test_a_twin_waits_and_then_gives_up(database: Database) -> None:
    with checked_store(database) as store:
        store._turns = Turns(patience=0.2)
        deciding, go_on = threading.Event(), threading.Event()

        def slow(reading: Reading) -> None:
            deciding.set()
            go_on.wait(60)

        thread = threading.Thread(target=store.decide, args=(call(idempotency=IDEMPOTENCY), slow))
        thread.start()
        assert deciding.wait(60)
        with pytest.raises(RefusedError) as caught:
            register(store, idempotency=IDEMPOTENCY)
        assert caught.value.code == "idempotency-in-flight"
        go_on.set()
        thread.join(60)
        assert not register(store, idempotency=IDEMPOTENCY).replayed


def test_what_is_heard_of_commits(database: Database) -> None:
    """A subscription hears of an append of another process; so does whoever listens."""
    other = store_on(database.service_dsn)
    with checked_store(database) as store:
        heard: list[int] = []
        with store._recorder.subscribe(gt=0) as subscription:

            def listen() -> None:
                heard.extend(notification.id for notification in subscription)

            thread = threading.Thread(target=listen)
            thread.start()
            register(other)
            register(store)
            wait_until(lambda: heard == [1, 2], "both are heard of")
            subscription.stop()
            thread.join(60)
        with store._recorder.listen() as connection:
            register(other)
            (notice,) = connection.notifies(timeout=60, stop_after=1)
            assert notice.payload == "3"
    other.close()


def test_pages_of_the_record(database: Database) -> None:
    with checked_store(database) as store:
        made = [register(store, idempotency=IDEMPOTENCY if n == 0 else None) for n in range(7)]
        peer = made[2].value.id
        update(store, peer, reason='said "so"')
        record = store.record

        def positions(wanted: Filter, **more: object) -> list[int]:
            return [row.position for row in record.page(wanted, **more)]

        assert positions(Filter(), limit=3) == [1, 2, 3]
        assert positions(Filter(), limit=3, after=3) == [4, 5, 6]
        assert positions(Filter(), limit=3, newest_first=True) == [8, 7, 6]
        assert positions(Filter(), limit=3, newest_first=True, after=6) == [5, 4, 3]
        assert positions(Filter(first=2, last=4)) == [2, 3, 4]
        assert positions(Filter(Question(topics=["peer.updated.v1", "peer.revoked.v1"]))) == [8]
        assert positions(Filter(Question(streams=[peer]))) == [3, 8]
        assert positions(Filter(Question(mentions=[str(peer)]))) == [3, 8]
        assert positions(Filter(Question(words="SO said"))) == [8]
        assert positions(Filter(Question(words="so what"))) == []
        assert positions(Filter(Question(actor_id=ACTOR.id))) == [*range(1, 9)]
        assert positions(Filter(Question(actor_id="peer"))) == []
        third, fourth = record.at(3).recorded_at, record.at(4).recorded_at
        assert positions(Filter(since=third, until=fourth)) == [3]
        assert positions(Filter(since=third, last=4)) == [3, 4]
        assert record.position_at(fourth - timedelta(microseconds=1)) == 3
        assert [row.position for row in record.all(Filter(Question(streams=[peer])))] == [3, 8]
        assert [row.version for row in record.stream(peer, after_version=1)] == [2]
        with pytest.raises(NotFoundError):
            record.at(9)
        with pytest.raises(InvalidError):
            record.page(Filter(Question(mentions=["\ud800"])))


def test_no_environment_variable_is_read(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PERSISTENCE_MODULE", "MAPPER_TOPIC", "CIPHER_TOPIC", "COMPRESSOR_TOPIC"):
        monkeypatch.setenv(name, "no.such:module")
        monkeypatch.setenv(f"LEDGER_{name}", "no.such:module")
    monkeypatch.setenv("IS_SNAPSHOTTING_ENABLED", "y")
    with checked_store(database) as store:
        register(store)


def test_the_options_of_a_dsn_stay(database: Database) -> None:
    dsn = make_conninfo(database.service_dsn, options="-c work_mem=7MB")
    store = store_on(dsn)
    rows = store._reads.rows
    assert rows("SHOW work_mem") == [("7MB",)]
    assert rows("SHOW default_transaction_read_only") == [("on",)]
    register(store)
    store.close()


def test_reading_survives_a_restart_and_ends_with_close(database: Database) -> None:
    """Whichever way it is asked: a statement that is prepared must be prepared anew."""
    store = store_on(database.service_dsn)
    peer = register(store).value.id
    looks: list[Callable[[], object]] = [
        lambda: store.record.head().size,
        lambda: len(list(store.events.get(peer))),
        lambda: store.record.moved({peer: 0}),
    ]
    for look in looks:
        assert look() == 1
        with psycopg.connect(database.superuser_dsn) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        assert look() == 1
    store.close()
    with pytest.raises(UnavailableError):
        store.record.head()
    with pytest.raises(UnavailableError):
        store.save(event_of(uuid4(), 1, PeerSuspended()))
