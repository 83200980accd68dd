"""Every way round the second pair of eyes that the interface offers, each tried and each refused.

The rules themselves are tested in tests/unit/test_grants.py and test_operators.py; here somebody
with real credentials tries to be two people, or to change what was approved.
"""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from falcon.testing import Result
from pydantic import SecretStr

from api.cli import run
from api.doctor import examine
from api.settings import Settings
from api.wiring import system_clock
from support.databases import Database
from support.http import House, csr
from support.live import all_at_once

WHY = {"reason": "because"}
SENSITIVE = {"resources": ["credentials"], "max_rows_per_query": 100}


def refused(answer: Result, status: int, code: str) -> None:
    assert (answer.status_code, answer.json["code"]) == (status, code), answer.text


def approve(place: House, grant: dict[str, Any], token: str, **more: Any) -> Result:
    body = {"terms_digest": grant["terms_digest"], **WHY}
    return place.call("grant.approve", body, token=token, grant_id=grant["id"], **more)


def waits(place: House, grant: dict[str, Any]) -> None:
    """The grant still lacks approval: nobody can be let in."""
    shown = place.ok("grant.show", grant_id=grant["id"])
    assert shown["status"] == "pending_approval"
    token = place.call("enrollment-token.issue", {}, token=place.admin, grant_id=grant["id"])
    refused(token, 409, "grant-pending-approval")


def at_once(*acts: Callable[[], Result]) -> list[Result]:
    return [one for one in all_at_once(acts) if isinstance(one, Result)]


def person(place: House, *roles: str) -> tuple[str, str]:
    """Register somebody; id and token."""
    token = place.operator(*roles)
    newest = place.ok("operator.list", query=f"role={roles[0]}")["items"][-1]
    return newest["id"], token


def credential(place: House, operator_id: str, maker: str) -> Result:
    return place.call("credential.issue", {}, token=maker, operator_id=operator_id)


def change_roles(place: House, operator_id: str, maker: str, *roles: str) -> Result:
    body = {"roles": list(roles)}
    return place.call("operator.roles", body, token=maker, operator_id=operator_id)


def turned(place: House, operator_id: str) -> str:
    """Make an admin an approver, as the rules allow: in two steps, by two people. The new token."""
    assert change_roles(place, operator_id, place.admin, "auditor").status_code == 200
    assert change_roles(place, operator_id, place.approver, "approver").status_code == 200
    made = credential(place, operator_id, place.approver)
    assert made.status_code == 201
    return str(made.json["token"])


@pytest.fixture
def grant(place: House) -> dict[str, Any]:
    """A sensitive grant proposed by the admin."""
    return place.grant(place.peer()["id"], "credentials")


# ---- being two people -------------------------------------------------------------------------


def test_who_proposed_cannot_approve(place: House, grant: dict[str, Any]) -> None:
    refused(approve(place, grant, place.admin), 403, "forbidden")
    second = place.ok("credential.issue", {}, operator_id=_me(place, "admin"))["token"]
    refused(approve(place, grant, second), 403, "forbidden")
    waits(place, grant)


def test_an_approver_cannot_propose(place: House) -> None:
    peer = place.peer()
    body = place.proposal(peer["id"], "credentials")
    refused(place.call("grant.propose", body, token=place.approver), 403, "forbidden")
    assert place.ok("grant.list")["items"] == []


def test_an_approver_cannot_amend_what_he_approves(place: House, grant: dict[str, Any]) -> None:
    for name in ("grant.amend", "grant.narrow"):
        body = {"scope": SENSITIVE, **WHY}
        answer = place.call(name, body, token=place.approver, grant_id=grant["id"])
        refused(answer, 403, "forbidden")


@pytest.mark.parametrize("act", ["proposed", "amended"])
def test_a_change_of_sides_does_not_make_a_second_person(place: House, act: str) -> None:
    operator_id, token = person(place, "admin")
    peer = place.peer()
    author = token if act == "proposed" else place.admin
    body = place.proposal(peer["id"], "credentials")
    grant = place.ok("grant.propose", body, token=author)
    if act == "amended":
        shorter = {"scope": SENSITIVE | {"max_rows_per_query": 5}, **WHY}
        grant = place.ok("grant.amend", shorter, token=token, grant_id=grant["id"])
    approver = turned(place, operator_id)
    refused(approve(place, grant, token), 401, "unauthorized")  # the old one died on the way
    refused(approve(place, grant, approver), 403, "four-eyes")
    waits(place, grant)
    (tried,) = place.ok("event.list", query=f"topic=call.denied.v1&actor={operator_id}")["items"]
    assert tried["body"]["data"] == {
        "count": 1, "operation": "grant.approve", "problem": "four-eyes",
    }  # fmt: skip
    assert approve(place, grant, place.approver).status_code == 200


def test_an_admin_cannot_make_or_become_an_approver(place: House) -> None:
    approver, auditor = _me(place, "approver"), person(place, "auditor")[0]
    admin = _me(place, "admin")
    for roles in (["approver"], ["approver", "auditor"]):
        made = place.call(
            "operator.register", {"kind": "person", "roles": roles}, token=place.admin
        )
        refused(made, 403, "forbidden")
        refused(change_roles(place, auditor, place.admin, *roles), 403, "forbidden")
        refused(change_roles(place, admin, place.admin, *roles), 403, "forbidden")
        # Not by an approver's hand alone either: that would move one person across.
        refused(change_roles(place, admin, place.approver, *roles), 403, "forbidden")
    refused(change_roles(place, admin, place.admin, "admin", "approver"), 403, "forbidden")
    both = change_roles(place, admin, place.approver, "admin", "approver")
    refused(both, 409, "separation-of-duties")
    refused(credential(place, approver, place.admin), 403, "forbidden")
    accessor = place.approver.split("_")[1]
    taken = place.call(
        "credential.revoke", WHY, token=place.admin, operator_id=approver, accessor=accessor
    )
    refused(taken, 403, "forbidden")
    refused(
        place.call("operator.disable", {}, token=place.admin, operator_id=approver),
        403,
        "forbidden",
    )


def test_an_approver_cannot_make_or_become_an_admin(place: House) -> None:
    approver, (auditor, _) = _me(place, "approver"), person(place, "auditor")
    body = {"kind": "person", "roles": ["admin"]}
    refused(place.call("operator.register", body, token=place.approver), 403, "forbidden")
    for operator_id in (approver, auditor):
        answer = change_roles(place, operator_id, place.approver, "admin")
        refused(answer, 403, "forbidden")
    second = person(place, "approver")[0]
    assert change_roles(place, second, place.approver, "auditor").status_code == 200
    refused(change_roles(place, second, place.approver, "admin"), 403, "forbidden")
    refused(credential(place, second, place.approver), 403, "forbidden")


def test_a_token_kept_back_by_the_admin_dies_when_its_owner_becomes_an_approver(
    place: House, grant: dict[str, Any]
) -> None:
    operator_id, kept = person(place, "auditor")
    assert change_roles(place, operator_id, place.approver, "approver").status_code == 200
    refused(approve(place, grant, kept), 401, "unauthorized")
    refused(credential(place, operator_id, place.admin), 403, "forbidden")
    waits(place, grant)


def test_no_token_slips_through_while_its_owner_becomes_an_approver(place: House) -> None:
    for _ in range(4):
        operator_id, _ = person(place, "auditor")
        issued, changed = at_once(
            partial(credential, place, operator_id, place.admin),
            partial(change_roles, place, operator_id, place.approver, "approver"),
        )
        assert changed.status_code == 200
        assert issued.status_code in {201, 403}
        live = place.ok("credential.list", operator_id=operator_id, query="live=true")["items"]
        assert live == []


def test_one_person_counts_once_whatever_the_credential(place: House) -> None:
    place.ok("policy.change", {"required_approvals": 2}, token=place.approver)
    grant = place.grant(place.peer()["id"], "credentials")
    made = place.ok(
        "credential.issue", {}, token=place.approver, operator_id=_me(place, "approver")
    )
    assert approve(place, grant, place.approver).status_code == 200
    refused(approve(place, grant, place.approver), 409, "already-approved")
    refused(approve(place, grant, made["token"]), 409, "already-approved")
    waits(place, grant)
    assert approve(place, grant, place.operator("approver")).status_code == 200
    assert place.ok("grant.show", grant_id=grant["id"])["status"] == "pending_enrollment"


def test_one_person_counts_once_even_at_the_same_moment(place: House) -> None:
    place.ok("policy.change", {"required_approvals": 2}, token=place.approver)
    grant = place.grant(place.peer()["id"], "credentials")
    mine = _me(place, "approver")
    tokens = [place.approver] + [
        place.ok("credential.issue", {}, token=place.approver, operator_id=mine)["token"]
        for _ in range(3)
    ]
    answers = at_once(*(partial(approve, place, grant, token) for token in tokens))
    assert sorted(one.status_code for one in answers) == [200, 409, 409, 409]
    waits(place, grant)


def test_the_caller_is_who_the_credential_says(place: House, grant: dict[str, Any]) -> None:
    other = person(place, "approver")[0]
    body = {"terms_digest": grant["terms_digest"], "approver": other, **WHY}
    answer = place.call("grant.approve", body, token=place.approver, grant_id=grant["id"])
    refused(answer, 422, "invalid")
    headers = {"X-Operator": other, "X-Forwarded-User": other}
    both = approve(place, grant, place.approver, headers={**headers, "Client-Cert": ":AAAA:"})
    refused(both, 401, "unauthorized")
    done = approve(place, grant, place.approver, headers=headers)
    assert [one["approver"] for one in done.json["approvals"]] == [_me(place, "approver")]


# ---- who no longer counts ---------------------------------------------------------------------


def test_no_credential_of_a_disabled_approver_opens_anything(
    place: House, grant: dict[str, Any]
) -> None:
    operator_id, token = person(place, "approver")
    place.ok("operator.disable", WHY, token=place.approver, operator_id=operator_id)
    refused(approve(place, grant, token), 401, "unauthorized")
    waits(place, grant)


def test_an_expired_credential_approves_nothing(place: House, grant: dict[str, Any]) -> None:
    mine = _me(place, "approver")
    made = place.ok("credential.issue", {"ttl": 60}, token=place.approver, operator_id=mine)
    place.clock.ahead = timedelta(seconds=60)
    refused(approve(place, grant, made["token"]), 401, "unauthorized")
    place.clock.ahead = timedelta(0)
    waits(place, grant)


@pytest.mark.parametrize("loss", ["disabled", "relieved", "turned admin"])
def test_an_approval_stops_counting_with_its_giver(
    place: House, grant: dict[str, Any], loss: str
) -> None:
    """Recounted when the peer enrolls: the token was issued in between."""
    operator_id, token = person(place, "approver")
    assert approve(place, grant, token).status_code == 200
    key = place.token(grant["id"])
    if loss == "disabled":
        place.ok("operator.disable", WHY, token=place.approver, operator_id=operator_id)
    else:
        assert change_roles(place, operator_id, place.approver, "auditor").status_code == 200
    if loss == "turned admin":
        assert change_roles(place, operator_id, place.admin, "admin").status_code == 200
    refused(place.enroll(key, csr()), 409, "grant-pending-approval")
    assert approve(place, grant, place.approver).status_code == 200
    assert place.enroll(key, csr()).status_code == 200


def test_an_approver_on_the_way_out_approves_before_or_not_at_all(place: House) -> None:
    peer = place.peer()
    for _ in range(4):
        grant = place.grant(peer["id"], "credentials")
        operator_id, token = person(place, "approver")
        approved, relieved = at_once(
            partial(approve, place, grant, token),
            partial(change_roles, place, operator_id, place.approver, "auditor"),
        )
        assert relieved.status_code == 200
        if approved.status_code == 200:
            place_of = [int(one.headers["ledger-position"]) for one in (approved, relieved)]
            assert place_of[0] < place_of[1]
        else:
            assert approved.status_code in {401, 403}


# ---- changing what was approved ---------------------------------------------------------------


def test_an_approval_names_the_terms(place: House, grant: dict[str, Any]) -> None:
    wider = {"scope": SENSITIVE | {"resources": ["credentials", "api_keys"]}, **WHY}
    amended = place.ok("grant.amend", wider, grant_id=grant["id"])
    refused(approve(place, grant, place.approver), 409, "terms-changed")  # with the old digest
    waits(place, grant)
    assert approve(place, amended, place.approver).status_code == 200


def test_amending_voids_approvals_and_tokens(place: House, grant: dict[str, Any]) -> None:
    assert approve(place, grant, place.approver).status_code == 200
    key = place.token(grant["id"])
    wider = {"scope": SENSITIVE | {"max_rows_per_query": 10000}, **WHY}
    amended = place.ok("grant.amend", wider, grant_id=grant["id"])
    assert (amended["status"], amended["approvals"]) == ("pending_approval", [])
    assert place.enroll(key, csr()).status_code == 401
    waits(place, grant)
    # And back to what once was approved: that approval is gone all the same.
    back = {"scope": SENSITIVE, **WHY}
    assert (
        place.ok("grant.amend", back, grant_id=grant["id"])["terms_digest"]
        == (grant["terms_digest"])
    )
    waits(place, grant)


def test_a_plain_grant_amended_to_be_sensitive_waits_for_approval(place: House) -> None:
    grant = place.grant(place.peer()["id"], "tasks")
    key = place.token(grant["id"])
    amended = place.ok("grant.amend", {"scope": SENSITIVE, **WHY}, grant_id=grant["id"])
    assert amended["status"] == "pending_approval"
    assert place.enroll(key, csr()).status_code == 401
    waits(place, grant)


def test_what_is_approved_or_in_use_is_never_widened(place: House, grant: dict[str, Any]) -> None:
    assert approve(place, grant, place.approver).status_code == 200
    assert place.enroll(place.token(grant["id"]), csr()).status_code == 200
    later = (place.clock() + timedelta(days=300)).isoformat()
    team = {"credentials": {"include_teams": ["ops"]}}
    for change in (
        {"scope": {"resources": ["credentials", "api_keys"], "max_rows_per_query": 100}},
        {"scope": SENSITIVE | {"max_rows_per_query": 101}},
        {"scope": SENSITIVE | {"filters": team}},
        {"expires_at": later},
    ):
        wider = change | WHY
        answer = place.call("grant.narrow", wider, token=place.admin, grant_id=grant["id"])
        refused(answer, 409, "widening-requires-new-grant")
        answer = place.call("grant.amend", wider, token=place.admin, grant_id=grant["id"])
        refused(answer, 409, "wrong-status")
    place.ok("grant.suspend", WHY, grant_id=grant["id"])
    answer = place.call("grant.amend", wider, token=place.admin, grant_id=grant["id"])
    refused(answer, 409, "wrong-status")


def test_an_approval_holds_for_its_grant_only(place: House, grant: dict[str, Any]) -> None:
    """The same terms, word for word, in another grant."""
    body = {
        name: grant[name]
        for name in ("peer_id", "subject_user_id", "scope", "not_before", "expires_at")
    }
    twin = place.ok("grant.propose", body | WHY)
    assert twin["terms_digest"] == grant["terms_digest"]
    assert approve(place, grant, place.approver).status_code == 200
    waits(place, twin)


def test_approving_and_amending_at_once_never_approves_unread_terms(place: House) -> None:
    peer = place.peer()
    for rows in range(4):
        grant = place.grant(peer["id"], "credentials")
        wider = {"scope": SENSITIVE | {"max_rows_per_query": 5000 + rows}, **WHY}
        amending = partial(place.call, "grant.amend", wider, token=place.admin)
        approved, amended = at_once(
            partial(approve, place, grant, place.approver),
            partial(amending, grant_id=grant["id"]),
        )
        assert amended.status_code == 200
        if approved.status_code != 200:
            refused(approved, 409, "terms-changed")
        waits(place, grant)


def test_a_repeated_approval_is_no_second_one(place: House, grant: dict[str, Any]) -> None:
    key = {"Idempotency-Key": "k"}
    first = approve(place, grant, place.approver, headers=key)
    assert first.status_code == 200
    wider = {"scope": SENSITIVE | {"max_rows_per_query": 10000}, **WHY}
    amended = place.ok("grant.amend", wider, grant_id=grant["id"])
    again = approve(place, grant, place.approver, headers=key)
    assert (again.status_code, again.headers["idempotent-replayed"]) == (200, "true")
    assert again.headers["ledger-position"] == first.headers["ledger-position"]
    waits(place, grant)
    refused(approve(place, amended, place.approver, headers=key), 422, "idempotency-key-reused")
    waits(place, grant)


def test_a_key_of_somebody_else_is_no_approval(place: House, grant: dict[str, Any]) -> None:
    key = {"Idempotency-Key": "k"}
    assert approve(place, grant, place.approver, headers=key).status_code == 200
    refused(approve(place, grant, place.admin, headers=key), 403, "forbidden")


def test_trying_it_out_approves_nothing(place: House, grant: dict[str, Any]) -> None:
    answer = approve(place, grant, place.approver, query="dry_run=true")
    assert [one["topic"] for one in answer.json["events"]] == ["grant.approved.v1"]
    waits(place, grant)


def test_an_approval_of_another_version_is_stale(place: House, grant: dict[str, Any]) -> None:
    answer = approve(place, grant, place.approver, headers={"If-Match": '"9"'})
    refused(answer, 412, "stale")
    waits(place, grant)


# ---- changing the rules -----------------------------------------------------------------------


def test_an_admin_cannot_switch_it_off(place: House, grant: dict[str, Any]) -> None:
    for change in ({"four_eyes": False}, {"required_approvals": 0}, {"approval_days": 365}):
        answer = place.call("policy.change", change, token=place.admin)
        refused(answer, 403, "forbidden")
    waits(place, grant)


def test_no_approvals_required_still_means_one(place: House, grant: dict[str, Any]) -> None:
    place.ok("policy.change", {"required_approvals": 0}, token=place.approver)
    waits(place, grant)


def test_switched_off_an_approval_is_still_an_event(place: House, grant: dict[str, Any]) -> None:
    place.ok("policy.change", {"four_eyes": False}, token=place.approver)
    waits(place, grant)
    assert approve(place, grant, place.admin).status_code == 200
    found = place.ok("event.list", query="topic=grant.approved.v1")["items"]
    assert [one["body"]["actor"]["id"] for one in found] == [_me(place, "admin")]


def test_what_an_author_approved_while_it_was_off_does_not_count_once_it_is_on(
    place: House, grant: dict[str, Any]
) -> None:
    place.ok("policy.change", {"four_eyes": False}, token=place.approver)
    assert approve(place, grant, place.admin).status_code == 200
    key = place.token(grant["id"])
    place.ok("policy.change", {"four_eyes": True}, token=place.approver)
    refused(place.enroll(key, csr()), 409, "grant-pending-approval")


def test_asking_for_one_more_holds_for_what_is_not_yet_enrolled(
    place: House, grant: dict[str, Any]
) -> None:
    assert approve(place, grant, place.approver).status_code == 200
    key = place.token(grant["id"])
    place.ok("policy.change", {"required_approvals": 2}, token=place.approver)
    waits(place, grant)
    refused(place.enroll(key, csr()), 409, "grant-pending-approval")


# ---- breaking in ------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["admin", "approver"])
def test_breaking_in_at_the_machine_works_and_is_an_alarm(
    place: House,
    database: Database,
    grant: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    role: str,
) -> None:
    out = tmp_path / "broken.token"
    monkeypatch.setenv("FEDLEDGER_HOME", str(place.home))
    monkeypatch.setenv("FEDLEDGER_DSN", database.service_dsn)
    mine = _me(place, role)
    arguments = ["operator", "credential", mine, "--local", "--reason", "lost", "--out", str(out)]
    monkeypatch.delenv("FEDLEDGER_OWNER_DSN", raising=False)
    assert run(arguments) == 4  # who may only serve may not do this
    assert not out.exists()
    assert place.ok("alarm.list")["items"] == []
    monkeypatch.setenv("FEDLEDGER_OWNER_DSN", database.owner_dsn)
    assert run(arguments) == 0
    token = out.read_text().strip()
    assert place.call("peer.list", token=token).status_code == 200
    (alarm,) = place.ok("alarm.list", query=f"open=true&about={mine}")["items"]
    assert alarm["kind"] == "local-credential"
    (event,) = place.ok("event.list", query="topic=alarm.raised.v1")["items"]
    assert event["body"]["actor"]["kind"] == "local"
    settings = Settings(dsn=SecretStr(database.service_dsn), home=place.home)
    checks = {check.id: check.status for check in examine(settings, system_clock)}
    assert checks["alarms"] == "warn"
    # The person is the same one as before: breaking in makes nobody a second person.
    if role == "admin":
        refused(approve(place, grant, token), 403, "forbidden")
        waits(place, grant)


def _me(place: House, role: str) -> str:
    """The id of the first operator in a role."""
    return str(place.ok("operator.list", query=f"role={role}")["items"][0]["id"])
