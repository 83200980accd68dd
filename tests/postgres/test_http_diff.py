"""Two moments compared: what appeared, changed and ended between them, and which events did it."""

from datetime import timedelta
from typing import Any

from support.http import House, csr

REASON = {"reason": "a test"}


def position(place: House) -> int:
    return place.parts.services.ledger.record.head().size


def diff(place: House, first: object, last: object, **more: object) -> list[dict[str, Any]]:
    query = "&".join(f"{name}={value}" for name, value in more.items())
    answer = place.ok("diff.list", query=f"from={first}&to={last}&{query}")
    return list(answer["items"])


def by_id(items: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {one["id"]: one for one in items}


def test_what_appeared_changed_and_ended(place: House) -> None:
    peer = place.peer()["id"]
    grant = place.grant(peer)["id"]
    begin = position(place)
    serial = place.enroll(place.token(grant), csr()).json["serial"]
    other = place.grant(peer)["id"]
    middle = position(place)
    place.ok("peer.update", {"base_url": "https://new.example"}, peer_id=peer)
    place.ok("grant.revoke", REASON, grant_id=grant)
    end = position(place)

    first = by_id(diff(place, begin, middle))
    assert first.keys() == {serial, grant, other}
    assert (first[serial]["kind"], first[serial]["change"]) == ("certificate", "appeared")
    assert first[serial]["fields"]["standing"] == {"before": None, "after": "good"}
    assert first[grant]["change"] == "changed"
    assert first[grant]["fields"]["status"] == {"before": "pending_enrollment", "after": "active"}
    assert [one["topic"] for one in first[grant]["events"]] == [
        "enrollment-token.issued.v1", "enrollment-token.redeemed.v1", "issuance.authorized.v1",
        "certificate.issued.v1", "grant.activated.v1",
    ]  # fmt: skip
    assert first[other]["change"] == "appeared"
    assert [one["topic"] for one in first[other]["events"]] == ["grant.proposed.v1"]

    second = by_id(diff(place, middle, end))
    assert second.keys() == {serial, grant, peer}
    assert {one["change"] for one in (second[serial], second[grant])} == {"ended"}
    assert second[peer] == {
        "kind": "peer",
        "id": peer,
        "change": "changed",
        "fields": {"base_url": {"before": "https://peer.example", "after": "https://new.example"}},
        "events": [{"position": middle + 1, "topic": "peer.updated.v1"}],
    }
    assert diff(place, end, end) == []


def test_a_suspended_peer_changes_its_grants_and_the_clock_ends_one(place: House) -> None:
    peer = place.peer()["id"]
    end = (place.clock() + timedelta(seconds=10)).isoformat().replace("+00:00", "Z")
    short = place.grant(peer, expires_at=end)["id"]
    long = place.grant(peer)["id"]
    before = position(place)
    place.ok("peer.suspend", REASON, peer_id=peer)
    found = by_id(diff(place, before, before + 1))
    assert found.keys() == {short, long, peer}
    assert found[long]["fields"] == {
        "status": {"before": "pending_enrollment", "after": "suspended"}
    }
    assert found[long]["events"] == [{"position": before + 1, "topic": "peer.suspended.v1"}]

    at = place.clock().isoformat().replace("+00:00", "Z")
    place.clock.ahead += timedelta(seconds=12)
    later = place.clock().isoformat().replace("+00:00", "Z")
    assert diff(place, at, later) == [
        {
            "kind": "grant",
            "id": short,
            "change": "ended",
            "fields": {"status": {"before": "suspended", "after": "expired"}},
            "events": [],
        }
    ]


def test_pages_and_kinds(place: House) -> None:
    begin = position(place)
    peer = place.peer()["id"]
    made = sorted(place.grant(peer)["id"] for _ in range(5))
    end = position(place)
    whole = diff(place, begin, end)
    assert [one["id"] for one in whole] == [*made, peer]
    assert [one["id"] for one in diff(place, begin, end, kind="peer")] == [peer]
    paged: list[dict[str, Any]] = []
    query = f"from={begin}&to={end}&limit=2"
    cursor = ""
    while True:
        answer = place.ok("diff.list", query=query + cursor)
        assert len(answer["items"]) <= 2
        paged += answer["items"]
        if answer["next"] is None:
            break
        cursor = f"&cursor={answer['next']}"
    assert paged == whole


def test_moments_that_cannot_be_compared(place: House) -> None:
    for query, code in (
        ("from=5&to=2", "combination"),
        ("from=1&to=99999", "as-of"),
        ("from=1&to=2999-01-01T00:00:00Z", "as-of"),
        ("from=yesterday&to=3", "invalid"),
        ("from=2026-99-99T00:00:00Z&to=3", "invalid"),
        ("to=3", "invalid"),
        ("from=1&to=3&cursor=AAAA", "cursor"),
    ):
        answer = place.call("diff.list", token=place.admin, query=query)
        assert (answer.status_code, answer.json["code"]) == (422, code), query
        if code == "as-of":
            assert answer.json["errors"][0]["parameter"] == "to"
