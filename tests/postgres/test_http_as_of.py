"""What the interface says of a moment later is what it said at that moment."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from api.operations import OPERATIONS
from support.http import House, csr

LISTS = (
    ("peer.list", {}),
    ("grant.list", {}),
    ("grant.list", {"status": "active"}),
    ("grant.list", {"status": "expired"}),
    ("grant.list", {"status": "suspended"}),
    ("grant.list", {"status": "pending_approval"}),
    ("grant.list", {"sensitive": "true"}),
    ("certificate.list", {}),
    ("certificate.list", {"state": "issued"}),
    ("operator.list", {}),
    ("alarm.list", {}),
    ("policy.show", {}),
)


def query_of(filters: dict[str, str]) -> str:
    return "&".join(f"{name}={value}" for name, value in filters.items())


@dataclass
class Diary:
    """Everything the interface says after each step, to be compared with what it says later."""

    place: House
    grants: set[str] = field(default_factory=set)
    peers: set[str] = field(default_factory=set)
    serials: set[str] = field(default_factory=set)
    pages: list[tuple[datetime, int, dict[Any, Any]]] = field(default_factory=list)

    def said(self, **moment: str) -> dict[Any, Any]:
        answers: dict[Any, Any] = {}

        def ask(name: str, filters: dict[str, str], **path: object) -> None:
            answer = self.place.call(
                name, token=self.place.admin, query=query_of(filters | moment), **path
            )
            key = (name, query_of(filters), *map(str, path.values()))
            answers[key] = (answer.status_code, answer.json if answer.status_code < 300 else None)

        for name, filters in LISTS:
            ask(name, dict(filters))
        for grant in sorted(self.grants):
            ask("grant.show", {}, grant_id=grant)
            ask("grant.certificates", {}, grant_id=grant)
            ask("enrollment-token.list", {}, grant_id=grant)
            ask("grant.history", {}, grant_id=grant)
        for peer in sorted(self.peers):
            ask("peer.show", {}, peer_id=peer)
        for serial in sorted(self.serials):
            ask("certificate.show", {}, serial=serial)
            ask("certificate.status", {}, serial=serial)
        return answers

    def write(self) -> None:
        at = self.place.clock()
        answers = self.said()
        position = self.place.parts.services.ledger.record.head().size
        self.pages.append((at, position, answers))


def play(place: House) -> Diary:
    """A short history with everything that changes what a moment looks like."""
    diary = Diary(place)
    diary.write()
    peer = place.peer("Example Peer")["id"]
    diary.peers.add(peer)
    diary.write()
    end = (place.clock() + timedelta(seconds=12)).isoformat()
    short = place.grant(peer, expires_at=end.replace("+00:00", "Z"))["id"]
    grant = place.grant(peer)["id"]
    secret = place.grant(peer, "credentials")
    diary.grants |= {short, grant, secret["id"]}
    diary.write()
    enrolled = place.enroll(place.token(grant), csr())
    diary.serials.add(enrolled.json["serial"])
    diary.write()
    reasoned = {"reason": "a test"}
    terms = reasoned | {"terms_digest": secret["terms_digest"]}
    place.ok("grant.approve", terms, token=place.approver, grant_id=secret["id"])
    diary.write()
    place.ok("peer.suspend", reasoned, peer_id=peer)
    diary.write()
    place.clock.ahead += timedelta(seconds=14)  # the short grant ends by the clock alone
    diary.write()
    place.ok("peer.resume", reasoned, peer_id=peer)
    place.ok("grant.suspend", reasoned, grant_id=grant)
    diary.write()
    place.ok("policy.change", reasoned | {"required_approvals": 2}, token=place.approver)
    diary.write()
    place.ok("grant.resume", reasoned, grant_id=grant)
    place.ok("grant.revoke", reasoned, grant_id=grant)
    diary.write()
    return diary


def test_a_moment_is_told_later_as_it_was_told_then(place: House) -> None:
    diary = play(place)
    known = (diary.grants, diary.peers, diary.serials)
    for at, _, answers in diary.pages:
        asked = {key[2] for key in answers if len(key) > 2}
        diary.grants, diary.peers, diary.serials = ({*one} & asked for one in known)
        text = at.isoformat().replace("+00:00", "Z")
        assert diary.said(as_of=text) == answers
    # By position it is judged at the time that was recorded: the last page had no later expiry.
    _, position, answers = diary.pages[-1]
    diary.grants, diary.peers, diary.serials = known
    assert diary.said(as_of_position=str(position)) == answers


def test_what_was_not_there_yet_is_not_found(place: House) -> None:
    before = place.parts.services.ledger.record.head().size
    peer = place.peer()["id"]
    grant = place.grant(peer)["id"]
    query = f"as_of_position={before}"
    # No other answer than for what never came to be: that is not for everybody to know.
    for one in (peer, str(uuid4())):
        answer = place.call("peer.show", token=place.admin, query=query, peer_id=one)
        assert answer.status_code == 404
        assert answer.json["detail"].startswith("nothing had this id at that moment")
    for name in ("grant.show", "grant.history", "grant.certificates"):
        answer = place.call(name, token=place.admin, query=query, grant_id=grant)
        assert answer.status_code == 404, name
    answer = place.call("grant.list", token=place.admin, query=query)
    assert (answer.json["items"], answer.headers["ledger-position"]) == ([], str(before))
    accessor = place.token(grant).split("_")[1]
    for moment, status in (("", 200), (query, 404), ("", 200)):  # asked by a prepared statement
        answer = place.call(
            "enrollment-token.show", token=place.admin, query=moment, accessor=accessor
        )
        assert answer.status_code == status
    long_ago = place.call("peer.list", token=place.admin, query="as_of=2001-01-01T00:00:00Z")
    assert (long_ago.json["items"], long_ago.headers["ledger-position"]) == ([], "0")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("as_of=2999-01-01T00:00:00Z", "as-of"),
        ("as_of_position=999999", "as-of"),
        ("as_of_position=0", "invalid"),
        ("as_of=yesterday", "invalid"),
        ("as_of=2026-01-01T00:00:00Z&as_of_position=1", "combination"),
    ],
)
def test_moments_that_cannot_be_asked_for(place: House, query: str, code: str) -> None:
    for name in ("grant.list", "policy.show"):
        answer = place.call(name, token=place.admin, query=query)
        assert (answer.status_code, answer.json["code"]) == (422, code), name


def test_the_pages_of_a_past_stay_in_it(place: House) -> None:
    peer = place.peer()["id"]
    for _ in range(5):
        place.grant(peer)
    whole = place.ok("grant.list", query="limit=100")["items"]
    at = place.clock().isoformat().replace("+00:00", "Z")
    found: list[Any] = []
    query, cursor = f"as_of={at}&limit=2", ""
    while True:
        answer = place.call("grant.list", token=place.admin, query=query + cursor)
        found += answer.json["items"]
        place.grant(peer)
        place.ok("peer.update", {"base_url": f"https://{len(found)}.example"}, peer_id=peer)
        if answer.json["next"] is None:
            break
        assert f"as_of={at[:19].replace(':', '%3A')}" in answer.headers["link"]
        cursor = f"&cursor={answer.json['next']}"
    assert found == whole


def test_every_operation_that_shows_a_state_takes_a_moment() -> None:
    shown = {row.name for row in OPERATIONS if row.of_a_moment}
    assert shown == {
        "peer.list", "peer.show", "grant.list", "grant.show", "grant.history",
        "grant.certificates", "certificate.list", "certificate.show", "certificate.status",
        "enrollment-token.list", "enrollment-token.show", "authority.roots", "operator.list",
        "operator.show", "credential.list", "policy.show",
        "alarm.list",
    }  # fmt: skip
