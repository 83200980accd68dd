"""Peers that present their client certificate: who is believed, what they see, and renewal."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from falcon.testing import Result, TestClient

from api import wiring
from api.client_certificates import believing
from api.settings import Settings
from ledger.grant_state import Grant
from support.aged import LONG_AGO, issued_before
from support.http import House, csr, handed_on, serial_of

pytestmark = pytest.mark.postgres

WHY = {"reason": "because"}


def ids(place: House, name: str, query: str = "", **more: Any) -> list[str]:
    """What a list shows: ids of grants, serials of certificates."""
    items = place.ok(name, query=query, **more)["items"]
    return [one.get("id") or one["serial"] for one in items]


def test_a_peer_sees_its_own_grants_and_certificates_and_no_others(place: House) -> None:
    mine, theirs = place.peer("Mine"), place.peer("Theirs")
    grants = [place.grant(mine["id"]) for _ in range(2)]
    other = place.grant(theirs["id"])
    first, second = (place.holder(one["id"]) for one in grants)
    foreign = place.holder(other["id"])
    me = {"certificate": first}
    # Of every grant of the peer, not only of the one this certificate is for; newest first.
    assert ids(place, "grant.list", **me) == [one["id"] for one in reversed(grants)]
    assert set(ids(place, "certificate.list", **me)) == {serial_of(first), serial_of(second)}
    for name in ("grant.list", "certificate.list"):
        assert ids(place, name, f"peer_id={theirs['id']}", **me) == []
        assert len(ids(place, name, f"peer_id={mine['id']}", **me)) == 2
    assert ids(place, "certificate.list", f"grant_id={other['id']}", **me) == []
    then = place.ok("event.list", query="newest_first=true&limit=1")["items"][0]["position"]
    for past in ("", f"as_of_position={then}"):
        for grant in grants:
            shown = place.ok("grant.show", query=past, grant_id=grant["id"], **me)
            assert shown["id"] == grant["id"]
        assert place.ok("certificate.status", query=past, serial=serial_of(second), **me)
        for name, path in (
            ("grant.show", {"grant_id": other["id"]}),
            ("grant.certificates", {"grant_id": other["id"]}),
            ("certificate.show", {"serial": serial_of(foreign)}),
            ("certificate.status", {"serial": serial_of(foreign)}),
        ):
            unknown = {key: value[:-2] + "00" for key, value in path.items()}
            answers = [place.call(name, query=past, **me, **each) for each in (path, unknown)]
            assert [answer.status_code for answer in answers] == [404, 404], name
            # What there is must look like what there is not.
            assert len({normalised(answer) for answer in answers}) == 1, name


def normalised(answer: Result) -> str:
    return f"{answer.status_code} {answer.text}".replace(answer.headers["x-request-id"], "<id>")


# ---- which certificates are believed --------------------------------------------------------


def altered(certificate: str) -> str:
    """The same TBSCertificate under a signature that was not made here."""
    der = bytearray(x509.load_pem_x509_certificate(certificate.encode()).public_bytes(Encoding.DER))
    der[-1] ^= 1
    return x509.load_der_x509_certificate(bytes(der)).public_bytes(Encoding.PEM).decode()


def of_authority(place: House) -> str:
    chain = place.call("authority.roots").text
    return chain[: chain.index("-----END CERTIFICATE-----\n") + 26]


BAD: dict[str, Callable[[House, dict[str, Any], str], str | None]] = {
    "none": lambda _place, _grant, _good: None,
    "garbage": lambda _place, _grant, _good: "garbage",
    "not DER": lambda _place, _grant, _good: ":AAAA:",
    "of the authority": lambda place, _grant, _good: handed_on(of_authority(place)),
    "another signature": lambda _place, _grant, good: handed_on(altered(good)),
    "twice": lambda _place, _grant, good: f"{handed_on(good)}, {handed_on(good)}",
    "revoked": lambda place, grant, _good: handed_on(revoked(place, grant)),
    "on hold": lambda place, grant, _good: handed_on(suspended(place, grant)),
    "its grant ended": lambda place, grant, _good: handed_on(ended(place, grant)),
}


def another(place: House, grant: dict[str, Any]) -> dict[str, Any]:
    return place.grant(grant["peer_id"])


def revoked(place: House, grant: dict[str, Any]) -> str:
    certificate = place.holder(another(place, grant)["id"])
    place.ok("certificate.revoke", WHY, serial=serial_of(certificate))
    return certificate


def suspended(place: House, grant: dict[str, Any]) -> str:
    own = another(place, grant)
    certificate = place.holder(own["id"])
    place.ok("grant.suspend", WHY, grant_id=own["id"])
    return certificate


def ended(place: House, grant: dict[str, Any]) -> str:
    own = another(place, grant)
    certificate = place.holder(own["id"])
    place.ok("grant.revoke", WHY, grant_id=own["id"])
    return certificate


def test_every_certificate_that_opens_nothing_gets_the_one_401(place: House) -> None:
    grant = place.grant(place.peer()["id"])
    good = place.holder(grant["id"])
    seen: dict[str, str] = {}

    def ask(kind: str, headers: dict[str, str]) -> None:
        place.seconds.now += 60  # or the throttle would answer before long
        seen[kind] = normalised(place.call("grant.list", headers=headers))

    for kind, make in BAD.items():
        header = make(place, grant, good)
        ask(kind, {"Client-Cert": header} if header else {})
    mine = {"Client-Cert": handed_on(good)}
    ask("beside a token", mine | {"Authorization": f"Bearer {place.admin}"})
    place.clock.ahead = timedelta(hours=24, seconds=1)
    ask("expired", mine)
    place.clock.ahead = -timedelta(minutes=2)
    ask("not yet", mine)
    place.clock.ahead = timedelta(0)
    assert len(set(seen.values())) == 1, seen
    assert seen["none"].startswith("401")
    assert place.call("grant.list", headers=mine).status_code == 200
    place.ok("peer.suspend", WHY, peer_id=grant["peer_id"])
    assert place.call("grant.list", headers=mine).status_code == 401
    place.ok("peer.resume", WHY, peer_id=grant["peer_id"])
    assert place.call("grant.list", headers=mine).status_code == 200


def test_without_the_setting_no_header_is_read(place: House) -> None:
    certificate = place.holder(place.grant(place.peer()["id"])["id"])
    parts = wiring.compose(place.dsn, Settings(home=place.home, threads=2), clock=place.clock)
    try:
        # Even if the server told of it, which it does not then: nobody would listen.
        for app in (parts.app, believing(parts.app, "127.0.0.1", "client-cert")):
            place.client = TestClient(app)
            assert place.call("grant.list", certificate=certificate).status_code == 401
    finally:
        parts.close()


# ---- renewal --------------------------------------------------------------------------------


def old(place: House, request: str) -> tuple[dict[str, Any], str]:
    """A grant and a certificate of it in the last third of its life."""
    begun = (place.clock() - LONG_AGO).isoformat()
    grant = place.grant(place.peer()["id"], not_before=begun)
    enrolled = issued_before(place.dsn, place.home, place.token(grant["id"]), request)
    certificate = x509.load_der_x509_certificate(enrolled.certificate)
    return grant, certificate.public_bytes(Encoding.PEM).decode()


def renewed(place: House, certificate: str, request: str, serial: str | None = None) -> Result:
    return place.call(
        "certificate.renew",
        {"csr": request},
        certificate=certificate,
        serial=serial or serial_of(certificate),
    )


def test_a_certificate_is_renewed_by_who_holds_it(place: House) -> None:
    first_request, request = csr(), csr()
    grant, first = old(place, first_request)
    same_key = renewed(place, first, first_request)
    assert (same_key.status_code, same_key.json["code"]) == (409, "key-not-new")
    answer = renewed(place, first, request)
    assert answer.status_code == 200, answer.text
    second = answer.json["certificate"]
    again = renewed(place, first, request)
    assert (again.json, again.headers["idempotent-replayed"]) == (answer.json, "true")
    told = place.ok("certificate.show", certificate=second, serial=serial_of(second))
    assert (told["kind"], told["generation"], told["predecessor"]) == (
        "renewal", 2, serial_of(first),
    )  # fmt: skip
    # The predecessor works on to its own end; each renews itself only.
    for certificate in (first, second):
        assert place.call("grant.list", certificate=certificate).status_code == 200
    assert renewed(place, second, csr(), serial_of(first)).status_code == 404
    early = renewed(place, second, csr())
    assert (early.status_code, early.json["code"]) == (409, "renewal-too-early")
    assert early.json["renew_after"] > place.clock().isoformat()
    event = place.ok("event.list", query="topic=issuance.authorized.v1&newest_first=true&limit=1")
    actor = event["items"][0]["body"]["actor"]
    assert (actor["kind"], actor["auth"]) == ("peer", "certificate")
    assert (actor["id"], actor["credential"]) == (grant["peer_id"], serial_of(first))


def test_two_who_renew_one_certificate_are_a_clone(place: House) -> None:
    grant, first = old(place, csr())
    second = renewed(place, first, csr()).json["certificate"]
    refused = renewed(place, first, csr())
    assert (refused.status_code, refused.json["code"]) == (403, "clone-suspected")
    assert place.ok("grant.show", grant_id=grant["id"])["status"] == "suspended"
    assert [one["kind"] for one in place.ok("alarm.list")["items"]] == ["clone-suspected"]
    state = place.parts.services.ledger.load(Grant, UUID(grant["id"]))
    assert state is not None
    assert state.clone_suspected
    # Whoever of the two comes again hears it again, and gets nothing else meanwhile.
    again = renewed(place, first, csr())
    assert (again.status_code, again.json["code"]) == (403, "clone-suspected")
    held = renewed(place, second, csr())
    assert (held.status_code, held.json["code"]) == (409, "grant-suspended")
    for certificate in (first, second):
        assert place.call("grant.list", certificate=certificate).status_code == 401
