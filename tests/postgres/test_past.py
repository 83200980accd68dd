"""The made-up past that other tests and benchmarks stand on is one the ledger could have had."""

from collections import Counter

import psycopg
import pytest

from ledger.events import TOPICS
from projections.verify import check_ledger
from support.databases import Cluster, Database
from support.past import generate

EVENTS = 6000


def test_nothing_is_wrong_with_a_made_up_past_and_every_topic_occurs(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("support.past._MOULD", EVENTS // 2)  # the other half are copies
    past = generate(database.owner_dsn, events=EVENTS, seed=3)
    assert EVENTS <= past.events < EVENTS + 50
    report = check_ledger(database.service_dsn)
    assert report.ok, str(report)
    assert report.size == past.events
    with psycopg.connect(database.service_dsn) as connection:
        rows = connection.execute("SELECT topic, count(*) FROM ledger_events GROUP BY 1").fetchall()
        statuses = connection.execute("SELECT DISTINCT status FROM federation_grants").fetchall()
    seen: Counter[str] = Counter(dict(rows))
    assert seen.keys() == TOPICS.keys()
    assert 0.07 < seen["grant.proposed.v1"] / past.events < 0.13
    assert {row[0] for row in statuses} == {
        "pending_approval", "pending_enrollment", "active", "suspended", "expired", "revoked",
        "rejected",
    }  # fmt: skip


def test_the_same_seed_gives_the_same_past(cluster: Cluster) -> None:
    roots = []
    for seed in (1, 1, 2):
        with cluster.database() as database:
            generate(database.owner_dsn, events=300, seed=seed)
            roots.append(check_ledger(database.service_dsn).root)
    assert roots[0] == roots[1] != roots[2]
