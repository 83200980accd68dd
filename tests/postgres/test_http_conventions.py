"""What holds for every operation: versions, idempotency, dry runs, pages, and refusals."""

import json
import re
from typing import Any

import pytest
from falcon.testing import Result

from support.http import House

PEER = {"name": "Example Peer", "base_url": "https://peer.example"}


def _problem(answer: Result, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json
    assert found["code"] == code, found
    assert found["type"] == f"urn:fedledger:problem:{code}"
    assert found["status"] == status
    assert found["request_id"] == answer.headers["x-request-id"]
    return found


def test_a_new_object_says_where_and_which(place: House) -> None:
    answer = place.call("peer.register", PEER, token=place.admin)
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v1/peers/{answer.json['id']}"
    assert answer.headers["etag"] == '"1"'
    assert answer.headers["cache-control"] == "no-store"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", answer.json["registered_at"])
    shown = place.call("peer.show", token=place.admin, peer_id=answer.json["id"])
    assert shown.json == answer.json
    assert shown.headers["ledger-position"] == answer.headers["ledger-position"]


def test_if_match(place: House) -> None:
    peer = place.peer(active=False)
    body = {"verification": "x"}
    stale = place.call(
        "peer.activate", body, token=place.admin, headers={"If-Match": '"7"'}, peer_id=peer["id"]
    )
    _problem(stale, 412, "stale")
    done = place.call(
        "peer.activate", body, token=place.admin, headers={"If-Match": '"1"'}, peer_id=peer["id"]
    )
    assert (done.status_code, done.headers["etag"]) == (200, '"2"')
    reason = {"reason": "x"}
    for good in ("*", ' "2" '):
        answer = place.call(
            "peer.suspend", reason, token=place.admin, headers={"If-Match": good},
            query="dry_run=true", peer_id=peer["id"],
        )  # fmt: skip
        assert answer.status_code == 200
    for bad in ("2", 'W/"2"', '"x"', '"1", "2"'):
        answer = place.call(
            "peer.suspend", reason, token=place.admin, headers={"If-Match": bad}, peer_id=peer["id"]
        )
        _problem(answer, 422, "invalid")
    answer = place.call("peer.register", PEER, token=place.admin, headers={"If-Match": '"1"'})
    _problem(answer, 422, "invalid")


def test_if_match_on_the_policy(place: House) -> None:
    body = {"approval_days": 3}
    stale = place.call("policy.change", body, token=place.approver, headers={"If-Match": '"9"'})
    _problem(stale, 412, "stale")
    place.ok("policy.change", body, token=place.approver, headers={"If-Match": '"1"'})


def test_a_dry_run_appends_nothing(place: House) -> None:
    before = place.ok("health.show")["position"]
    answer = place.call("peer.register", PEER, token=place.admin, query="dry_run=true")
    assert answer.status_code == 200
    (event,) = answer.json["events"]
    assert event["topic"] == "peer.registered.v1"
    assert event["data"] == PEER
    assert place.ok("health.show")["position"] == before
    refused = place.call(
        "peer.register", PEER | {"base_url": "https://u@x"}, token=place.admin, query="dry_run=true"
    )
    _problem(refused, 422, "base-url")
    _problem(
        place.call("peer.register", PEER, token=place.admin, query="dry_run=1"), 422, "invalid"
    )
    _problem(place.call("peer.list", token=place.admin, query="dry_run=true"), 422, "invalid")


def test_a_repeat_gets_the_answer_of_the_first_time(place: House) -> None:
    key = {"Idempotency-Key": "k-1"}
    first = place.call("peer.register", PEER, token=place.admin, headers=key)
    peer_id = first.json["id"]
    place.ok("peer.activate", {"verification": "x"}, peer_id=peer_id)
    again = place.call("peer.register", PEER, token=place.admin, headers=key)
    assert again.status_code == 201
    assert again.json == first.json  # as it was then, though the peer is active by now
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["etag"] == '"1"'
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["ledger-position"] == first.headers["ledger-position"]
    assert "idempotent-replayed" not in first.headers
    other = place.call("peer.register", PEER | {"name": "Other"}, token=place.admin, headers=key)
    _problem(other, 422, "idempotency-key-reused")
    # A refusal is not recorded: the key is free afterwards.
    key = {"Idempotency-Key": "k-2"}
    refused = place.call("peer.register", PEER, token=place.admin, headers=key)
    _problem(refused, 409, "peer-name-taken")
    later = place.call("peer.register", PEER | {"name": "Third"}, token=place.admin, headers=key)
    assert later.status_code == 201
    _problem(
        place.call("peer.register", PEER, token=place.admin, headers={"Idempotency-Key": "a b"}),
        422,
        "invalid",
    )


def test_a_repeat_never_shows_a_secret_again(place: House) -> None:
    grant = place.grant(place.peer()["id"])
    key = {"Idempotency-Key": "k"}
    first = place.call(
        "enrollment-token.issue", {}, token=place.admin, headers=key, grant_id=grant["id"]
    )
    again = place.call(
        "enrollment-token.issue", {}, token=place.admin, headers=key, grant_id=grant["id"]
    )
    assert first.json["token"].startswith("fle_")
    assert again.json == first.json | {"token": None}
    operator = place.ok("operator.register", {"kind": "machine", "roles": ["gateway"]})
    first = place.call(
        "credential.issue", {}, token=place.admin, headers=key, operator_id=operator["id"]
    )
    again = place.call(
        "credential.issue", {}, token=place.admin, headers=key, operator_id=operator["id"]
    )
    assert first.json["token"].startswith("flo_")
    assert again.json == first.json | {"token": None}


def test_the_key_of_another_credential_is_another_key(place: House) -> None:
    second = place.operator("admin")
    key = {"Idempotency-Key": "k"}
    place.ok("peer.register", PEER, headers=key)
    answer = place.call("peer.register", PEER | {"name": "B"}, token=second, headers=key)
    assert answer.status_code == 201


def test_pages_follow_each_other_while_others_write(place: House) -> None:
    peer = place.peer()
    made = [place.grant(peer["id"])["id"] for _ in range(5)]
    seen, query = [], "limit=2"
    while True:
        answer = place.call("grant.list", token=place.admin, query=query)
        seen += [item["id"] for item in answer.json["items"]]
        place.grant(peer["id"])
        following = answer.json["next"]
        if following is None:
            assert "link" not in answer.headers
            break
        link = answer.headers["link"]
        assert link.endswith('; rel="next"')
        query = link[link.index("?") + 1 : link.index(">")]
        assert "limit=2" in query
    assert seen == made[::-1]


def test_a_cursor_belongs_to_its_list_and_filters(place: House) -> None:
    peer = place.peer()
    for _ in range(3):
        place.grant(peer["id"])
    cursor = place.ok("grant.list", query="limit=1")["next"]
    place.ok("grant.list", query=f"limit=2&cursor={cursor}")
    for query in (f"status=active&cursor={cursor}", "cursor=AAAA", "cursor=" + "A" * 399):
        _problem(place.call("grant.list", token=place.admin, query=query), 422, "cursor")
    _problem(place.call("peer.list", token=place.admin, query=f"cursor={cursor}"), 422, "cursor")
    _problem(place.call("peer.list", token=place.admin, query="cursor=a.b"), 422, "invalid")


@pytest.mark.parametrize(
    "query",
    ["as_of=yesterday", "limit=0", "limit=501", "limit=x", "limit=1&limit=2",
     "state=nonsense", "xyzzy=1", "name=%00", "state=%ff", "&".join(f"a{i}=1" for i in range(40))],
)  # fmt: skip
def test_queries_that_do_not_fit(place: House, query: str) -> None:
    found = _problem(place.call("peer.list", token=place.admin, query=query), 422, "invalid")
    assert "nonsense" not in json.dumps(found)
    assert "xyzzy" not in json.dumps(found)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "malformed"),
        (b"{", 400, "malformed"),
        (b'{"name":"a","name":"b"}', 400, "malformed"),
        (b'{"name":"a\\u0000"}', 400, "malformed"),
        (b'{"name":"\\ud800"}', 400, "malformed"),
        (b'{"name":NaN}', 400, "malformed"),
        (b"\xff", 400, "malformed"),
        (b"[" * 33 + b"]" * 33, 400, "malformed"),
        (b"[]", 422, "invalid"),
        (b'"x"', 422, "invalid"),
        (b'{"name":"a"}', 422, "invalid"),
        (b'{"name":1,"base_url":"https://x.example"}', 422, "invalid"),
        (b'{"name":"a","base_url":"http://x.example"}', 422, "invalid"),
        (b" " * (256 * 1024 + 1), 413, "too-large"),
    ],
)
def test_bodies_that_do_not_fit(place: House, body: bytes, status: int, code: str) -> None:
    headers = {"Content-Type": "application/json"}
    answer = place.client.simulate_post(
        "/v1/peers", body=body, headers=headers | {"Authorization": f"Bearer {place.admin}"}
    )
    _problem(answer, status, code)


def test_what_was_sent_is_never_echoed(place: House) -> None:
    body = {"name": "sekrit-1\n", "sekrit2": {"sekrit3": 1}, "base_url": "sekrit4"}
    answer = place.call("peer.register", body, token=place.admin)
    found = _problem(answer, 422, "invalid")
    assert "sekrit" not in answer.text
    assert {issue["pointer"] for issue in found["errors"]} == {"/name", "/base_url", ""}


def test_media_types(place: House) -> None:
    raw = json.dumps(PEER).encode()
    for kind, status in (
        ("application/json; charset=utf-8", 201),
        ("text/plain", 415),
        ("application/json; charset=latin-1", 415),
        ("application/x-www-form-urlencoded", 415),
        ("", 415),
    ):
        answer = place.client.simulate_post(
            "/v1/peers",
            body=raw,
            headers={"Content-Type": kind, "Authorization": f"Bearer {place.admin}"},
        )
        assert answer.status_code == status, (kind, answer.text)


def test_paths_and_methods_that_do_not_exist(place: House) -> None:
    _problem(place.client.simulate_get("/v1/nothing"), 404, "not-found")
    answer = place.client.simulate_delete("/v1/peers")
    _problem(answer, 405, "method-not-allowed")
    assert set(answer.headers["allow"].split(", ")) >= {"GET", "POST"}
    for name, path in (
        ("peer.show", {"peer_id": "nonsense"}),
        ("peer.show", {"peer_id": "0d9cb46e-1c5f-4b36-9a39-0b4f3c1f6a55"}),
        ("certificate.show", {"serial": "x"}),
        ("certificate.show", {"serial": "4" + "0" * 31}),
        ("event.show", {"position": "0"}),
        ("event.show", {"position": "999999"}),
        ("grant.history", {"grant_id": "0d9cb46e-1c5f-4b36-9a39-0b4f3c1f6a55"}),
    ):
        _problem(place.call(name, token=place.admin, **path), 404, "not-found")


def test_an_empty_body_is_enough_where_nothing_is_needed(place: House) -> None:
    grant = place.grant(place.peer()["id"])
    answer = place.client.simulate_post(
        f"/v1/grants/{grant['id']}/enrollment-tokens",
        headers={"Authorization": f"Bearer {place.admin}"},
    )
    assert answer.status_code == 201


def test_a_failure_of_our_own_says_nothing(place: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("inner secret")

    monkeypatch.setattr(place.parts.services.ledger, "register_peer", broken)
    answer = place.call("peer.register", PEER, token=place.admin)
    _problem(answer, 500, "internal")
    assert "inner" not in answer.text
