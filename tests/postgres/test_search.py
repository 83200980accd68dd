"""The index of words gives what reading every event gives, however far it has come."""

from collections.abc import Iterator
from random import Random
from typing import Any
from uuid import UUID

import orjson
import psycopg
import pytest

from api.tables import rebuild_all
from ledger.audit import Violation
from ledger.database import Reads
from ledger.record import Filter, Record
from ledger.recorded import RecordedEvent
from ledger.terms import Question, matches, words_of
from projections import event_terms, words
from projections.event_terms import NAME
from projections.follower import Follower
from projections.registry import FOLLOWED
from projections.search import Search
from projections.verify import check_ledger
from support.databases import Cluster, Database
from support.past import generate

pytestmark = pytest.mark.postgres

EVENTS = 6000  # three blocks of the index


@pytest.fixture(scope="module")
def past(cluster: Cluster) -> Iterator[Database]:
    # Filled: whichever workers get a test of this file, the events are made once.
    def fill(database: Database) -> None:
        generate(database.owner_dsn, events=EVENTS, seed=7)

    with cluster.filled(f"past_{EVENTS}_seed_7", fill) as database:
        yield database


@pytest.fixture(scope="module")
def record(past: Database) -> Iterator[Record]:
    reads = Reads(past.service_dsn, 2)
    yield Record(reads)
    reads.close()


@pytest.fixture(scope="module")
def events(record: Record) -> list[RecordedEvent]:
    return list(record.all())


def fill(past: Database, events: list[RecordedEvent], known: int, random: Random) -> None:
    """Index the first `known` events from nothing, in batches of any size."""
    with psycopg.connect(past.superuser_dsn) as connection:
        connection.execute("TRUNCATE event_terms")
        connection.execute("DELETE FROM projection_progress")
        connection.execute("INSERT INTO projection_progress VALUES (%s, %s)", [NAME, known])
    with psycopg.connect(past.service_dsn) as connection:
        done = 0
        while done < known:
            size = min(known - done, random.choice([1, 3, 200, 2048, 2500]))
            event_terms.write(connection, events[done : done + size])
            done += size


def search_on(past: Database, record: Record) -> Search:
    def view() -> Any:
        return psycopg.connect(past.service_dsn)

    return Search(record, view)


def questions(events: list[RecordedEvent], random: Random) -> Iterator[Question]:
    """Questions of every kind about an event there is, and about one that is not."""
    for _ in range(25):
        body = orjson.loads(random.choice(events).body)
        one, other = random.choice(events), random.choice(events)
        names = sorted(text for text in one.terms if text.startswith("name:"))
        words = sorted(words_of(body["reason"] or "nothing such"))
        yield Question(
            streams=random.choice([(), (), (), (one.stream_id,), (one.stream_id, other.stream_id)]),
            topics=random.choice([(), (), (one.topic,), (one.topic, other.topic)]),
            actor_id=random.choice([None, None, body["actor"]["id"]]),
            correlation_id=random.choice([None, None, None, body["correlation_id"]]),
            mentions=random.choice([(), (random.choice(names)[5:],), (str(one.stream_id),)]),
            words=random.choice([None, None, words[0], " ".join(words[:2]).upper()]),
            asked_too=random.choice([True, False]),
        )
    yield Question(mentions=("0" * 64,))
    yield Question(words="thereisnosuchword")
    yield Question(topics=("grant.proposed.v1",), words="thereisnosuchword")


@pytest.mark.parametrize("known", [0, 2047, 2049, 5000, EVENTS])
def test_every_question_has_one_answer(
    past: Database, record: Record, events: list[RecordedEvent], known: int
) -> None:
    random = Random(known)
    terms = {one.position: one.terms for one in events}
    fill(past, events, known, random)
    search = search_on(past, record)
    answered = 0
    for question in questions(events, random):
        groups = question.groups()
        first, last = random.choice([(1, len(events)), (700, 4500), (2049, 2048 + 2048)])
        right = [
            one
            for one in events[first - 1 : last]
            if not groups or matches(terms[one.position], groups)
        ]
        answered += len(right)
        # The long way, which reads every event, gives the same.
        assert record.page(Filter(question, first, last), limit=5) == right[:5]
        newest_first = random.random() < 0.5
        if newest_first:
            right.reverse()
        wanted = Filter(question, first, last)
        limit = random.choice([1, 7, 500])
        after = None
        for begin in range(0, min(len(right), 3 * limit) + 1, limit):
            page = search.page(wanted, after=after, newest_first=newest_first, limit=limit)
            assert page == right[begin : begin + limit], question
            if not page:
                break
            after = page[-1].position
    assert answered > 500


def test_times_become_positions(
    past: Database, record: Record, events: list[RecordedEvent]
) -> None:
    fill(past, events, 3000, Random(1))
    since, until = events[999].recorded_at, events[4999].recorded_at
    wanted = Filter(Question(mentions=(str(events[0].stream_id),)), since=since, until=until)
    found = search_on(past, record).page(wanted, limit=1000)
    assert found == record.page(wanted, limit=1000)
    topic = Filter(
        Question(topics=("grant.proposed.v1", "grant.revoked.v1")), since=since, until=until
    )
    found = search_on(past, record).page(topic, limit=1000)
    assert {one.topic for one in found} == {"grant.proposed.v1", "grant.revoked.v1"}
    assert all(since <= one.recorded_at < until for one in found)


def test_what_is_written_follows_from_the_events(
    past: Database, events: list[RecordedEvent]
) -> None:
    fill(past, events, 5000, Random(2))
    with psycopg.connect(past.service_dsn) as connection:
        event_terms.write(connection, events[4000:5000])  # once more: nothing changes
        found = connection.execute("SELECT term, block, positions FROM event_terms").fetchall()
    expected = event_terms.places_of(events[:5000])
    assert sorted(found) == sorted(
        event_terms.row(term, block, offsets) for (term, block), offsets in expected.items()
    )


def test_another_term_of_the_same_number_is_no_answer(
    past: Database, record: Record, events: list[RecordedEvent]
) -> None:
    """A row that says too much is compared with the event and passed over."""
    fill(past, events, EVENTS, Random(3))
    stranger = UUID(int=0)
    with psycopg.connect(past.service_dsn) as connection:
        offsets = range(0, 2048, 2)
        connection.execute(
            "INSERT INTO event_terms VALUES (%s, %s, %s)",
            event_terms.row(event_terms.hash_of(f"name:{stranger}"), 1, offsets),
        )
    search = search_on(past, record)
    assert search.page(Filter(Question(mentions=(str(stranger),)), last=EVENTS)) == []


def test_the_check_of_the_ledger_finds_every_wrong_row(
    past: Database, events: list[RecordedEvent]
) -> None:
    fill(past, events, 0, Random(4))
    follower = Follower(past.service_dsn, [one for one in FOLLOWED if one.name == NAME])
    follower.follow()
    follower.close()
    assert check_ledger(past.service_dsn).ok
    changes = (
        "UPDATE event_terms SET positions = '\\x0100' WHERE block = 0 AND octet_length(positions) = 4",
        "DELETE FROM event_terms WHERE block = 1 AND term % 7 = 0",
        "INSERT INTO event_terms VALUES (1, 2, '\\x0000')",
        "INSERT INTO event_terms VALUES (1, 9, '\\x0000')",
    )
    with psycopg.connect(past.superuser_dsn) as connection:
        for change in changes:
            connection.execute(change)
    found = [one for one in check_ledger(past.service_dsn).violations if "event_terms" in one.where]
    assert [one.where.partition(", positions ")[2] for one in found] == [
        "1 to 2048", "2049 to 4096", "4097 to 6144", "18433 to 20480",
    ]  # fmt: skip
    whats = [one.what.translate({ord(digit): "" for digit in "0123456789"}) for one in found]
    one_too_many = "rows:  have no event behind them"
    differ, lack = "rows:  differ from their events", "rows:  are missing"
    assert whats == [differ, lack, one_too_many, one_too_many]
    alone: list[Violation] = []
    told: list[tuple[int, int]] = []
    assert words.check_words(past.service_dsn, alone.append, lambda *at: told.append(at)) == EVENTS
    assert (alone, told[-1]) == (found, (EVENTS, EVENTS))
    rebuilt = rebuild_all(past.owner_dsn, [words.SOURCE], lambda *_: None)
    assert [(name, one.position) for name, one in rebuilt.items()] == [(words.SOURCE, EVENTS)]
    assert check_ledger(past.service_dsn).ok
