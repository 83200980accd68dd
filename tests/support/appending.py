"""Appending in tests: a store on the test's database, peers to register, batches of a known size."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID, uuid4

import psycopg

from ledger.events import Actor, Event, Fact, PeerRegistered, PeerUpdated
from ledger.folds import FOLDS
from ledger.peers import Peer, claimed_name
from ledger.reading import Call
from ledger.store import Clock, Recorded, Store
from projections.registry import INLINE
from projections.verify import check_ledger
from support.databases import Database
from support.waiting import wait_until

T = TypeVar("T")

ACTOR = Actor(kind="system", id="test", auth="system")


def real_clock() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 -- judged against the database's own clock


def store_on(dsn: str, clock: Clock = real_clock, **more: Any) -> Store:
    return Store(dsn, clock=clock, folds=FOLDS, inline=INLINE, **more)


@contextmanager
def checked_store(database: Database, clock: Clock = real_clock, **more: Any) -> Iterator[Store]:
    """A store on the test's database; afterwards the whole ledger is checked."""
    store = store_on(database.service_dsn, clock, **more)
    try:
        yield store
    finally:
        store.close()
    assert_right(database)


def assert_right(database: Database) -> int:
    """Check the whole ledger; return how many events it has."""
    report = check_ledger(database.owner_dsn)
    assert report.ok, str(report)
    return report.size


def call(**more: Any) -> Call:
    return Call(ACTOR, "test-request", **more)


def register(
    store: Store, name: str | None = None, *, peer_id: UUID | None = None, **more: Any
) -> Recorded[Peer]:
    """Append one peer, with its claim."""
    new, name = peer_id or uuid4(), name or f"peer {uuid4().hex[:12]}"
    fact = PeerRegistered(name=name, base_url="https://peer.example")
    return store.decide(
        call(**more), lambda r: r.append(Peer, new, fact, claims=[claimed_name(name)])
    )


def update(
    store: Store, peer_id: UUID, url: str = "https://new.example", **more: Any
) -> Recorded[Peer]:
    def decision(reading: Any) -> Peer:
        reading.target(Peer, peer_id)
        return reading.append(Peer, peer_id, PeerUpdated(base_url=url))

    return store.decide(call(**more), decision)


def event_of(stream_id: UUID, version: int, fact: Fact) -> Event:
    return Event(stream_id, version, uuid4(), real_clock(), ACTOR, "test", None, None, fact)


@contextmanager
def held_head(database: Database) -> Iterator[Callable[[], None]]:
    """Keep the head row locked, so that whoever appends waits; call what is given to let go."""
    with psycopg.connect(database.owner_dsn) as connection:
        connection.execute("SELECT FROM ledger_head FOR UPDATE")
        yield connection.rollback


def outcomes(work: Sequence[Callable[[], T]]) -> list[T | Exception]:
    """Run each in a thread of its own; return what each returned or raised, in order."""
    found: list[T | Exception] = [RuntimeError("not finished")] * len(work)

    def run(number: int) -> None:
        try:
            found[number] = work[number]()
        except Exception as error:  # noqa: BLE001 -- it is the outcome
            found[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "an append was left without an outcome"
    return found


def one_batch(
    store: Store, database: Database, work: Sequence[Callable[[], T]]
) -> list[T | Exception]:
    """Let all of `work` append in one batch, in this order, after one append of our own.

    The first append waits for the head, held here; what comes meanwhile makes the next batch.
    """
    queue = store._sequencer
    batches: list[int] = []
    commit = queue._writer.commit

    def counted(requests: list[Any]) -> None:
        batches.append(len(requests))
        commit(requests)

    ready = [threading.Event() for _ in work]

    def in_turn(number: int) -> Callable[[], T]:
        def run() -> T:
            ready[number].wait(30)
            return work[number]()

        return run

    def conduct() -> None:
        with held_head(database) as let_go:
            first = threading.Thread(target=lambda: register(store))
            first.start()
            wait_until(lambda: batches == [1], "the first append leads")
            for number, event in enumerate(ready):
                event.set()
                wait_until(
                    lambda expected=number + 1: len(queue._queue) == expected, "it is queued"
                )
            let_go()
            first.join(60)

    queue._writer.commit = counted
    conductor = threading.Thread(target=conduct)
    conductor.start()
    found = outcomes([in_turn(number) for number in range(len(work))])
    conductor.join(60)
    queue._writer.commit = commit
    assert batches[:2] == [1, len(work)], batches
    return found


def ahead(delta: timedelta) -> Clock:
    """A clock that is off by `delta`."""
    return lambda: real_clock() + delta
