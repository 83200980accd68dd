"""What holds for every command, tried with every one: rehearsal, If-Match, Idempotency-Key."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from falcon.testing import Result

from api.operation import Operation
from api.operations import OPERATIONS
from ledger.events import Actor
from ledger.reading import Call
from support.http import House, csr

WHY = {"reason": "because"}
SECRETS = ("token",)


@dataclass
class Scene:
    """A call that will succeed. `body` None: an operation without one."""

    token: str
    body: dict[str, Any] | None = field(default_factory=lambda: dict(WHY))
    path: dict[str, Any] = field(default_factory=dict)


def _peer(place: House, verb: str, *, before: str | None = None, **body: Any) -> Scene:
    peer = place.peer(active=verb != "activate")
    if before:
        place.ok(f"peer.{before}", WHY, peer_id=peer["id"])
    return Scene(place.admin, WHY | body, {"peer_id": peer["id"]})


def _grant(
    place: House, *, before: str | None = None, enrolled: bool = False, **body: Any
) -> Scene:
    grant = place.grant(place.peer()["id"], "tasks", "notes")
    if enrolled:
        assert place.enroll(place.token(grant["id"]), csr()).status_code == 200
    if before:
        place.ok(f"grant.{before}", WHY, grant_id=grant["id"])
    return Scene(place.admin, WHY | body, {"grant_id": grant["id"]})


def _sensitive(place: House, *, digest: bool) -> Scene:
    grant = place.grant(place.peer()["id"], "credentials")
    named = {"terms_digest": grant["terms_digest"]} if digest else {}
    return Scene(place.approver, WHY | named, {"grant_id": grant["id"]})


def _certificate(place: House) -> str:
    grant = place.grant(place.peer()["id"])
    return str(place.enroll(place.token(grant["id"]), csr()).json["serial"])


def _key(place: House) -> str:
    serial = _certificate(place)
    return str(place.ok("certificate.show", serial=serial)["key_digest"])


def _operator(place: House, **body: Any) -> Scene:
    made = place.ok("operator.register", {"kind": "machine", "roles": ["gateway"]})
    return Scene(place.admin, body or dict(WHY), {"operator_id": made["id"]})


def _credential(place: House) -> Scene:
    scene = _operator(place)
    accessor = place.ok("credential.issue", {}, **scene.path)["accessor"]
    return Scene(place.admin, dict(WHY), scene.path | {"accessor": accessor})


def _open_token(place: House) -> Scene:
    grant = place.grant(place.peer()["id"])
    issued = place.ok("enrollment-token.issue", {}, grant_id=grant["id"])
    return Scene(place.admin, None, {"accessor": issued["accessor"]})


def _alarm(place: House) -> Scene:
    call = Call(actor=Actor(kind="system", id="test", auth="system"), correlation_id="test")
    alarm = place.parts.services.ledger.raise_alarm(call, "mis-issued", ["x"], "it did").value
    return Scene(place.operator("operator"), dict(WHY), {"alarm_id": str(alarm.id)})


LESS = {"resources": ["tasks"], "max_rows_per_query": 5}
PEER = {"name": "Example Peer", "base_url": "https://peer.example"}
SCENES: dict[str, Callable[[House], Scene]] = {
    "peer.register": lambda place: Scene(place.admin, PEER),
    "peer.activate": lambda place: _peer(place, "activate", verification="called them"),
    "peer.update": lambda place: _peer(place, "update", base_url="https://new.example"),
    "peer.suspend": lambda place: _peer(place, "suspend"),
    "peer.resume": lambda place: _peer(place, "resume", before="suspend"),
    "peer.revoke": lambda place: _peer(place, "revoke"),
    "grant.propose": lambda place: Scene(place.admin, place.proposal(place.peer()["id"])),
    "grant.approve": lambda place: _sensitive(place, digest=True),
    "grant.reject": lambda place: _sensitive(place, digest=False),
    "grant.amend": lambda place: _grant(place, scope=LESS),
    "grant.narrow": lambda place: _grant(place, enrolled=True, scope=LESS),
    "grant.suspend": lambda place: _grant(place, enrolled=True),
    "grant.resume": lambda place: _grant(place, before="suspend"),
    "grant.revoke": lambda place: _grant(place, enrolled=True),
    "enrollment-token.issue": lambda place: _grant(place, ttl=600),
    "enrollment-token.cancel": _open_token,
    "certificate.revoke": lambda place: Scene(
        place.admin, dict(WHY), {"serial": _certificate(place)}
    ),
    "certificate.revoke-many": lambda place: Scene(
        place.admin, WHY | {"key_digest": _key(place), "revocation_reason": "keyCompromise"}
    ),
    "operator.register": lambda place: Scene(place.admin, {"kind": "person", "roles": ["auditor"]}),
    "operator.roles": lambda place: _operator(place, roles=["auditor"]),
    "operator.disable": _operator,
    "credential.issue": lambda place: _operator(place, ttl=600),
    "credential.revoke": _credential,
    "policy.change": lambda place: Scene(place.approver, {"approval_days": 3}),
    "alarm.acknowledge": _alarm,
}
COMMANDS = [row for row in OPERATIONS if row.rehearsable]
every_command = pytest.mark.parametrize("row", COMMANDS, ids=lambda row: row.name)


def _do(place: House, row: Operation, scene: Scene, **more: Any) -> Result:
    return place.call(row.name, scene.body, token=scene.token, **scene.path, **more)


def _size(place: House) -> int:
    return place.parts.services.ledger.record.head().size


def test_every_command_has_its_scene() -> None:
    assert [row.name for row in COMMANDS] == list(SCENES)


@every_command
def test_a_rehearsal_shows_what_the_performance_records(place: House, row: Operation) -> None:
    scene = SCENES[row.name](place)
    before = _size(place)
    rehearsed = _do(place, row, scene, query="dry_run=true")
    assert rehearsed.status_code == 200, rehearsed.text
    assert rehearsed.json["dry_run"] is True
    assert int(rehearsed.headers["ledger-position"]) == before
    assert _size(place) == before
    done = _do(place, row, scene)
    assert done.status_code == row.status, done.text
    recorded = place.ok("event.list", query=f"after={before}&limit=500")["items"]
    shown = rehearsed.json["events"]
    assert [one["topic"] for one in shown] == [one["topic"] for one in recorded]
    assert [one["data"].keys() for one in shown] == [one["body"]["data"].keys() for one in recorded]
    assert int(done.headers["ledger-position"]) == recorded[-1]["position"]


@pytest.mark.parametrize(
    "row", [row for row in COMMANDS if row.conditional], ids=lambda row: row.name
)
def test_a_stale_version_is_refused_and_the_present_one_taken(place: House, row: Operation) -> None:
    scene = SCENES[row.name](place)
    before = _size(place)
    stale = _do(place, row, scene, headers={"If-Match": '"999"'})
    assert (stale.status_code, stale.json["code"]) == (412, "stale"), stale.text
    assert _size(place) == before
    version = stale.json["version"]
    done = _do(place, row, scene, headers={"If-Match": f'"{version}"'})
    assert done.status_code == row.status, done.text
    assert int(done.headers["etag"].strip('"')) > version
    late = _do(place, row, scene, headers={"If-Match": f'"{version}"'})
    assert (late.status_code, late.json["code"]) == (412, "stale"), late.text


@pytest.mark.parametrize(
    "row", [row for row in COMMANDS if not row.conditional], ids=lambda row: row.name
)
def test_where_there_is_no_version_none_is_taken(place: House, row: Operation) -> None:
    answer = _do(place, row, SCENES[row.name](place), headers={"If-Match": '"1"'})
    assert answer.status_code == 422
    assert answer.json["errors"][0]["parameter"] == "If-Match"


@pytest.mark.parametrize(
    "row", [row for row in COMMANDS if row.method == "POST"], ids=lambda row: row.name
)
def test_a_repeat_is_answered_from_the_record(place: House, row: Operation) -> None:
    scene = SCENES[row.name](place)
    key = {"Idempotency-Key": "k-1"}
    first = _do(place, row, scene, headers=key)
    assert first.status_code == row.status, first.text
    after = _size(place)
    again = _do(place, row, scene, headers=key)
    assert _size(place) == after
    assert again.status_code == first.status_code
    assert again.headers["idempotent-replayed"] == "true"
    hidden = {name: None for name in SECRETS if name in first.json}
    assert again.json == first.json | hidden
    for name in ("etag", "ledger-position", "location"):
        assert again.headers.get(name) == first.headers.get(name)
    other = Scene(scene.token, {**(scene.body or {}), "reason": "another"}, scene.path)
    reused = _do(place, row, other, headers=key)
    assert (reused.status_code, reused.json["code"]) == (422, "idempotency-key-reused")
    # The query is no part of the name of a call, but a rehearsal is no call.
    assert (
        "idempotent-replayed"
        not in _do(place, row, scene, headers=key, query="dry_run=true").headers
    )
    _holds_no_secret(place, first.json)


def _holds_no_secret(place: House, document: dict[str, Any]) -> None:
    with place.parts.reader.glance() as connection:
        calls = connection.execute("SELECT i::text FROM ledger_idempotency i").fetchall()
        bodies = connection.execute("SELECT convert_from(body, 'UTF8') FROM ledger_events")
        written = "\n".join(text for (text,) in [*calls, *bodies])
    assert calls
    for name in SECRETS:
        if name in document:
            assert document[name] not in written
            assert document[name].split("_")[2] not in written
    assert place.admin not in written


def test_a_refusal_is_decided_anew_each_time(place: House) -> None:
    """The key stays free: what was refused may be right later."""
    peer = place.peer(active=False)
    key, path = {"Idempotency-Key": "k"}, {"peer_id": peer["id"]}
    early = place.call("peer.suspend", WHY, token=place.admin, headers=key, **path)
    assert (early.status_code, early.json["code"]) == (409, "peer-wrong-state")
    place.ok("peer.activate", {"verification": "x"}, **path)
    done = place.call("peer.suspend", WHY, token=place.admin, headers=key, **path)
    assert (done.status_code, done.headers.get("idempotent-replayed")) == (200, None)


def test_a_command_that_changes_nothing_is_not_recorded(place: House) -> None:
    grant = place.grant(place.peer()["id"])
    place.ok("grant.revoke", WHY, grant_id=grant["id"])
    before = _size(place)
    again = place.call(
        "grant.revoke", WHY, token=place.admin, headers={"Idempotency-Key": "k"},
        grant_id=grant["id"],
    )  # fmt: skip
    assert again.status_code == 200
    assert _size(place) == before
    assert int(again.headers["ledger-position"]) == before


@pytest.mark.parametrize(
    ("name", "body", "more", "status"),
    [
        ("policy.change", {"approval_days": 3}, {}, 403),
        ("peer.show", None, {"peer_id": "0d9cb46e-1c5f-4b36-9a39-0b4f3c1f6a55"}, 404),
        ("peer.show", None, {"peer_id": "nonsense"}, 404),
        ("peer.register", {"name": "Taken", "base_url": "https://x.example"}, {}, 409),
        ("peer.register", {"name": "!"}, {}, 422),
        ("peer.register", b"{", {}, 400),
        ("peer.register", b" " * (256 * 1024 + 1), {}, 413),
        ("peer.list", None, {"query": "limit=0"}, 422),
    ],
)
def test_a_refusal_says_at_which_position(
    place: House, name: str, body: object, more: dict[str, Any], status: int
) -> None:
    place.peer("Taken")
    before = _size(place)
    answer = place.call(name, body, token=place.admin, **more)
    assert answer.status_code == status, answer.text
    # A denial is itself recorded.
    assert before <= int(answer.headers["ledger-position"]) <= _size(place)


def test_a_stranger_is_told_no_position(place: House) -> None:
    assert "ledger-position" not in place.call("peer.list", token="x").headers
    assert "ledger-position" not in place.client.simulate_get("/v1/nothing").headers


def test_revoking_many_takes_what_is_chosen_and_no_more(place: House) -> None:
    peer, other = place.peer("One"), place.peer("Other")
    made = {}
    for owner, user in ((peer, "u-1"), (peer, "u-2"), (other, "u-1")):
        grant = place.grant(owner["id"], subject_user_id=user)
        made[owner["name"], user] = place.enroll(place.token(grant["id"]), csr()).json["serial"]

    def revoked(**chosen: str) -> list[str]:
        done = place.ok("certificate.revoke-many", WHY | chosen)
        assert done["more"] is False
        return [item["serial"] for item in done["items"]]

    assert revoked(peer_id=peer["id"], subject_user_id="u-2") == [made["One", "u-2"]]
    assert revoked(peer_id=peer["id"]) == [made["One", "u-1"]]
    assert revoked(peer_id=peer["id"]) == []  # nothing left, and nothing wrong
    key = place.ok("certificate.show", serial=made["One", "u-1"])["key_digest"]
    assert revoked(key_digest=key, revocation_reason="keyCompromise") == [made["One", "u-1"]]
    assert revoked(subject_user_id="u-1") == [made["Other", "u-1"]]
    for chosen in ({"subject_user_id": "nobody"}, {"key_digest": "0" * 64}):
        lost = place.call("certificate.revoke-many", WHY | chosen, token=place.admin)
        assert (lost.status_code, lost.json["code"]) == (404, "not-found")
    everything = place.call("certificate.revoke-many", WHY, token=place.admin)
    assert everything.status_code == 422
    assert json.loads(everything.text)["errors"][0]["pointer"] == ""
    for serial in made.values():
        assert place.ok("certificate.status", serial=serial)["status"] == "revoked"
