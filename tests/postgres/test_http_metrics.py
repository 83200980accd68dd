"""`/metrics`, `/health` and `/readyz`: what they say after known traffic and in known trouble."""

from collections.abc import Iterator, Mapping
from datetime import timedelta

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from psycopg import sql

from api.operations import OPERATIONS
from ledger.events import Actor
from ledger.store import Call
from support.databases import Database
from support.http import House, csr
from support.waiting import wait_until

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(place: House, token: str | None = None) -> Samples:
    """Sample name and labels → value."""
    answer = place.call("metrics.show", token=token or place.admin)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[f"fedledger_{name}", frozenset(labels.items())]


def test_known_traffic_is_counted(place: House) -> None:
    before = scrape(place)
    position = value(before, "head_position")
    place.peer()  # registers and activates
    for _ in range(3):
        assert place.call("peer.list", token=place.admin).status_code == 200
    body = {"name": "Example Peer", "base_url": "https://x.example"}
    assert place.call("peer.register", body, token=place.admin).status_code == 409
    assert place.client.simulate_get("/v1/no-such-path").status_code == 404
    after = scrape(place)

    def grown(name: str, **labels: str) -> float:
        key = (f"fedledger_{name}", frozenset(labels.items()))
        return after[key] - before.get(key, 0.0)

    assert grown("requests_total", operation="peer.list", status="2xx") == 3
    assert grown("requests_total", operation="peer.register", status="2xx") == 1
    assert grown("requests_total", operation="peer.register", status="4xx") == 1
    assert grown("requests_total", operation="none", status="4xx") == 1
    assert grown("requests_total", operation="metrics.show", status="2xx") == 1
    assert grown("request_seconds_count", operation="peer.register") == 2
    assert 0 < grown("request_seconds_sum", operation="peer.register") < 60
    assert grown("head_position") == grown("events_appended_total") == 2
    assert grown("appends_total", outcome="written") == 2
    assert grown("appends_total", outcome="refused") == 1  # the claim on the name was taken
    assert grown("append_seconds_count") == 3
    assert grown("batch_appends_count") == grown("batch_appends_sum") == 2
    assert grown("commit_seconds_count") == 2
    assert value(after, "head_position") == position + 2
    assert value(after, "build_info", version=place.parts.services.version) == 1


def test_what_stands_is_looked_up(place: House) -> None:
    system = Call(actor=Actor(kind="system", id="test", auth="system"), correlation_id="test")
    place.parts.services.ledger.raise_alarm(system, "mis-issued", ["x"], "it did")
    grant = place.grant(place.peer()["id"])
    enrolled = place.enroll(place.token(grant["id"]), csr())
    assert enrolled.status_code == 200
    samples = scrape(place)
    assert value(samples, "open_alarms") == 1
    assert value(samples, "open_issuances") == 0
    assert value(samples, "lost_history") == 0
    ending = {days: value(samples, "certificates_ending", days=days) for days in ("0.25", "7")}
    assert ending == {"0.25": 0, "7": 1}
    (end,) = (
        number for (name, _), number in samples.items()
        if name == "fedledger_authority_end_timestamp_seconds"
    )  # fmt: skip
    assert end > place.clock().timestamp() + 3600
    assert value(samples, "pool_connections", pool="tables", state="used") == 1  # this scrape's
    assert value(samples, "pool_connections", pool="ledger", state="open") >= 1
    place.clock.ahead = timedelta(days=2)
    assert value(scrape(place, place.approver), "certificates_ending", days="365") == 0


def test_labels_are_bounded(place: House) -> None:
    """Whatever strangers send, the series are those of the operation table."""
    for number in range(20):
        place.client.simulate_request("GET", f"/v1/peers/{number}-x")
        place.client.simulate_request("PUT", f"/pot-{number}")
        place.client.simulate_get(f"/v1/nothing/{number}", headers={"X-Request-Id": f"x{number}"})
    seen = {dict(labels).get("operation") for name, labels in scrape(place)} - {None}
    assert seen <= {row.name for row in OPERATIONS} | {"none"}


def test_health_is_in_the_drafts_form(place: House) -> None:
    answer = place.call("health.show", token=place.operator("operator"))
    assert answer.headers["content-type"] == "application/health+json"
    assert answer.json["status"] == "pass"
    assert {one["status"] for found in answer.json["checks"].values() for one in found} == {"pass"}
    # draft-inadarei-api-health-check-06 §4: component:measurement
    assert all(name.count(":") == 1 for name in answer.json["checks"])


def test_readiness_says_lost_history(place: House) -> None:
    ledger = place.parts.services.ledger
    place.peer()
    assert place.call("health.ready").status_code == 200
    with pytest.raises(Exception, match="lost events"):
        ledger._history.declare_lost("the head went backwards")
    answer = place.call("health.ready")
    assert (answer.status_code, answer.json["reason"]) == (503, "lost-history")
    assert value(scrape(place), "lost_history") == 1
    shown = place.call("health.show", token=place.admin)
    assert (shown.status_code, shown.json["status"]) == (503, "fail")
    assert place.call("health.live").status_code == 200


@pytest.fixture
def superuser(database: Database) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(database.superuser_dsn, autocommit=True) as connection:
        yield connection


def test_readiness_says_another_releases_schema_or_tables(
    place: House, superuser: psycopg.Connection[tuple[object, ...]]
) -> None:
    edit = "UPDATE schema_migration SET sha256 = {} WHERE version = 1"
    (known,) = superuser.execute("SELECT sha256 FROM schema_migration WHERE version = 1").fetchone() or (None,)  # fmt: skip
    superuser.execute(sql.SQL(edit).format("x"))
    answer = place.call("health.ready")
    assert (answer.status_code, answer.json["reason"]) == (503, "schema")
    superuser.execute(sql.SQL(edit).format(str(known)))
    assert place.call("health.ready").status_code == 200
    for change in (
        "UPDATE ledger_head SET projections_version = projections_version {} 1",
        "UPDATE projection_progress SET release = release {} 1",
    ):
        place.parts.follower.follow()
        superuser.execute(sql.SQL(change).format(sql.SQL("+")))
        answer = place.call("health.ready")
        assert (answer.status_code, answer.json["reason"]) == (503, "projections-version")
        superuser.execute(sql.SQL(change).format(sql.SQL("-")))
        assert place.call("health.ready").status_code == 200
    superuser.execute("INSERT INTO schema_migration SELECT 9999, 'newer', 'x', now(), '', 0")
    assert place.call("health.ready").json["reason"] == "schema"


def test_readiness_says_the_database_is_away(
    place: House, database: Database, superuser: psycopg.Connection[tuple[object, ...]]
) -> None:
    name = sql.Identifier(database.name)
    with psycopg.connect(database.superuser_dsn, autocommit=True, dbname="postgres") as elsewhere:
        superuser.close()
        elsewhere.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
        elsewhere.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
            [database.name],
        )
        answer = place.call("health.ready")
        assert (answer.status_code, answer.json["reason"]) == (503, "storage-unavailable")
        assert place.call("health.live").status_code == 200
        refused = place.call("metrics.show", token=place.admin)
        assert (refused.status_code, refused.json["code"]) == (503, "storage-unavailable")
        assert int(refused.headers["retry-after"]) >= 1
        elsewhere.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))
    wait_until(lambda: place.call("peer.list", token=place.admin).status_code == 200, "it is back")
    assert place.call("health.ready").status_code == 200
