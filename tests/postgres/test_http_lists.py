"""What holds for every list, tried with every one: filters that filter, pages that stay in place."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import pytest

from api.operation import Operation
from api.operations import BY_NAME, OPERATIONS
from api.wire import Page, PastPage
from ledger.events import Actor
from ledger.reading import Call
from support.http import House, csr

WHY = {"reason": "because"}
LISTS = [
    row
    for row in OPERATIONS
    if row.query is not None and issubclass(row.query, Page) and row.name != "diff.list"
]
# What differs between two moments is no list of one of them: test_http_diff.py.
every_list = pytest.mark.parametrize("row", LISTS, ids=lambda row: row.name)
every_filtered_list = pytest.mark.parametrize(
    "row", [row for row in LISTS if row.name != "about.show"], ids=lambda row: row.name
)


@dataclass
class Scene:
    """A list with things in it.

    path: of the list. some: filter → a value that some but not all of them have.
    none: filter → a value that none has. made: their keys, in the list's order. more: makes one
    more of them. key: the member that tells them apart.
    """

    some: dict[str, object]
    none: dict[str, object]
    made: list[object]
    more: Callable[[], object]
    key: str = "id"
    path: dict[str, str] = field(default_factory=dict)


def _time(place: House, **ahead: float) -> str:
    return (place.clock() + timedelta(**ahead)).isoformat().replace("+00:00", "Z")


def _peers(place: House) -> Scene:
    names = ["Alpha", "beta", "Delta", "gamma", "Omega"]
    made = [place.peer(name, active=name != "beta")["id"] for name in names]
    return Scene(
        some={"state": "pending", "name": "ALPHA"},
        none={"state": "revoked", "name": "Nobody"},
        made=made,
        # Before and behind what was read already: neither may move the rest.
        more=lambda: [place.peer(f"{first}{uuid4().hex}") for first in "AZ"],
    )


def _grants(place: House) -> Scene:
    one, two = place.peer("One"), place.peer("Two")
    made = [
        place.grant(one["id"], "tasks"),
        place.grant(one["id"], "credentials"),
        place.grant(two["id"], "notes", subject_user_id="u-9"),
        place.grant(one["id"], "notes", expires_at=_time(place, days=2)),
        place.grant(one["id"], "tasks"),
    ]
    return Scene(
        some={
            "status": "pending_approval", "peer_id": two["id"], "subject_user_id": "u-9",
            "resource": "notes", "sensitive": "true", "expires_before": _time(place, days=3),
        },
        none={
            "status": "rejected", "peer_id": uuid4(), "subject_user_id": "u-0",
            "resource": "memory", "expires_before": _time(place, days=1),
        },
        made=[one["id"] for one in reversed(made)],
        more=lambda: place.grant(one["id"]),
    )  # fmt: skip


def _certificates(place: House) -> Scene:
    one, two = place.peer("One"), place.peer("Two")
    grants = [
        place.grant(one["id"], "tasks"),
        place.grant(one["id"], "credentials"),
        place.grant(two["id"], "notes", subject_user_id="u-9"),
        place.grant(one["id"], "tasks", expires_at=_time(place, hours=2)),
    ]
    body = {"terms_digest": grants[1]["terms_digest"], **WHY}
    place.ok("grant.approve", body, token=place.approver, grant_id=grants[1]["id"])
    serials = [_enrolled(place, one) for one in grants]
    place.ok("certificate.revoke", WHY, serial=serials[0])
    return Scene(
        some={
            "grant_id": grants[1]["id"], "peer_id": two["id"], "subject_user_id": "u-9",
            "resource": "notes", "sensitive": "true", "state": "revoked",
            "key_digest": place.ok("certificate.show", serial=serials[2])["key_digest"],
            "expires_before": _time(place, hours=3),
        },
        none={
            "grant_id": uuid4(), "peer_id": uuid4(), "subject_user_id": "u-0",
            "resource": "memory", "state": "abandoned", "key_digest": "0" * 64,
            "expires_before": _time(place, hours=1),
        },
        made=serials[::-1],
        more=lambda: _enrolled(place, place.grant(one["id"])),
        key="serial",
    )  # fmt: skip


def _enrolled(place: House, grant: dict[str, Any]) -> str:
    return str(place.enroll(place.token(grant["id"]), csr()).json["serial"])


def _certificates_of_a_grant(place: House) -> Scene:
    grant = place.grant(place.peer(f"P{uuid4().hex}")["id"])
    place.ok("policy.change", {"certificate_ttl": 3600}, token=place.approver)
    serials = [_enrolled(place, grant)]
    place.ok("policy.change", {"certificate_ttl": 86400}, token=place.approver)
    serials += [_enrolled(place, grant) for _ in range(4)]
    place.ok("certificate.revoke", WHY, serial=serials[2])
    return Scene(
        some={"state": "revoked", "expires_before": _time(place, hours=2)},
        none={"state": "failed", "expires_before": _time(place, minutes=1)},
        made=serials[::-1],
        more=lambda: _enrolled(place, grant),
        key="serial",
        path={"grant_id": grant["id"]},
    )


def _tokens(place: House) -> Scene:
    grant = place.grant(place.peer(f"P{uuid4().hex}")["id"])
    path = {"grant_id": grant["id"]}

    def issue(ttl: int = 86400) -> str:
        return str(place.ok("enrollment-token.issue", {"ttl": ttl}, **path)["accessor"])

    made = [issue(3600), *(issue() for _ in range(4))]  # each cancels the one before
    return Scene(
        some={"state": "issued", "expires_before": _time(place, hours=2)},
        none={"state": "redeemed", "expires_before": _time(place, minutes=1)},
        made=made[::-1],
        more=issue,
        key="accessor",
        path=path,
    )


def _operators(place: House) -> Scene:
    def register(kind: str, role: str) -> str:
        made = place.ok("operator.register", {"kind": kind, "roles": [role]})
        return str(made["id"])

    made = [one["id"] for one in place.ok("operator.list")["items"]]
    made += [register("machine", "gateway"), register("person", "auditor")]
    place.ok("operator.disable", WHY, operator_id=made[-1])
    return Scene(
        some={"role": "gateway", "enabled": "false", "kind": "machine"},
        none={"role": "operator"},
        made=made,
        more=lambda: register("person", "auditor"),
    )


def _credentials(place: House) -> Scene:
    made = place.ok("operator.register", {"kind": "machine", "roles": ["gateway"]})
    path = {"operator_id": made["id"]}

    def issue(ttl: int = 86400) -> str:
        return str(place.ok("credential.issue", {"ttl": ttl}, **path)["accessor"])

    accessors = [issue(3600), *(issue() for _ in range(4))]
    place.ok("credential.revoke", WHY, accessor=accessors[1], **path)
    return Scene(
        some={"live": "true", "expires_before": _time(place, hours=2)},
        none={"expires_before": _time(place, minutes=1)},
        made=accessors[::-1],
        more=issue,
        key="accessor",
        path=path,
    )


def _alarms(place: House) -> Scene:
    call = Call(actor=Actor(kind="system", id="test", auth="system"), correlation_id="test")

    def ring(kind: str = "mis-issued", about: str = "x") -> str:
        ledger = place.parts.services.ledger
        return str(ledger.raise_alarm(call, kind, [about], "it did").value.id)

    made = [ring(), ring("token-replayed"), ring(about="y"), ring(), ring()]
    watch = place.operator("operator")
    place.ok("alarm.acknowledge", WHY, token=watch, alarm_id=made[0])
    return Scene(
        some={"open": "true", "kind": "token-replayed", "about": "y"},
        none={"kind": "nothing", "about": "z"},
        made=made[::-1],
        more=ring,
    )


def _events(place: House) -> Scene:
    peer = place.peer()
    place.ok("peer.suspend", {"reason": "Zu viel Verkehr"}, peer_id=peer["id"])
    reader = place.operator("auditor")
    place.ok("event.list", token=reader)  # which is recorded once; later readings are not
    place.ok("event.list")
    found = place.ok("event.list", query="limit=500")["items"]
    last = found[-1]
    return Scene(
        some={
            "stream": peer["id"], "topic": "peer.suspended.v1", "after": 3, "before": 4,
            "since": last["recorded_at"], "until": last["recorded_at"],
            "actor": last["body"]["actor"]["id"], "about": peer["id"],
            "correlation": last["body"]["correlation_id"], "words": "verkehr",
        },
        none={
            "stream": uuid4(), "topic": "peer.revoked.v1", "after": 10**6, "before": 1,
            "since": _time(place, days=1), "until": "2020-01-01T00:00:00Z",
            "actor": "nobody", "about": "nothing", "correlation": "none", "words": "anderes",
        },
        made=[one["position"] for one in found],
        more=lambda: place.peer(f"P{uuid4().hex}"),
        key="position",
    )  # fmt: skip


def _story(place: House) -> Scene:
    peer = place.peer(f"P{uuid4().hex}")
    for verb in ("suspend", "resume", "suspend"):
        place.ok(f"peer.{verb}", WHY, peer_id=peer["id"])
    found = place.ok("event.list", query=urlencode({"stream": peer["id"]}))["items"]
    return Scene(
        some={},  # a story is told whole
        none={},
        made=[one["position"] for one in found],
        more=lambda: place.peer(f"P{uuid4().hex}"),
        key="position",
        path={"id": peer["id"]},
    )


SCENES: dict[str, Callable[[House], Scene]] = {
    "peer.list": _peers,
    "grant.list": _grants,
    "enrollment-token.list": _tokens,
    "grant.certificates": _certificates_of_a_grant,
    "certificate.list": _certificates,
    "event.list": _events,
    "about.show": _story,
    "operator.list": _operators,
    "credential.list": _credentials,
    "alarm.list": _alarms,
}
# What chooses an order or has patience, but no part.
ORDER = {"newest_first", "wait"}


def test_every_list_has_its_scene() -> None:
    assert [row.name for row in LISTS] == list(SCENES)


@every_filtered_list
def test_every_filter_filters(place: House, row: Operation) -> None:
    scene = SCENES[row.name](place)
    assert row.query is not None
    filters = row.query.model_fields.keys() - PastPage.model_fields.keys() - ORDER
    assert scene.some.keys() == filters

    def listed(**chosen: object) -> list[object]:
        query = urlencode({"limit": 500} | chosen)
        return [one[scene.key] for one in place.ok(row.name, query=query, **scene.path)["items"]]

    everything = listed()
    assert [one for one in everything if one in scene.made] == scene.made
    for name, value in scene.some.items():
        found = listed(**{name: value})
        assert found, name
        assert len(found) < len(everything), name
        assert [one for one in everything if one in found] == found, name
    for name, value in scene.none.items():
        assert listed(**{name: value}) == [], name
    # All must hold: two filters find what both find.
    (first, one), (second, other) = [*scene.some.items(), *scene.some.items()][:2]
    both = [key for key in listed(**{first: one}) if key in listed(**{second: other})]
    assert listed(**{first: one, second: other}) == both


@pytest.mark.parametrize(
    ("row", "order"),
    [(row, "") for row in LISTS] + [(BY_NAME["event.list"], "&newest_first=true")],
    ids=lambda part: part.name if isinstance(part, Operation) else part,
)
def test_pages_keep_their_place_while_others_write(
    place: House, row: Operation, order: str
) -> None:
    scene = SCENES[row.name](place)
    expected = scene.made[::-1] if order else scene.made
    seen: list[object] = []
    query = f"limit=2{order}"
    for number in range(40):
        answer = place.call(row.name, token=place.admin, query=query, **scene.path)
        assert answer.status_code == 200, answer.text
        seen += [one[scene.key] for one in answer.json["items"]]
        if answer.json["next"] is None:
            assert "link" not in answer.headers
            break
        if number < 3:
            scene.more()
        link = answer.headers["link"]
        assert link.endswith('; rel="next"')
        query = link[link.index("?") + 1 : link.index(">")]
    assert len(seen) == len(set(seen))
    assert [one for one in seen if one in scene.made] == expected


@every_list
def test_a_cursor_fits_one_list_one_object_and_its_filters(place: House, row: Operation) -> None:
    scene = SCENES[row.name](place)
    listing = partial(place.call, row.name, token=place.admin, **scene.path)
    cursor = listing(query="limit=1").json["next"]
    assert listing(query=f"limit=2&cursor={cursor}").status_code == 200
    other_filters = [urlencode(dict([pair]) | {"cursor": cursor}) for pair in scene.some.items()]
    for wrong in (*other_filters, "cursor=AAAA"):
        answer = listing(query=wrong)
        assert (answer.status_code, answer.json["code"]) == (422, "cursor"), answer.text
    if scene.path:
        twin = SCENES[row.name](place)
        answer = place.call(
            row.name, token=place.admin, query=f"limit=1&cursor={cursor}", **twin.path
        )
        assert (answer.status_code, answer.json["code"]) == (422, "cursor")
    elsewhere = next(other for other in LISTS if other is not row and not other.parameters)
    answer = place.call(elsewhere.name, token=place.admin, query=f"cursor={cursor}")
    assert (answer.status_code, answer.json["code"]) == (422, "cursor")
