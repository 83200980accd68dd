"""Questions about the past over HTTP: events by what is in them, the story of any id, waiting."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
import pytest

from support.databases import Database
from support.http import House, csr
from support.waiting import wait_until


def positions(place: House, **query: object) -> list[int]:
    found = place.ok("event.list", query=urlencode({"limit": 500, **query}))
    return [one["position"] for one in found["items"]]


def topics(document: dict[str, Any]) -> list[str]:
    return [one["topic"].removesuffix(".v1") for one in document["items"]]


def enrolled(place: House) -> tuple[dict[str, Any], dict[str, Any], str]:
    """An active grant, its certificate, and the accessor of the token it came by."""
    grant = place.grant(place.peer()["id"])
    token = place.token(grant["id"])
    answer = place.enroll(token, csr())
    assert answer.status_code < 300, answer.text
    (certificate,) = place.ok("certificate.list")["items"]
    return grant, certificate, token.split("_")[1]


def test_events_by_what_is_in_them(place: House) -> None:
    grant, certificate, accessor = enrolled(place)
    place.ok(
        "grant.suspend", {"reason": "The key was STOLEN in Zürich"}, grant_id=grant["id"],
        headers={"X-Correlation-Id": "0d9cb46e-7a31-4c52-9d1e-000000000abc"},
    )  # fmt: skip
    suspended = positions(place, words="zurich stolen")
    (event,) = place.ok("event.list", query="words=KEY")["items"]
    assert [event["position"]] == suspended
    assert positions(place, words="stolen nothing") == []
    assert positions(place, correlation="0d9cb46e-7a31-4c52-9d1e-000000000abc") == suspended
    actor = event["body"]["actor"]
    assert suspended[0] in positions(place, actor=actor["id"])
    assert positions(place, actor=actor["id"], topic="grant.suspended.v1") == suspended
    assert positions(place, topic="grant.suspended.v1,grant.revoked.v1") == suspended
    assert positions(place, actor="nobody", words="stolen") == []
    named = positions(place, about=certificate["serial"])
    assert len(named) == 2
    colons = ":".join(certificate["serial"][at : at + 2] for at in range(0, 32, 2)).upper()
    for spelling in (colons, f"0x{certificate['serial']}", str(int(certificate["serial"], 16))):
        assert positions(place, about=spelling) == named
    assert positions(place, about=accessor, topic="enrollment-token.redeemed.v1")
    assert positions(place, stream=grant["id"], words="stolen") == suspended


def test_what_is_no_question_is_refused(place: House) -> None:
    for query in (
        "words=!!", "topic=grant", "topic=a.b.v1,", "topic=grant.revoke.v1",
        "topic=grant.revoked.v1,grant.revoke.v1", "since=2026-02-01T00:00:00Z&until=2026-01-01T00:00:00Z",
        "after=-1", "before=0", "since=2026-02-01", "since=2026-02-01T00:00:00", "wait=16", "wait=-1", "wait=x",
        "wait=1&newest_first=true", "about=", f"about=fle_{'a' * 16}_{'B' * 49}",
    ):  # fmt: skip
        answer = place.call("event.list", token=place.admin, query=query)
        assert answer.status_code == 422, (query, answer.text)
    assert "fle_" not in answer.text


def test_pages_stay_right_while_events_are_appended(place: House) -> None:
    grant = place.grant(place.peer()["id"])
    for _ in range(10):
        place.ok("grant.suspend", {"reason": "again"}, grant_id=grant["id"])
        place.ok("grant.resume", {"reason": "again"}, grant_id=grant["id"])
    for newest_first in ("true", "false"):
        before = positions(place, words="again", newest_first=newest_first)
        seen, cursor = [], ""
        while cursor is not None:
            query = f"words=again&limit=3&newest_first={newest_first}{cursor}"
            page = place.ok("event.list", query=query)
            seen += [one["position"] for one in page["items"]]
            place.ok("grant.suspend", {"reason": "again"}, grant_id=grant["id"])
            place.ok("grant.resume", {"reason": "again"}, grant_id=grant["id"])
            more = page["next"] if len(seen) < len(before) + 3 else None
            cursor = f"&cursor={more}" if more else None
        assert seen[: len(before)] == before
        assert len(set(seen)) == len(seen)


def test_the_story_of_a_certificate_in_every_spelling(place: House) -> None:
    grant, certificate, accessor = enrolled(place)
    peer = grant["peer_id"]
    place.ok("peer.suspend", {"reason": "we look into it"}, peer_id=peer)
    place.ok("certificate.revoke", {"reason": "stolen"}, serial=certificate["serial"])
    serial = certificate["serial"]
    story = place.ok("about.show", id=serial)
    (thing,) = story["things"]
    assert (thing["kind"], thing["id"], thing["status"]) == ("certificate", serial, "revoked")
    assert thing["facts"]["grant_id"] == grant["id"]
    assert thing["facts"]["grant_status"] == "suspended"
    assert topics(story) == [
        "grant.proposed", "enrollment-token.issued", "enrollment-token.redeemed",
        "issuance.authorized", "certificate.issued", "grant.activated", "peer.suspended",
        "certificate.revoked",
    ]  # fmt: skip
    colons = quote(":".join(serial[at : at + 2] for at in range(0, 32, 2)).upper())
    for spelling in (colons, str(int(serial, 16)), certificate["certificate_sha256"].upper()):
        again = place.ok("about.show", id=spelling)
        assert again["things"] == story["things"]
        assert again["items"] == story["items"]
    key = place.ok("about.show", id=certificate["key_digest"])
    assert [one["kind"] for one in key["things"]] == ["key", "certificate"]
    assert set(topics(story)) <= set(topics(key))
    token = place.ok("about.show", id=accessor)
    assert (token["things"][0]["kind"], token["things"][0]["status"]) == (
        "enrollment-token", "redeemed",
    )  # fmt: skip
    assert topics(token)[:3] == topics(story)[:3]
    user = place.ok("about.show", id=grant["subject_user_id"])
    assert "peer.suspended" in topics(user)


def test_the_story_of_everything_else(place: House) -> None:
    grant, _, _ = enrolled(place)
    peer, operator = grant["peer_id"], grant["proposed_by"]
    told = place.ok("about.show", id=peer)
    assert [(one["kind"], one["status"]) for one in told["things"]] == [("peer", "active")]
    assert {"peer.registered", "peer.activated", "grant.proposed", "certificate.issued"} <= set(
        topics(told)
    )
    by_name = place.ok("about.show", id=quote("example PEER"))
    assert by_name["things"] == told["things"]
    assert by_name["items"] == told["items"]
    assert by_name["id"] == "example PEER"
    whole = place.ok("about.show", id=grant["id"].upper())
    assert whole["things"][0]["status"] == "active"
    assert whole["things"][0]["facts"]["subject_user_id"] == "user-17"
    assert topics(whole)[0] == "grant.proposed"
    user = place.ok("about.show", id="user-17")
    assert user["things"][0]["facts"]["active_grants"] == [grant["id"]]
    assert topics(user) == topics(whole)
    me = place.ok("about.show", id=operator)
    assert me["things"][0]["kind"] == "operator"
    assert {"operator.registered", "credential.issued", "grant.proposed"} <= set(topics(me))
    request = whole["items"][0]["body"]["correlation_id"]
    asked = place.ok("about.show", id=request)
    assert asked["things"] == [{"kind": "request", "id": request, "status": None, "facts": {}}]
    assert topics(asked) == ["grant.proposed"]
    event = whole["items"][0]["body"]["id"]
    assert place.ok("about.show", id=event)["things"][0]["kind"] == "event"
    assert place.ok("about.show", id="127.0.0.1")["things"][0]["kind"] == "address"
    ledger = place.ok("about.show", id="00000000-0000-4000-8000-000000000001")
    assert topics(ledger) == ["ledger.created"]
    for nothing in ("4" * 32, "0" * 64, "a" * 16, "no such user", f"flo_{'a' * 16}_{'B' * 49}"):
        answer = place.call("about.show", token=place.admin, id=quote(nothing))
        assert answer.status_code == 404, answer.text


def test_a_long_story_comes_in_pages(place: House) -> None:
    grant = place.grant(place.peer()["id"])
    for _ in range(5):
        place.ok("grant.suspend", {"reason": "x"}, grant_id=grant["id"])
        place.ok("peer.suspend", {"reason": "x"}, peer_id=grant["peer_id"])
        place.ok("peer.resume", {"reason": "x"}, peer_id=grant["peer_id"])
        place.ok("grant.resume", {"reason": "x"}, grant_id=grant["id"])
    whole = place.ok("about.show", id=grant["id"], query="limit=500")
    assert len(whole["items"]) == 21
    assert whole["next"] is None
    seen: list[Any] = []
    page = place.ok("about.show", id=grant["id"], query="limit=4")
    while True:
        seen += page["items"]
        if page["next"] is None:
            break
        query = f"limit=4&cursor={page['next']}"
        page = place.ok("about.show", id=grant["id"], query=query)
    assert seen == whole["items"]
    answer = place.call(
        "about.show", token=place.admin, id=grant["peer_id"], query=query
    )  # another list's cursor
    assert answer.status_code == 422


# ---- waiting --------------------------------------------------------------------------------


def head(place: House) -> int:
    return place.parts.services.ledger.record.head().size


def while_waiting(place: House, query: str, act: Callable[[], object]) -> dict[str, Any]:
    """Ask with `wait`, do something once the call waits, and return its answer."""
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(place.ok, "event.list", query=query)
        wait_until(lambda: waiting(place) == 1, "the call waits")
        act()
        answer: dict[str, Any] = asked.result(30)
        return answer


def waiting(place: House) -> int:
    tail = place.parts.services.tail
    with tail._changed:
        return len(tail._changed._waiters)  # type: ignore[attr-defined]  # no public count


def test_a_wait_ends_with_the_next_event_that_answers(place: House) -> None:
    place.ok("event.list")  # this reader is on record now
    begun = time.monotonic()
    query = f"wait=15&after={head(place)}&topic=peer.registered.v1"

    def act() -> None:
        place.grant(place.peer("One")["id"])

    answer = while_waiting(place, query, act)
    assert topics(answer) == ["peer.registered"]
    assert time.monotonic() - begun < 14


def test_what_came_between_two_questions_is_not_missed(place: House) -> None:
    place.ok("event.list")
    after = head(place)
    place.peer("Two", active=False)
    answer = place.ok("event.list", query=f"wait=15&after={after}")
    assert topics(answer) == ["peer.registered"]


def test_a_wait_in_vain_ends_when_its_time_is_over(place: House) -> None:
    place.ok("event.list")
    answer = place.call("event.list", token=place.admin, query=f"wait=1&after={head(place)}")
    assert answer.json["items"] == []
    assert answer.headers["ledger-position"] == str(head(place))


def test_reading_wakes_nobody(place: House) -> None:
    place.ok("event.list")
    auditor = place.operator("auditor")
    query = f"wait=2&after={head(place)}"
    begun = time.monotonic()
    answer = while_waiting(place, query, lambda: place.ok("event.list", token=auditor))
    assert time.monotonic() - begun > 1.5
    assert topics(answer) == ["audit.read"]  # it comes with the answer, and did not end the wait


def test_those_who_wait_leave_room_for_others(place: House) -> None:
    with place.parts.services.tail.place():  # one place of four threads
        answer = place.call("event.list", token=place.admin, query="wait=1")
        assert (answer.status_code, answer.json["code"]) == (503, "occupied")
        assert int(answer.headers["retry-after"]) > 0
        place.ok("event.list")


def test_at_the_end_everybody_goes_home(place: House) -> None:
    place.ok("event.list")
    begun = time.monotonic()
    answer = while_waiting(place, f"wait=15&after={head(place)}", place.parts.services.tail.stop)
    assert answer["items"] == []
    assert time.monotonic() - begun < 14


def test_a_listener_that_was_cut_off_comes_back(place: House) -> None:
    place.ok("event.list")

    def cut_off_then_register() -> None:
        with place.parts.reader.glance() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE query LIKE 'LISTEN%' AND datname = current_database()"
            )
        place.peer("Three", active=False)

    answer = while_waiting(place, f"wait=15&after={head(place)}", cut_off_then_register)
    assert topics(answer) == ["peer.registered"]


@pytest.mark.parametrize("operation", ["event.list", "about.show", "event.show", "grant.history"])
def test_reading_is_recorded_with_what_was_looked_for(place: House, operation: str) -> None:
    grant = place.grant(place.peer()["id"])
    auditor = place.operator("auditor")
    path = {"about.show": {"id": grant["id"]}, "event.show": {"position": 1}}
    path["grant.history"] = {"grant_id": grant["id"]}
    begun = head(place)
    for _ in range(4):
        place.ok(operation, token=auditor, **path.get(operation, {}))
    (read,) = place.ok("event.list", query=f"after={begun}&topic=audit.read.v1")["items"]
    assert read["body"]["data"]["operation"] == operation
    assert read["body"]["actor"]["roles"] == ["auditor"]
    place.parts.services.readings.flush(everything=True)
    found = place.ok("event.list", query=f"after={begun}&topic=audit.read.v1")["items"]
    (more,) = (one for one in found[1:] if one["body"]["data"]["operation"] == operation
               and one["body"]["actor"]["roles"] == ["auditor"])  # fmt: skip
    assert ["readings", "3"] in more["body"]["data"]["filter"]


@pytest.mark.parametrize("change", ["body = '{'", "topic = 'peer.forged.v1'"])
def test_an_altered_event_is_told_of_as_that(place: House, database: Database, change: str) -> None:
    peer = place.peer()
    position = positions(place, about=peer["id"])[-1]
    event = f"ledger_events SET {change} WHERE position = {position}"
    with psycopg.connect(database.superuser_dsn, autocommit=True) as connection:
        connection.execute("ALTER TABLE ledger_events DISABLE TRIGGER ALL")
        kept = "CREATE TABLE kept AS SELECT position, topic, body FROM ledger_events"
        connection.execute(kept)
        connection.execute(f"UPDATE {event}".encode())
        asked: dict[str, dict[str, object]] = {
            "event.list": {}, "event.show": {"position": position}, "about.show": {"id": peer["id"]},
        }  # fmt: skip
        for name, path in asked.items():
            answer = place.call(name, token=place.admin, **path)
            assert (answer.status_code, answer.json["code"]) == (500, "record-damaged"), name
        connection.execute(
            "UPDATE ledger_events e SET topic = k.topic, body = k.body FROM kept k "
            "WHERE k.position = e.position AND (k.topic, k.body) <> (e.topic, e.body)"
        )


def test_no_thread_is_left_behind(place: House) -> None:
    place.ok("event.list", query=f"wait=1&after={head(place)}&topic=peer.revoked.v1")
    place.parts.services.tail.close()
    assert "tail" not in {thread.name for thread in threading.enumerate()}


def test_with_the_index_every_answer_is_the_same(place: House) -> None:
    grant, certificate, _ = enrolled(place)
    place.ok("grant.suspend", {"reason": "Lost, then found"}, grant_id=grant["id"])
    asked = [
        {"words": "found lost"}, {"about": certificate["serial"]}, {"about": grant["id"]},
        {"stream": grant["id"], "topic": "grant.suspended.v1"}, {"actor": grant["proposed_by"]},
        {"correlation": place.ok("event.show", position=5)["body"]["correlation_id"]},
        {"topic": "peer.registered.v1,grant.proposed.v1", "before": 1000}, {"words": "nothing"},
    ]  # fmt: skip
    place.ok("event.list")
    last = head(place)

    def answers() -> list[list[int]]:
        return [positions(place, before=last + 1, **{k: v for k, v in one.items() if k != "before"})
                for one in asked]  # fmt: skip

    story = place.ok("about.show", id=certificate["serial"])
    before = answers()
    place.parts.follower.follow()
    assert place.parts.follower.position("event-terms") >= last
    assert answers() == before
    assert place.ok("about.show", id=certificate["serial"]) == story
    assert [bool(found) for found in before] == [True] * 7 + [False]
