"""Who may do what: SPEC §8 as a literal table, against every operation there is.

The table is written by hand and must stay so: derived from the operation table it would agree with
any mistake in it.
"""

import json

from api.operations import OPERATIONS
from support.http import House, serial_of

ROLES = ("admin", "approver", "auditor", "operator", "gateway")  # and a peer, by its certificate
PUBLIC = "public"
TOKEN = "enrollment token"

#                          admin  approver  auditor  operator  gateway  peer
MATRIX: dict[str, str] = {
    "health.live":             PUBLIC,
    "health.ready":            PUBLIC,
    "openapi.show":            PUBLIC,
    "authority.roots":         PUBLIC,
    "authority.crl":           PUBLIC,
    "enrollment.redeem":       TOKEN,
    "health.show":             "yes    yes       yes      yes       -        -",
    "metrics.show":            "yes    yes       yes      yes       -        -",
    "peer.register":           "yes    -         -        -         -        -",
    "peer.list":               "yes    yes       yes      -         -        -",
    "peer.show":               "yes    yes       yes      -         -        -",
    "peer.activate":           "yes    -         -        -         -        -",
    "peer.update":             "yes    -         -        -         -        -",
    "peer.suspend":            "yes    -         -        -         -        -",
    "peer.resume":             "yes    -         -        -         -        -",
    "peer.revoke":             "yes    -         -        -         -        -",
    "grant.propose":           "yes    -         -        -         -        -",
    "grant.list":              "yes    yes       yes      -         -        own",
    "grant.show":              "yes    yes       yes      -         -        own",
    "grant.approve":           "-      yes       -        -         -        -",
    "grant.reject":            "-      yes       -        -         -        -",
    "grant.amend":             "yes    -         -        -         -        -",
    "grant.narrow":            "yes    -         -        -         -        -",
    "grant.suspend":           "yes    -         -        -         -        -",
    "grant.resume":            "yes    -         -        -         -        -",
    "grant.revoke":            "yes    -         -        -         -        -",
    "grant.history":           "yes    yes       yes      -         -        -",
    "grant.certificates":      "yes    yes       yes      -         -        own",
    "scope.validate":          "yes    yes       yes      -         -        -",
    "enrollment-token.issue":  "yes    -         -        -         -        -",
    "enrollment-token.list":   "yes    yes       yes      -         -        -",
    "enrollment-token.show":   "yes    yes       yes      -         -        -",
    "enrollment-token.cancel": "yes    -         -        -         -        -",
    "certificate.list":        "yes    yes       yes      -         -        own",
    "certificate.show":        "yes    yes       yes      -         -        own",
    "certificate.status":      "yes    yes       yes      -         yes      own",
    "certificate.renew":       "-      -         -        -         -        own",
    "certificate.revoke":      "yes    -         -        -         -        -",
    "certificate.revoke-many": "yes    -         -        -         -        -",
    "event.list":              "yes    yes       yes      -         -        -",
    "event.show":              "yes    yes       yes      -         -        -",
    "diff.list":               "yes    yes       yes      -         -        -",
    "event.export":            "yes    yes       yes      -         -        -",
    "about.show":              "yes    yes       yes      -         -        -",
    "operator.register":       "yes    -         -        -         -        -",
    "operator.list":           "yes    yes       yes      -         -        -",
    "operator.show":           "yes    yes       yes      -         -        -",
    "operator.roles":          "yes    -         -        -         -        -",
    "operator.disable":        "yes    -         -        -         -        -",
    "credential.list":         "yes    yes       yes      -         -        -",
    "credential.issue":        "yes    -         -        -         -        -",
    "credential.revoke":       "yes    -         -        -         -        -",
    "policy.show":             "yes    yes       yes      yes       -        -",
    "policy.change":           "-      yes       -        -         -        -",
    "projection.list":         "yes    yes       yes      yes       -        -",
    "alarm.list":              "yes    yes       yes      yes       -        -",
    "alarm.acknowledge":       "-      -         -        yes       -        -",
}  # fmt: skip

_BODIES: dict[str, object] = {
    "peer.register": {"name": "Another", "base_url": "https://another.example"},
    "peer.activate": {"verification": "x"},
    "peer.update": {"base_url": "https://another.example"},
    "grant.approve": {"terms_digest": "0" * 64, "reason": "x"},
    "grant.amend": {"expires_at": "2099-01-01T00:00:00Z", "reason": "x"},
    "grant.narrow": {"expires_at": "2099-01-01T00:00:00Z", "reason": "x"},
    "scope.validate": {"scope": {}},
    "enrollment-token.issue": {},
    "certificate.renew": {"csr": "x"},
    "certificate.revoke": {"reason": "x"},
    "certificate.revoke-many": {"key_digest": "0" * 64, "reason": "x"},
    "operator.register": {"kind": "person", "roles": ["auditor"]},
    "operator.roles": {"roles": ["auditor"]},
    "operator.disable": {},
    "credential.issue": {},
    "credential.revoke": {},
    "policy.change": {"approval_days": 7},
}


def test_every_operation_is_in_the_matrix() -> None:
    assert {row.name for row in OPERATIONS} == MATRIX.keys()


def test_the_matrix(place: House) -> None:
    """Every operation by every role, on objects that exist, as a dry run where it would append."""
    tokens = {
        "admin": place.admin,
        "approver": place.approver,
        **{role: place.operator(role) for role in ROLES[2:]},
    }
    ids = _objects(place)
    wrong = []
    for row in OPERATIONS:
        for number, role in enumerate(ROLES):
            said = MATRIX[row.name]
            if said == TOKEN:
                continue
            expected = said == PUBLIC or said.split()[number] == "yes"
            answer = place.call(
                row.name,
                _BODIES.get(row.name, {"reason": "x"}) if row.body else None,
                token=tokens[role],
                query="dry_run=true" if row.rehearsable else "",
                **{name: ids[name] for name in row.parameters},
            )
            assert answer.status_code < 500, (row.name, role, answer.text)
            if (answer.status_code != 403) is not expected:
                wrong.append((row.name, role, answer.status_code))
    assert wrong == []


def test_a_peer_may_what_the_matrix_says_and_only_with_what_is_its_own(place: House) -> None:
    ids = _objects(place)
    mine, theirs = (place.grant(place.peer(name)["id"]) for name in ("Mine", "Theirs"))
    certificate, other = place.holder(mine["id"]), place.holder(theirs["id"])
    own = ids | {"grant_id": mine["id"], "serial": serial_of(certificate)}
    foreign = ids | {"grant_id": theirs["id"], "serial": serial_of(other)}
    wrong = []
    for row in OPERATIONS:
        said = MATRIX[row.name]
        if said in {TOKEN, PUBLIC}:
            continue
        for of, objects in (("own", own), ("foreign", foreign)):
            answer = place.call(
                row.name,
                _BODIES.get(row.name, {"reason": "x"}) if row.body else None,
                certificate=certificate,
                query="dry_run=true" if row.rehearsable else "",
                **{name: objects[name] for name in row.parameters},
            )
            assert answer.status_code < 500, (row.name, of, answer.text)
            refused = answer.status_code if answer.status_code in {403, 404} else None
            hidden = 404 if row.parameters and of == "foreign" else None
            if refused != (403 if said.split()[-1] == "-" else hidden):
                wrong.append((row.name, of, answer.status_code))
    assert wrong == []


def _objects(place: House) -> dict[str, object]:
    peer = place.peer()
    grant = place.grant(peer["id"], "credentials")
    operator = place.ok("operator.register", {"kind": "machine", "roles": ["gateway"]})
    place.ok("credential.issue", {}, operator_id=operator["id"])
    listed = place.ok("credential.list", operator_id=operator["id"])["items"]
    return {
        "peer_id": peer["id"],
        "grant_id": grant["id"],
        "operator_id": operator["id"],
        "accessor": listed[0]["accessor"],
        "serial": "4" + "0" * 31,
        "position": 1,
        "id": grant["id"],
        "alarm_id": grant["id"],
    }


def test_without_a_credential_only_the_public_operations_answer(place: House) -> None:
    ids = _objects(place)
    for row in OPERATIONS:
        path = row.url(**{name: ids[name] for name in row.parameters})
        place.seconds.now += 60  # or the throttle would answer before long
        answer = place.client.simulate_request(row.method, path, body=b"")
        public = MATRIX[row.name] == PUBLIC
        if MATRIX[row.name] != TOKEN:
            assert (answer.status_code != 401) is public, (row.name, answer.status_code)


def test_an_approver_is_made_and_unmade_by_approvers_only(place: House) -> None:
    wanted = {"kind": "person", "roles": ["approver"]}
    assert place.call("operator.register", wanted, token=place.admin).status_code == 403
    made = place.ok("operator.register", wanted, token=place.approver)
    for name, body in (
        ("operator.roles", {"roles": ["auditor"]}),
        ("operator.disable", {}),
        ("credential.issue", {}),
    ):
        refused = place.call(name, body, token=place.admin, operator_id=made["id"])
        assert refused.status_code == 403, (name, refused.text)
    place.ok("operator.disable", {}, token=place.approver, operator_id=made["id"])


def test_nobody_holds_both_admin_and_approver(place: House) -> None:
    both = {"kind": "person", "roles": ["admin", "approver"]}
    for token in (place.admin, place.approver):
        assert place.call("operator.register", both, token=token).status_code in {403, 409}


def test_after_a_clone_alarm_only_an_approver_resumes(place: House) -> None:
    """The door lets both in; which of them may is the rules' word, told here by a plain resume."""
    grant = place.grant(place.peer()["id"])
    place.ok("grant.suspend", {"reason": "x"}, grant_id=grant["id"])
    assert (
        place.call(
            "grant.resume", {"reason": "x"}, token=place.approver, grant_id=grant["id"]
        ).status_code
        == 403
    )
    place.ok("grant.resume", {"reason": "x"}, grant_id=grant["id"])


def test_without_four_eyes_an_admin_approves(place: House) -> None:
    grant = place.grant(place.peer()["id"], "credentials")
    approval = {"terms_digest": grant["terms_digest"], "reason": "alone here"}
    place.ok("policy.change", {"four_eyes": False}, token=place.approver)
    approved = place.ok("grant.approve", approval, grant_id=grant["id"])
    assert approved["status"] == "pending_enrollment"


def test_denials_are_recorded_and_bounded(place: House) -> None:
    auditor = place.operator("auditor")
    for _ in range(25):
        place.call("peer.register", {"name": "x", "base_url": "https://x.example"}, token=auditor)
    place.parts.denials.flush(everything=True)
    found = place.ok("event.list", query="topic=call.denied.v1&limit=100")["items"]
    counts = [event["body"]["data"]["count"] for event in found]
    assert counts == [1] * 10 + [15]
    assert json.dumps(found).count(auditor) == 0
