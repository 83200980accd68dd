"""Tables that are filled after the commit: in order, in batches, by one process at a time."""

import threading
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest

from api.following import Following
from ledger.errors import UnavailableError
from ledger.record import RecordedEvent
from projections.follower import APPLICATION, Followed, Follower
from projections.history import HISTORY
from projections.registry import FOLLOWED
from projections.verify import check_ledger
from support.appending import assert_right, checked_store, register
from support.databases import Database
from support.past import generate
from support.waiting import wait_until


class Seen:
    """A followed table that only remembers what it was given."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.fail_at: int | None = None

    def __call__(
        self, connection: psycopg.Connection[Any], events: Sequence[RecordedEvent]
    ) -> None:
        positions = [one.position for one in events]
        if self.fail_at in positions:
            raise RuntimeError("this batch fails")
        self.batches.append(positions)


def follower_of(database: Database, seen: Seen, **more: Any) -> Follower:
    return Follower(database.service_dsn, [Followed("seen", lambda: seen)], **more)


def test_batches_come_in_order_without_gaps_and_once(database: Database) -> None:
    seen = Seen()
    follower = follower_of(database, seen, batch=4)
    with checked_store(database) as store:
        for _ in range(10):
            register(store)
        told: list[tuple[object, ...]] = []
        follower.follow(lambda *step: told.append(step))
        assert [len(batch) for batch in seen.batches] == [4, 4, 2]
        assert told == [("seen", 4, 10), ("seen", 8, 10), ("seen", 10, 10)]
        register(store)
        follower.reach("seen", 11)
        follower.reach("seen", 3)
    follower.close()
    again = follower_of(database, seen)
    again.follow()
    assert [position for batch in seen.batches for position in batch] == list(range(1, 12))
    again.close()


def test_a_batch_that_fails_leaves_nothing_and_is_repeated(database: Database) -> None:
    seen = Seen()
    follower = follower_of(database, seen, batch=2)
    with checked_store(database) as store:
        for _ in range(4):
            register(store)
    seen.fail_at = 3
    with pytest.raises(RuntimeError, match="this batch fails"):
        follower.follow()
    assert follower.position("seen") == 2
    seen.fail_at = None
    follower.follow()
    assert seen.batches == [[1, 2], [3, 4]]
    follower.close()


def test_one_process_at_a_time_and_a_reader_waits_for_it(database: Database) -> None:
    seen = Seen()
    follower = follower_of(database, seen)
    with checked_store(database) as store:
        register(store)
        follower.follow()
        register(store)
        with psycopg.connect(database.service_dsn) as other:
            # What another process does while it writes a batch.
            other.execute("SELECT FROM projection_progress WHERE name = 'seen' FOR UPDATE")
            follower.follow()
            assert follower.position("seen") == 1
            with pytest.raises(UnavailableError) as refused:
                follower.reach("seen", 2, timeout=0.05)
            assert refused.value.code == "catching-up"
            waiting = threading.Thread(target=follower.reach, args=("seen", 2))
            waiting.start()
            other.execute("UPDATE projection_progress SET position = 2 WHERE name = 'seen'")
            other.commit()
            waiting.join(10)
            assert not waiting.is_alive()
    assert seen.batches == [[1]]
    follower.close()


def test_a_killed_connection_costs_one_batch_only(database: Database) -> None:
    seen = Seen()
    follower = follower_of(database, seen)
    with checked_store(database) as store:
        register(store)
        follower.follow()
        register(store)
        with psycopg.connect(database.superuser_dsn, autocommit=True) as over:
            over.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
                " AND datname = current_database()",
                [APPLICATION],
            )
        with pytest.raises(UnavailableError):
            follower.follow()
        follower.follow()
    assert seen.batches == [[1], [2]]
    follower.close()


def test_the_thread_is_woken_by_an_append(database: Database) -> None:
    seen = Seen()
    follower = follower_of(database, seen)
    following = Following(database.service_dsn, follower)
    following.start()
    try:
        with checked_store(database) as store:
            for number in range(1, 4):
                register(store)
                wait_until(
                    lambda wanted=number: follower.position("seen") == wanted, "it is followed"
                )
    finally:
        following.stop()
        follower.close()
    assert [position for batch in seen.batches for position in batch] == [1, 2, 3]


@pytest.mark.parametrize("batch", [1, 7, 2000])
def test_the_histories_of_a_past_are_followed(database: Database, batch: int) -> None:
    past = generate(database.owner_dsn, events=400 if batch == 1 else 1500)
    follower = Follower(database.service_dsn, FOLLOWED, batch=batch)
    follower.follow()
    assert follower.position(HISTORY) == past.events
    follower.close()
    assert assert_right(database) == past.events


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("UPDATE federation_peers_history SET name = 'Somebody Else'", "differs from its events"),
        ("UPDATE federation_peers_history SET to_position = 4711", "ends elsewhere"),
        ("DELETE FROM federation_peers_history", "is missing"),
        (
            (
                "INSERT INTO federation_policy_history SELECT gen_random_uuid(), version,"
                " four_eyes, required_approvals, approval_days, max_grant_days, certificate_ttl,"
                " token_ttl, changed_at, from_position, to_position FROM federation_policy_history"
            ),
            "no event is behind it",
        ),
        ("UPDATE projection_progress SET position = 9999", "there are"),
    ],
)
def test_a_history_that_is_not_that_of_the_events_is_told(
    database: Database, damage: str, said: str
) -> None:
    generate(database.owner_dsn, events=150)
    follower = Follower(database.service_dsn, FOLLOWED)
    follower.follow()
    follower.close()
    with psycopg.connect(database.owner_dsn) as owner:
        owner.execute(damage.encode())
    report = check_ledger(database.owner_dsn)
    assert not report.ok
    assert said in str(report)
