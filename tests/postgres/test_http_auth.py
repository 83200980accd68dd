"""Bad credentials: one and the same answer, bounded per source, and never a way in."""

import json
import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from falcon.testing import Result

from api.operations import OPERATIONS
from ledger import bearer
from support.http import House, csr


def _normalised(answer: Result) -> bytes:
    assert answer.status_code == 401, answer.text
    assert answer.headers["www-authenticate"] == 'Bearer realm="fedledger"'
    request_id = answer.headers["x-request-id"].encode()
    assert request_id in answer.content
    return bytes(answer.content.replace(request_id, b"ID"))


def _flipped(token: str) -> str:
    """The same accessor, another secret, a right checksum."""
    other = bearer.mint(bearer.BearerKind.OPERATOR, lambda count: bytes(count)).text
    accessor = token.split("_")[1]
    body = f"flo_{accessor}_{other.split('_')[2][:-6]}"
    return body + bearer._checksum(body)  # the checksum is no secret


BAD: dict[str, Callable[[House], str | None]] = {
    "none": lambda place: None,
    "empty": lambda place: "",
    "another scheme": lambda place: "Basic YTpi",
    "no token": lambda place: "Bearer",
    "garbage": lambda place: "Bearer x",
    "long garbage": lambda place: "Bearer " + "x" * 4000,
    "not ascii": lambda place: "Bearer flo_\xe9",
    "wrong checksum": lambda place: "Bearer " + place.admin[:-1] + "!",
    "truncated": lambda place: "Bearer " + place.admin[:-7],
    "unknown": lambda place: "Bearer " + bearer.mint(bearer.BearerKind.OPERATOR, bytes).text,
    "wrong secret": lambda place: "Bearer " + _flipped(place.admin),
    "an enrollment token": lambda place: (
        "Bearer " + place.token(place.grant(place.peer()["id"])["id"])
    ),
    "revoked": lambda place: "Bearer " + _revoked(place),
    "of a disabled operator": lambda place: "Bearer " + _disabled(place),
}


def _revoked(place: House) -> str:
    token = place.operator("auditor")
    made = place.ok("operator.list", query="role=auditor")["items"][-1]
    accessor = token.split("_")[1]
    place.ok("credential.revoke", {"reason": "x"}, operator_id=made["id"], accessor=accessor)
    return token


def _disabled(place: House) -> str:
    token = place.operator("auditor")
    made = place.ok("operator.list", query="role=auditor")["items"][-1]
    place.ok("operator.disable", {"reason": "x"}, operator_id=made["id"])
    return token


def test_every_bad_credential_gets_the_same_bytes(place: House) -> None:
    seen = {}
    for kind, make in BAD.items():
        place.seconds.now += 60
        header = make(place)
        headers = {} if header is None else {"Authorization": header}
        answer = place.client.simulate_get("/v1/peers", headers=headers)
        seen[kind] = _normalised(answer)
    # One that has expired needs time to pass, for the others too.
    token = place.operator("auditor")
    accessor = token.split("_")[1]
    with place.parts.reader.glance() as connection:
        row = connection.execute(
            "SELECT expires_at FROM federation_credentials WHERE accessor = %s", [accessor]
        ).fetchone()
    assert row is not None
    place.clock.ahead = row[0] - place.clock()
    answer = place.client.simulate_get("/v1/peers", headers={"Authorization": f"Bearer {token}"})
    seen["expired"] = _normalised(answer)
    place.clock.ahead = timedelta(0)
    assert len(set(seen.values())) == 1, seen
    assert len(seen) == len(BAD) + 1


def test_every_operation_answers_a_bad_credential_alike(place: House) -> None:
    kinds = ("none", "garbage", "truncated", "wrong secret", "an enrollment token", "revoked")
    headers = [BAD[kind](place) for kind in kinds]
    answers = set()
    for row in OPERATIONS:
        # What stands in the path does not matter: who asks is looked at first.
        path = row.url(**dict.fromkeys(row.parameters, "nonsense"))
        for header in headers if row.authenticated else ():
            place.seconds.now += 60
            sent = {} if header is None else {"Authorization": header}
            answers.add(_normalised(place.client.simulate_request(row.method, path, headers=sent)))
    assert len(answers) == 1


def test_bad_enrollment_tokens_get_the_same_bytes_too(place: House) -> None:
    grant = place.grant(place.peer()["id"])
    used, request = place.token(grant["id"]), csr()
    assert place.enroll(used, request).status_code == 200
    replaced = place.token(grant["id"])
    place.token(grant["id"])
    unknown = bearer.mint(bearer.BearerKind.ENROLLMENT, bytes).text
    seen = {
        _normalised(place.enroll(token, csr()))
        for token in ("", "x", unknown, used, replaced, place.admin)
    }
    no_credential = _normalised(place.client.simulate_get("/v1/peers"))
    assert seen == {no_credential}


def test_one_source_is_held_up_and_a_good_credential_is_not(place: House) -> None:
    statuses = [place.call("peer.list", token="x").status_code for _ in range(35)]
    assert statuses[:30] == [401] * 30
    assert statuses[30:] == [429] * 5
    answer = place.call("peer.list", token="x")
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert answer.json["code"] == "too-many-requests"
    assert place.call("peer.list", token=place.admin).status_code == 200
    place.seconds.now += int(answer.headers["retry-after"])
    assert place.call("peer.list", token="x").status_code == 401


def test_enrollments_of_one_source_are_held_up(place: House) -> None:
    good = place.token(place.grant(place.peer()["id"])["id"])
    statuses = [place.enroll("x", "y").status_code for _ in range(65)]
    assert statuses == [401] * 60 + [429] * 5
    answer = place.enroll("x", "y")
    wait = int(answer.headers["retry-after"])
    assert 1 <= wait <= 60
    assert answer.json["code"] == "too-many-requests"
    # Held up is the source: a peer elsewhere enrolls, and an operator from here works on.
    assert place.call("peer.list", token=place.admin).status_code == 200
    elsewhere = {"REMOTE_ADDR": "192.0.2.77"}
    body = json.dumps({"token": good, "csr": csr()})
    headers = {"Content-Type": "application/json"}
    enrolled = place.client.simulate_post(
        "/v1/enrollments", body=body, headers=headers, extras=elsewhere
    )
    assert enrolled.status_code == 200, enrolled.text
    place.seconds.now += wait
    assert place.enroll("x", "y").status_code == 401


def test_a_bad_credential_holds_up_its_own_source_only(place: House) -> None:
    def status(source: str, token: str) -> int:
        answer = place.client.simulate_get(
            "/v1/peers",
            headers={"Authorization": f"Bearer {token}"},
            extras={"REMOTE_ADDR": source},
        )
        return int(answer.status_code)

    assert [status("192.0.2.1", "x") for _ in range(40)][-1] == 429
    assert status("192.0.2.2", "x") == 401
    # However long it goes on, a good credential from the very same source is never locked out.
    assert {status("192.0.2.1", place.admin) for _ in range(100)} == {200}
    assert [status("192.0.2.1", "x") for _ in range(3)] == [429] * 3
    # One host can take any address of its IPv6 network.
    assert [status(f"2001:db8::{n:x}", "x") for n in range(1, 33)][-1] == 429


def test_a_role_taken_away_holds_at_once(place: House) -> None:
    auditor = place.operator("auditor")
    assert place.call("peer.list", token=auditor).status_code == 200
    made = place.ok("operator.list", query="role=auditor")["items"][0]
    place.ok("operator.roles", {"roles": ["gateway"]}, operator_id=made["id"])
    assert place.call("peer.list", token=auditor).status_code == 403


@pytest.mark.parametrize("given", ["", "nonsense", "00000000-0000-0000-0000-00000000000g"])
def test_a_malformed_request_id_is_replaced(place: House, given: str) -> None:
    answer = place.client.simulate_get("/livez", headers={"X-Request-Id": given})
    assert re.fullmatch(
        r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", answer.headers["x-request-id"]
    )


def test_a_request_id_travels_into_the_event(place: House) -> None:
    wanted = "0D9CB46E-1c5f-4b36-9a39-0b4f3c1f6a55"
    body = {"name": "Some Peer", "base_url": "https://peer.example"}
    answer = place.call("peer.register", body, token=place.admin, headers={"X-Request-Id": wanted})
    assert answer.headers["x-request-id"] == wanted.lower()
    position = int(answer.headers["ledger-position"])
    event = place.ok("event.show", position=position)
    assert event["body"]["correlation_id"] == wanted.lower()
    actor = event["body"]["actor"]
    assert (actor["kind"], actor["auth"], actor["roles"]) == ("operator", "bearer", ["admin"])
    assert actor["credential"] == place.admin.split("_")[1]
    assert actor["source"] == "127.0.0.1"
