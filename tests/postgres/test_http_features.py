"""Each noun's operations over HTTP, beyond the main job."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from urllib.parse import urlencode
from uuid import uuid4

from cryptography import x509

from ledger.alarms import raise_alarm
from ledger.events import Actor
from ledger.reading import Call
from support.http import House, csr

GONE = {"reason": "over"}


def test_a_peer_from_registered_to_revoked(place: House) -> None:
    peer = place.peer("Alpha")
    peer_id = peer["id"]
    changed = place.ok("peer.update", {"base_url": "https://new.example"}, peer_id=peer_id)
    assert changed["base_url"] == "https://new.example"
    grant = place.grant(peer_id)
    assert place.ok("peer.suspend", GONE, peer_id=peer_id)["state"] == "suspended"
    shown = place.ok("grant.show", grant_id=grant["id"])
    assert (shown["status"], shown["stored_status"]) == ("suspended", "pending_enrollment")
    assert place.ok("peer.resume", GONE, peer_id=peer_id)["state"] == "active"
    refused = place.call("peer.revoke", GONE, token=place.admin, peer_id=peer_id)
    assert refused.status_code == 409
    assert refused.json["code"] == "peer-has-live-grants"
    assert refused.json["grants"] == [grant["id"]]
    revoked = place.ok("peer.revoke", GONE | {"grants": "revoke"}, peer_id=peer_id)
    assert revoked["state"] == "revoked"
    history = place.ok("grant.history", grant_id=grant["id"])["items"]
    assert [(entry["topic"], entry["status"]) for entry in history] == [
        ("grant.proposed.v1", "pending_enrollment"),
        ("peer.suspended.v1", "suspended"),
        ("peer.resumed.v1", "pending_enrollment"),
        ("peer.revoked.v1", "revoked"),
        ("grant.revoked.v1", "revoked"),
    ]
    assert history[-1]["causation_id"] == history[-2]["id"]
    taken = place.call(
        "peer.register", {"name": "ALPHA", "base_url": "https://x.example"}, token=place.admin
    )
    assert (taken.status_code, taken.json["code"]) == (409, "peer-name-taken")
    place.peer("Beta", active=False)
    assert [one["name"] for one in place.ok("peer.list")["items"]] == ["Alpha", "Beta"]
    assert place.ok("peer.list", query="state=pending")["items"][0]["name"] == "Beta"
    assert place.ok("peer.list", query="name=beta")["items"][0]["name"] == "Beta"


def test_a_grant_is_amended_narrowed_suspended_and_resumed(place: House) -> None:
    grant = place.grant(place.peer()["id"], "tasks", "notes")
    grant_id = grant["id"]
    end = (place.clock() + timedelta(days=20)).isoformat()
    amended = place.ok("grant.amend", {"expires_at": end, "reason": "shorter"}, grant_id=grant_id)
    assert amended["terms_digest"] != grant["terms_digest"]
    assert place.enroll(place.token(grant_id), csr()).status_code == 200
    less = {"scope": {"resources": ["tasks"], "max_rows_per_query": 100}, "reason": "less"}
    narrowed = place.ok("grant.narrow", less, grant_id=grant_id)
    assert narrowed["scope"]["resources"] == ["tasks"]
    again = place.call("grant.narrow", less, token=place.admin, grant_id=grant_id)
    assert (again.status_code, again.json["code"]) == (409, "nothing-to-narrow")
    more = {"scope": {"resources": ["memory"], "max_rows_per_query": 100}, "reason": "more"}
    wider = place.call("grant.narrow", more, token=place.admin, grant_id=grant_id)
    assert (wider.status_code, wider.json["code"]) == (409, "widening-requires-new-grant")
    assert place.ok("grant.suspend", GONE, grant_id=grant_id)["status"] == "suspended"
    serial = place.ok("grant.certificates", grant_id=grant_id)["items"][0]["serial"]
    assert place.ok("certificate.status", serial=serial)["status"] == "on-hold"
    assert place.ok("grant.resume", GONE, grant_id=grant_id)["status"] == "active"
    assert place.ok("certificate.status", serial=serial)["status"] == "good"
    empty = place.call("grant.amend", GONE, token=place.admin, grant_id=grant_id)
    assert empty.status_code == 422


def test_a_sensitive_grant_takes_a_reason_and_can_be_rejected(place: House) -> None:
    peer = place.peer()
    body = place.proposal(peer["id"], "credentials")
    del body["reason"]
    silent = place.call("grant.propose", body, token=place.admin)
    assert (silent.status_code, silent.json["code"]) == (422, "reason-required")
    grant = place.grant(peer["id"], "credentials")
    wrong = {"terms_digest": "0" * 64, "reason": "x"}
    refused = place.call("grant.approve", wrong, token=place.approver, grant_id=grant["id"])
    assert (refused.status_code, refused.json["code"]) == (409, "terms-changed")
    rejected = place.ok("grant.reject", GONE, token=place.approver, grant_id=grant["id"])
    assert rejected["status"] == "rejected"


def test_grants_are_found_by_their_effective_status(place: House) -> None:
    peer = place.peer()
    plain = place.grant(peer["id"], "tasks")
    place.grant(peer["id"], "credentials", subject_user_id="user-18")
    found = place.ok("grant.list", query="status=pending_approval")["items"]
    assert [one["subject_user_id"] for one in found] == ["user-18"]
    found = place.ok("grant.list", query="resource=tasks&sensitive=false")["items"]
    assert [one["id"] for one in found] == [plain["id"]]
    assert place.ok("grant.list", query=f"peer_id={uuid4()}")["items"] == []
    place.ok("peer.suspend", GONE, peer_id=peer["id"])
    found = place.ok("grant.list", query="status=suspended&subject_user_id=user-17")["items"]
    assert [one["id"] for one in found] == [plain["id"]]


def test_scopes_are_judged_with_every_issue(place: House) -> None:
    good = {"scope": {"resources": ["tasks"], "max_rows_per_query": 100.0}}
    verdict = place.ok("scope.validate", good)
    assert verdict["valid"] is True
    assert verdict["scope"]["max_rows_per_query"] == 100
    bad = {"resources": [], "excluded_resources": ["x"], "max_rows_per_query": 0, "typo": 1}
    verdict = place.ok("scope.validate", {"scope": bad})
    assert verdict["valid"] is False
    assert verdict["text"].startswith("Invalid federation scope:\n  - [")
    assert len(verdict["issues"]) == 4
    peer = place.peer()
    answer = place.call(
        "grant.propose", place.proposal(peer["id"]) | {"scope": bad}, token=place.admin
    )
    assert (answer.status_code, answer.json["code"]) == (422, "invalid-scope")
    assert {issue["pointer"] for issue in answer.json["errors"]} == {
        "/scope/resources",
        "/scope/excluded_resources/0",
        "/scope/max_rows_per_query",
        "/scope",
    }


def test_enrollment_tokens_are_replaced_and_cancelled(place: House) -> None:
    grant = place.grant(place.peer()["id"])
    first = place.ok("enrollment-token.issue", {"ttl": 600}, grant_id=grant["id"])
    second = place.ok("enrollment-token.issue", {}, grant_id=grant["id"])
    assert place.enroll(first["token"], csr()).status_code == 401
    answer = place.call(
        "enrollment-token.cancel",
        token=place.admin,
        query="reason=sent+to+the+wrong+person",
        accessor=second["accessor"],
    )
    assert (answer.status_code, answer.content) == (204, b"")
    assert place.enroll(second["token"], csr()).status_code == 401
    too_long = place.call(
        "enrollment-token.issue", {"ttl": 8 * 86400}, token=place.admin, grant_id=grant["id"]
    )
    assert (too_long.status_code, too_long.json["code"]) == (422, "token-ttl")


def test_what_became_of_a_token_is_shown_without_its_secret(place: House) -> None:
    grant = place.grant(place.peer()["id"])
    issued = [
        place.call("enrollment-token.issue", {"ttl": ttl}, token=place.admin, grant_id=grant["id"])
        for ttl in (600, 600, 10)
    ]
    first, second, third = (answer.json for answer in issued)
    assert place.enroll(second["token"], csr()).status_code == 401
    place.ok("enrollment-token.cancel", accessor=third["accessor"])
    fourth = place.ok("enrollment-token.issue", {}, grant_id=grant["id"])
    assert place.enroll(fourth["token"], csr()).status_code == 200
    fifth = place.ok("enrollment-token.issue", {"ttl": 10}, grant_id=grant["id"])

    def states(**filters: str) -> dict[str, str]:
        query = urlencode(filters)
        answer = place.call(
            "enrollment-token.list", token=place.admin, query=query, grant_id=grant["id"]
        )
        for one in (first, second, third, fourth, fifth):
            assert one["token"] not in answer.text
        return {one["accessor"]: one["state"] for one in answer.json["items"]}

    ended = {one["accessor"]: "cancelled" for one in (first, second, third)}
    redeemed = {fourth["accessor"]: "redeemed"}
    assert states() == ended | redeemed | {fifth["accessor"]: "issued"}
    place.clock.ahead += timedelta(seconds=11)
    assert states() == ended | redeemed | {fifth["accessor"]: "expired"}
    assert states(state="expired") == {fifth["accessor"]: "expired"}
    assert states(state="issued") == {}
    shown = place.ok("enrollment-token.show", accessor=fourth["accessor"])
    assert shown["state"] == "redeemed"
    assert issued[0].headers["location"] == f"/v1/enrollment-tokens/{first['accessor']}"
    answer = place.call("enrollment-token.show", token=place.admin, accessor="0" * 16)
    assert (answer.status_code, answer.json["code"]) == (404, "not-found")


def test_what_is_wrong_with_a_csr_is_told_to_who_holds_the_token(place: House) -> None:
    grant = place.grant(place.peer()["id"])
    token = place.token(grant["id"])
    answer = place.enroll(token, "nonsense")
    assert (answer.status_code, answer.json["code"]) == (422, "csr-malformed")
    answer = place.enroll(token, csr("Somebody Else"))
    assert (answer.status_code, answer.json["code"]) == (422, "csr-subject")
    assert place.enroll(token, csr("Example Peer")).status_code == 200


def test_certificates_are_listed_and_end_in_the_roots(place: House) -> None:
    grant = place.grant(place.peer()["id"])
    enrolled = place.enroll(place.token(grant["id"]), csr()).json
    (item,) = place.ok("certificate.list", query=f"grant_id={grant['id']}&state=issued")["items"]
    assert item["certificate"] == enrolled["certificate"]
    spelled = ":".join(item["serial"][i : i + 2].upper() for i in range(0, 32, 2))
    assert place.ok("certificate.show", serial=spelled) == item
    answer = place.call("authority.roots")
    assert answer.headers["content-type"] == "application/x-pem-file"
    roots = x509.load_pem_x509_certificates(answer.content)
    chain = x509.load_pem_x509_certificates(enrolled["chain"].encode())
    assert chain[-1] in roots
    chain[0].verify_directly_issued_by(chain[-1])
    x509.load_pem_x509_certificate(enrolled["certificate"].encode()).verify_directly_issued_by(
        chain[0]
    )
    key = {"Idempotency-Key": "k"}
    body = {"revocation_reason": "keyCompromise", "reason": "stolen"}
    first = place.call(
        "certificate.revoke", body, token=place.admin, headers=key, serial=item["serial"]
    )
    again = place.call(
        "certificate.revoke", body, token=place.admin, headers=key, serial=item["serial"]
    )
    assert first.json == again.json
    assert first.json["revocation_detail"] == "stolen"
    hold = place.call(
        "certificate.revoke", body | {"revocation_reason": "certificateHold"},
        token=place.admin, serial=item["serial"],
    )  # fmt: skip
    assert (hold.status_code, hold.json["code"]) == (422, "hold-means-suspend")
    expired = place.ok("grant.revoke", GONE, grant_id=grant["id"])
    assert expired["ended_at"] is not None


def test_events_are_the_exact_bytes(place: House) -> None:
    place.peer()
    listed = place.ok("event.list", query="limit=500")
    positions = [event["position"] for event in listed["items"]]
    assert positions == list(range(1, len(positions) + 1))
    one = listed["items"][-1]
    entry = place.call(
        "event.show", token=place.admin, query="format=entry", position=one["position"]
    )
    body = place.call(
        "event.show", token=place.admin, query="format=body", position=one["position"]
    )
    assert hashlib.sha256(b"\0" + entry.content).hexdigest() == one["leaf"]
    lines = entry.content.decode().split("\n")
    assert lines[-2] == f"body-sha256: {hashlib.sha256(body.content).hexdigest()}"
    assert lines[1] == f"position: {one['position']}"


def test_events_are_filtered_and_paged_both_ways(place: House) -> None:
    peer = place.peer()
    found = place.ok("event.list", query=f"stream={peer['id']}")["items"]
    assert [event["topic"] for event in found] == ["peer.registered.v1", "peer.activated.v1"]
    found = place.ok("event.list", query="topic=peer.activated.v1")["items"]
    assert [event["stream"] for event in found] == [peer["id"]]
    admin = place.admin.split("_")[1]
    assert place.ok("event.list", query=f"about={admin}")["items"]
    seen, cursor = [], ""
    while cursor is not None:
        page = place.ok("event.list", query=f"limit=3&newest_first=true{cursor}")
        seen += [event["position"] for event in page["items"]]
        cursor = f"&cursor={page['next']}" if page["next"] else None
    assert seen == list(range(seen[0], 0, -1))
    later = place.ok("event.list", query=f"after={seen[0]}&limit=500")["items"]
    assert all(event["position"] > seen[0] for event in later)
    since = found[0]["recorded_at"]
    assert (
        place.ok("event.list", query=f"since={since}&limit=1")["items"][0]["recorded_at"] == since
    )


def test_reading_the_trail_is_recorded_once_in_ten_minutes(place: House) -> None:
    auditor = place.operator("auditor")

    def readings() -> int:
        with place.parts.reader.glance() as connection:
            query = "SELECT count(*) FROM ledger_events WHERE topic = 'audit.read.v1'"
            row = connection.execute(query).fetchone()
        assert row is not None
        return int(row[0])

    for _ in range(3):
        place.ok("event.list", token=auditor)
    assert readings() == 1
    place.seconds.now += 601
    place.ok("event.list", token=auditor)
    assert readings() == 2


def test_operators_and_their_credentials(place: House) -> None:
    made = place.ok("operator.register", {"kind": "machine", "roles": ["gateway"]})
    operator_id = made["id"]
    issued = place.ok("credential.issue", {"ttl": 3600}, operator_id=operator_id)
    (listed,) = place.ok("credential.list", operator_id=operator_id)["items"]
    assert listed["accessor"] == issued["accessor"]
    assert "token" not in listed
    assert (
        place.call("certificate.status", token=issued["token"], serial="4" * 32).status_code == 404
    )
    place.ok(
        "credential.revoke", {"reason": "x"}, operator_id=operator_id, accessor=issued["accessor"]
    )
    assert (
        place.call("certificate.status", token=issued["token"], serial="4" * 32).status_code == 401
    )
    assert place.ok("operator.show", operator_id=operator_id)["roles"] == ["gateway"]
    disabled = place.ok("operator.disable", {}, operator_id=operator_id)
    assert disabled["enabled"] is False
    assert len(place.ok("operator.list")["items"]) == 3
    (admin,) = place.ok("operator.list", query="role=admin")["items"]
    last = place.call("operator.disable", {}, token=place.admin, operator_id=admin["id"])
    assert (last.status_code, last.json["code"]) == (409, "last-holder")


def test_the_policy(place: House) -> None:
    before = place.ok("policy.show")
    assert before["version"] == 1  # written down by init, so that it outlives this release
    after = place.ok(
        "policy.change", {"required_approvals": 2, "reason": "board"}, token=place.approver
    )
    assert after == before | {
        "required_approvals": 2,
        "version": 2,
        "changed_at": after["changed_at"],
    }
    out = place.call("policy.change", {"token_ttl": 1}, token=place.approver)
    assert (out.status_code, out.json["code"]) == (422, "policy-field")
    assert place.call("policy.change", {}, token=place.approver).status_code == 422


def test_alarms_stay_open_until_acknowledged(place: House) -> None:
    watch = place.operator("operator")
    system = Call(actor=Actor(kind="system", id="test", auth="system"), correlation_id="test")
    assert raise_alarm("mis-issued", ["x"], "it did")
    alarm = place.parts.services.ledger.raise_alarm(system, "mis-issued", ["x"], "it did").value
    (listed,) = place.ok("alarm.list", query="open=true", token=watch)["items"]
    assert (listed["id"], listed["about"]) == (str(alarm.id), ["x"])
    assert place.ok("health.show")["status"] == "warn"
    done = place.ok("alarm.acknowledge", {"reason": "seen"}, token=watch, alarm_id=alarm.id)
    assert done["acknowledged_because"] == "seen"
    assert place.ok("alarm.list", query="open=true")["items"] == []
    assert place.ok("alarm.list")["items"] == [done]


def test_health(place: House) -> None:
    assert place.call("health.live").json == {"status": "alive"}
    assert place.call("health.ready").json == {"status": "ready", "reason": None}
    shown = place.ok("health.show")
    assert (shown["status"], shown["open_issuances"]) == ("pass", 0)
    assert shown["serviceId"] == "test.fedledger.example"
    place.clock.ahead = timedelta(seconds=31)
    failing = place.call("health.show", token=place.admin)
    assert (failing.status_code, failing.json["status"]) == (503, "fail")
    refused = place.call(
        "peer.register", {"name": "x", "base_url": "https://x.example"}, token=place.admin
    )
    assert (refused.status_code, refused.json["code"]) == (503, "clock-untrusted")
    assert "retry-after" in refused.headers


def test_many_redemptions_at_once_give_one_certificate(place: House) -> None:
    grant = place.grant(place.peer()["id"])
    token, request = place.token(grant["id"]), csr()
    with ThreadPoolExecutor(16) as pool:
        same = list(pool.map(lambda _: place.enroll(token, request), range(16)))
    assert {answer.status_code for answer in same} == {200}
    assert len({answer.json["serial"] for answer in same}) == 1
    assert len(place.ok("grant.certificates", grant_id=grant["id"])["items"]) == 1
    token = place.token(grant["id"])
    with ThreadPoolExecutor(16) as pool:
        different = list(pool.map(lambda _: place.enroll(token, csr()), range(16)))
    assert sorted(answer.status_code for answer in different) == [200] + [401] * 15
    (alarm,) = place.ok("alarm.list", query="open=true")["items"]
    assert (alarm["kind"], alarm["about"][1]) == ("token-replayed", grant["id"])


def test_twins_with_one_key_are_done_once(place: House) -> None:
    body = {"name": "Twin", "base_url": "https://peer.example"}
    key = {"Idempotency-Key": "k"}
    with ThreadPoolExecutor(6) as pool:
        answers = list(
            pool.map(
                lambda _: place.call("peer.register", body, token=place.admin, headers=key),
                range(6),
            )
        )
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json["id"] for answer in answers}) == 1
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 5
