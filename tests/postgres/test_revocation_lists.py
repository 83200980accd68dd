"""Revocation lists: what is on them, that OpenSSL reads them so, and when a new one comes."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from api import list_checks, rotation, wiring
from api.rotation import Wish
from api.settings import Settings
from ca.local import LocalAuthority
from ledger.events import Actor
from ledger.grant_state import Grant
from ledger.issuance import revocation_of
from ledger.peers import Peer
from ledger.reading import Call
from support.databases import Database
from support.http import House, csr

pytestmark = pytest.mark.postgres

WHY = {"reason": "because"}
SYSTEM = Call(actor=Actor(kind="system", id="tests", auth="system"), correlation_id="tests")


def fetched(place: House, query: str = "") -> x509.CertificateRevocationList:
    answer = place.call("authority.crl", query=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/pkix-crl"
    return x509.load_der_x509_crl(answer.content)


def reasons(found: x509.CertificateRevocationList) -> dict[str, str]:
    """Serial → reason, `unspecified` where none is said."""
    said = {}
    for one in found:
        extensions = [extension.value for extension in one.extensions]
        reason = next((v.reason.value for v in extensions if isinstance(v, x509.CRLReason)), None)
        said[f"{one.serial_number:032x}"] = reason or "unspecified"
    return said


def number(found: x509.CertificateRevocationList) -> int:
    return found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def publish(place: House) -> int:
    return place.parts.services.lists.publish_due(place.clock())


def enrolled(place: House, grant: dict[str, Any]) -> dict[str, Any]:
    answer = place.enroll(place.token(grant["id"]), csr())
    assert answer.status_code == 200, answer.text
    return dict(answer.json)


def serial(place: House, grant: dict[str, Any]) -> str:
    return str(enrolled(place, grant)["serial"])


def published(place: House) -> list[dict[str, Any]]:
    return list(place.ok("event.list", query="topic=crl.published.v1&limit=100")["items"])


def authority_of(place: House) -> str:
    return LocalAuthority.open(place.home / "authority").id


@contextmanager
def another_process(place: House, database: Database) -> Iterator[wiring.Parts]:
    parts = wiring.compose(
        database.service_dsn, Settings(home=place.home, threads=2), clock=place.clock
    )
    try:
        yield parts
    finally:
        parts.close()


# ---- what is on it ----------------------------------------------------------------------------


def history_of_every_kind(place: House) -> dict[str, str]:
    """Certificates that ended in every way there is, and some that did not: serial → reason."""
    peers = [place.peer(name) for name in ("Steady", "Paused", "Gone")]
    steady, paused, gone = peers
    expected = {}
    for reason in ("unspecified", "keyCompromise", "superseded"):
        one = serial(place, place.grant(steady["id"]))
        place.ok("certificate.revoke", WHY | {"revocation_reason": reason}, serial=one)
        expected[one] = reason
    for verb, reason in (("suspend", "certificateHold"), ("revoke", "cessationOfOperation")):
        grant = place.grant(steady["id"])
        expected[serial(place, grant)] = reason
        expected[serial(place, grant)] = reason
        place.ok(f"grant.{verb}", WHY, grant_id=grant["id"])
    resumed = place.grant(steady["id"])
    serial(place, resumed)
    place.ok("grant.suspend", WHY, grant_id=resumed["id"])
    place.ok("grant.resume", WHY, grant_id=resumed["id"])
    serial(place, place.grant(steady["id"]))
    expected[serial(place, place.grant(paused["id"]))] = "certificateHold"
    expected[serial(place, place.grant(gone["id"]))] = "cessationOfOperation"
    place.ok("peer.suspend", WHY, peer_id=paused["id"])
    place.ok("peer.revoke", WHY | {"grants": "revoke"}, peer_id=gone["id"])
    return expected


def test_everything_that_counts_as_revoked_is_on_it_and_nothing_else(place: House) -> None:
    expected = history_of_every_kind(place)
    assert publish(place) == 1
    found = fetched(place)
    assert reasons(found) == expected
    (event,) = published(place)
    assert number(found) == event["position"]
    assert event["body"]["data"]["entries"] == len(expected)
    assert event["body"]["actor"]["kind"] == "system"


def test_it_says_of_every_certificate_what_the_rule_says(place: House) -> None:
    history_of_every_kind(place)
    publish(place)
    ledger, at = place.parts.services.ledger, fetched(place).last_update_utc
    listed = reasons(fetched(place))
    for row in place.ok("certificate.list", query="limit=500")["items"]:
        grant = ledger.load(Grant, UUID(row["grant_id"]))
        assert grant is not None
        peer, issuance = ledger.load(Peer, grant.peer_id), grant.issuance_of(row["serial"])
        assert peer is not None
        assert issuance is not None
        found = revocation_of(issuance, grant, peer, at)
        assert listed.get(row["serial"]) == (found.reason if found else None)


def test_openssl_refuses_what_is_on_it(place: House, tmp_path: Path) -> None:
    peer = place.peer()
    good, bad = (enrolled(place, place.grant(peer["id"])) for _ in range(2))
    place.ok("certificate.revoke", WHY, serial=bad["serial"])
    publish(place)
    pem = place.call("authority.crl", query="format=pem")
    assert pem.headers["content-type"] == "application/x-pem-file"
    assert x509.load_pem_x509_crl(pem.content) == fetched(place)
    issuing, root = x509.load_pem_x509_certificates(good["chain"].encode())
    files = {
        "root.pem": root.public_bytes(Encoding.PEM),
        "issuing.pem": issuing.public_bytes(Encoding.PEM),
        "list.pem": pem.content,
        "good.pem": good["certificate"].encode(),
        "bad.pem": bad["certificate"].encode(),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)

    def verify(name: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["openssl", "verify", "-x509_strict", "-crl_check", "-CAfile", "root.pem",
             "-untrusted", "issuing.pem", "-CRLfile", "list.pem", name],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip

    assert verify("good.pem").returncode == 0, verify("good.pem").stderr
    refused = verify("bad.pem")
    assert refused.returncode != 0
    assert "certificate revoked" in refused.stderr


def test_what_has_ended_is_left_out_and_makes_no_new_list(place: House) -> None:
    place.ok("policy.change", {"certificate_ttl": 3600}, token=place.approver)
    short = serial(place, place.grant(place.peer()["id"]))
    place.ok("policy.change", {"certificate_ttl": 86400}, token=place.approver)
    long = serial(place, place.grant(place.peer("Another")["id"]))
    for one in (short, long):
        place.ok("certificate.revoke", WHY, serial=one)
    publish(place)
    assert reasons(fetched(place)).keys() == {short, long}
    lists = place.parts.services.lists
    assert lists.publish_due(place.clock() + timedelta(hours=2)) == 0
    assert lists.publish_due(place.clock() + timedelta(hours=13)) == 1
    assert reasons(fetched(place)).keys() == {long}


# ---- when a new one comes ----------------------------------------------------------------------


def test_a_new_one_comes_with_a_change_and_with_nothing_else(place: House) -> None:
    grant = place.grant(place.peer()["id"])
    one = serial(place, grant)
    assert publish(place) == 1
    assert publish(place) == 0
    place.grant(place.peer("Another")["id"])  # the head moves, the list stays true
    assert publish(place) == 0
    numbers = []
    for verb, expected in (("suspend", {one: "certificateHold"}), ("resume", {})):
        place.ok(f"grant.{verb}", WHY, grant_id=grant["id"])
        assert publish(place) == 1
        assert reasons(fetched(place)) == expected
        numbers.append(number(fetched(place)))
    assert numbers == sorted(numbers)
    assert publish(place) == 0


def test_a_new_one_comes_at_half_of_its_life(place: House) -> None:
    lists = place.parts.services.lists
    publish(place)
    found = fetched(place)
    assert found.next_update_utc is not None
    assert found.next_update_utc - found.last_update_utc == timedelta(hours=24)
    assert lists.publish_due(place.clock() + timedelta(hours=11, minutes=59)) == 0
    assert lists.publish_due(place.clock() + timedelta(hours=12, seconds=1)) == 1


def test_a_round_of_maintenance_publishes(place: House) -> None:
    assert place.call("authority.crl").status_code == 404
    place.parts.maintenance.round()
    assert reasons(fetched(place)) == {}


# ---- a list that nobody renews -----------------------------------------------------------------


def test_a_list_that_falls_behind_is_seen_by_doctor_and_metrics(
    place: House, database: Database
) -> None:
    dsn = database.service_dsn

    begun = place.clock()

    def examined(later: timedelta) -> tuple[str, str]:
        with psycopg.connect(dsn, autocommit=True) as connection:
            found = list_checks.check(dsn, lambda: begun + later, lambda: nullcontext(connection))
        return found.status, found.detail

    grant = place.grant(place.peer()["id"])
    assert examined(timedelta(0))[0] == "ok"
    serial(place, grant)
    status, detail = examined(timedelta(0))
    assert (status, "ever published" in detail) == ("fail", True)
    publish(place)
    assert examined(timedelta(0)) == ("ok", "holds every certificate that counts as revoked")
    assert examined(timedelta(hours=17))[0] == "ok"
    assert examined(timedelta(hours=19))[0] == "warn"
    status, detail = examined(timedelta(hours=25))
    assert (status, "ended" in detail) == ("fail", True)
    begun = place.clock()
    place.ok("grant.revoke", WHY, grant_id=grant["id"])
    assert examined(timedelta(0))[0] == "ok"  # the next round of maintenance publishes it
    status, detail = examined(timedelta(hours=1))
    assert (status, detail.startswith("1 revoked certificates are not on")) == ("fail", True)
    place.clock.ahead = timedelta(hours=1)
    assert gauges(place) == [fetched_end(place), 1]
    place.clock.ahead = timedelta(0)
    publish(place)
    assert examined(timedelta(hours=1))[0] == "ok"
    assert gauges(place) == [fetched_end(place), 0]


def fetched_end(place: House) -> float:
    end = fetched(place).next_update_utc
    assert end is not None
    return end.timestamp()


def gauges(place: House) -> list[float]:
    text = place.call("metrics.show", token=place.admin).text
    wanted = ("crl_next_update_timestamp_seconds", "crl_unlisted_certificates")
    of = f'{{authority="{authority_of(place)}"}} '
    return [
        float(re.findall(f"^fedledger_{name}{of}(.+)$", text, re.MULTILINE)[0]) for name in wanted
    ]


# ---- several processes, several authorities ----------------------------------------------------


def test_every_process_gives_the_same_bytes_whatever_came_after(
    place: House, database: Database
) -> None:
    grants = [place.grant(place.peer(name)["id"]) for name in ("One", "Two")]
    serials = [serial(place, grant) for grant in grants]
    place.ok("grant.suspend", WHY, grant_id=grants[0]["id"])
    publish(place)
    said = place.call("authority.crl").content
    # What happened since is for the next list, also in the eyes of who has not seen this one made.
    place.ok("grant.resume", WHY, grant_id=grants[0]["id"])
    place.ok("grant.revoke", WHY, grant_id=grants[1]["id"])
    with another_process(place, database) as other:
        assert other.services.lists.latest().der == said
        assert other.services.lists.publish_due(place.clock()) == 1
        assert place.call("authority.crl").content == other.services.lists.latest().der
    assert reasons(fetched(place)) == {serials[1]: "cessationOfOperation"}


def test_of_two_processes_at_once_one_publishes(
    place: House, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with another_process(place, database) as other:
        ledger = place.parts.services.ledger
        publish_crl = ledger.publish_crl

        def late(*arguments: Any, **more: Any) -> Any:
            assert other.services.lists.publish_due(place.clock()) == 1
            return publish_crl(*arguments, **more)

        monkeypatch.setattr(ledger, "publish_crl", late)
        assert publish(place) == 0
    assert len(published(place)) == 1


def test_a_retired_authority_goes_on_until_its_last_certificate_has_ended(
    place: House, database: Database
) -> None:
    old = authority_of(place)
    grant = place.grant(place.peer()["id"])
    one = serial(place, grant)
    rotation.rotate(database.service_dsn, place.home, place.clock, Wish(reason="yearly"))
    place.ok("grant.revoke", WHY, grant_id=grant["id"])
    assert publish(place) == 2
    assert reasons(fetched(place)) == {}
    assert fetched(place).issuer != fetched(place, f"authority_id={old}").issuer
    assert reasons(fetched(place, f"authority_id={old}")) == {one: "cessationOfOperation"}
    assert place.parts.services.lists.publish_due(place.clock() + timedelta(days=2)) == 1


def test_who_signs_elsewhere_publishes_elsewhere(place: House) -> None:
    publish(place)
    local = authority_of(place)
    chain = LocalAuthority.open(place.home / "authority").chain()
    end = place.clock() + timedelta(days=100)
    place.parts.services.ledger.adopt_authority(SYSTEM, uuid4(), "step-ca", chain, end)
    answer = place.call("authority.crl")
    assert (answer.status_code, answer.json["code"]) == (404, "crl-by-authority")
    fetched(place, f"authority_id={local}")
    answer = place.call("authority.crl", query=f"authority_id={uuid4()}")
    assert (answer.status_code, answer.json["code"]) == (404, "not-found")


def test_without_the_key_nothing_is_signed(place: House, database: Database) -> None:
    publish(place)
    (place.home / "authority").rename(place.home / "elsewhere")
    with another_process(place, database) as other:
        assert other.services.lists.publish_due(place.clock() + timedelta(hours=13)) == 0
        place.client.app = other.app
        answer = place.call("authority.crl")
    assert (answer.status_code, answer.json["code"]) == (503, "authority-unavailable")
    assert answer.headers["retry-after"] == "10"
    (place.home / "elsewhere").rename(place.home / "authority")
