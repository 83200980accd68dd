"""A provisioner's key is stolen, and certificates are minted behind the ledger's back: found, once."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from ca.discovery import Discovery, discover
from ca.profile import order_extensions, tbs_sha256
from ca.step_ca import StepCaAuthority
from ledger.errors import NotFoundError
from ledger.events import Actor
from projections import alarms, certificates
from support import csrs
from support.authority_contract import TIMEOUT
from support.databases import Database
from support.live import Live
from support.step_ca import StepCa, step_ca

pytestmark = pytest.mark.step_ca


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StepCa]:
    with step_ca(tmp_path) as server:
        yield server


@pytest.fixture
def live(database: Database, server: StepCa, tmp_path: Path) -> Iterator[Live]:
    authority = server.authority(tmp_path / "authority")
    now = datetime.now(UTC)  # noqa: TID251 - the server has its own clock
    with Live.open(database, tmp_path, authority=authority, now=now) as live:
        yield live
    authority.client.close()


@pytest.fixture
def thief(server: StepCa, tmp_path: Path) -> Iterator[StepCaAuthority]:
    """Somebody with a copy of the provisioner's key and its password."""
    thief = server.authority(tmp_path / "stolen")
    yield thief
    thief.client.close()


def look(live: Live, server: StepCa) -> Discovery:
    lines = server.log.read_text().splitlines()
    return discover(live.ledger, live.read, live.call, lines, server.log.name)


def test_minted_with_a_stolen_key_it_is_found_alarming_and_refused(
    live: Live, server: StepCa, thief: StepCaAuthority
) -> None:
    grant = live.grant(live.peer())
    ours = live.redeem(live.token(grant), csrs.request(csrs.ec_key()))
    now = live.clock()
    # One for the same grant under a serial of its own, and one under the serial of ours.
    wanted = csrs.order(csrs.request(csrs.ec_key(1)), now)
    extensions = order_extensions(str(grant.id), "u:1")
    wanted = replace(wanted, san_uri=f"urn:uuid:{grant.id}", extensions=extensions)
    minted = [
        thief.sign(order, timeout=TIMEOUT)
        for order in (wanted, replace(wanted, serial=ours.serial))
    ]
    found = look(live, server)
    assert [one.signed.der for one in found.unknown] == minted
    assert all(one.new for one in found.unknown)
    assert found.seen["known"] == 1
    assert found.seen["foreign"] == 0
    facts = [event.data for event in live.events("certificate.found-unknown")]
    assert [(fact.serial, fact.certificate) for fact in facts] == [  # type: ignore[attr-defined]
        (wanted.serial, minted[0]),
        (ours.serial, minted[1]),
    ]
    with live.read() as connection:
        open_alarms = alarms.page(connection, open_only=True, limit=9)
        assert {(one.kind, one.about[1]) for one in open_alarms} == {
            ("found-unknown", wanted.serial),
            ("found-unknown", ours.serial),
        }
        # Neither is known when it is presented, not even the one with our serial.
        for der in minted:
            assert certificates.by_tbs_sha256(connection, tbs_sha256(der)) is None
        assert certificates.by_tbs_sha256(connection, tbs_sha256(ours.certificate)) is not None
    actor = Actor(kind="peer", id=str(grant.peer_id), auth="certificate", credential=wanted.serial)
    with pytest.raises(NotFoundError):
        live.cycle().renew(live.call(actor), wanted.serial, csrs.request(csrs.ec_key(2)))
    # Again, nothing happens.
    assert [one.new for one in look(live, server).unknown] == [False, False]
    assert len(live.events("alarm.raised")) == 2


def test_what_the_ledger_ordered_is_no_finding_however_it_ended(live: Live, server: StepCa) -> None:
    grant = live.grant(live.peer())
    live.redeem(live.token(grant), csrs.request(csrs.ec_key()))
    live.redeem(live.token(grant), csrs.request(csrs.ec_key(1)))
    live.ledger.revoke_grant(live.call(live.admin), grant.id)
    live.reconciler().run_once(live.clock())
    found = look(live, server)
    assert (found.unknown, found.seen["known"]) == ([], 2)
    assert live.events("alarm.raised") == []


def test_another_server_s_log_is_none_of_ours(live: Live, server: StepCa, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    with step_ca(tmp_path / "elsewhere") as other:
        authority = other.authority(tmp_path / "theirs")
        authority.sign(csrs.order(csrs.request(csrs.ec_key()), live.clock()), timeout=TIMEOUT)
        authority.client.close()
        found = look(live, other)
    assert (found.unknown, found.seen["foreign"]) == ([], 1)


def test_a_renewal_that_the_server_allows_all_the_same_is_found(
    live: Live, server: StepCa, tmp_path: Path
) -> None:
    """Somebody took `disableRenewal` away: the holder renews at the server, past the ledger."""
    import ssl

    import httpx
    from cryptography.hazmat.primitives.serialization import Encoding

    from ca.hierarchy import pkcs8

    def careless(document: dict[str, object]) -> None:
        text = json.dumps(document).replace('"disableRenewal": true', '"disableRenewal": false')
        document.update(json.loads(text))

    server.configure(careless)
    server.restart()
    key = csrs.ec_key()
    ours = live.redeem(live.token(live.grant(live.peer())), csrs.request(key))
    chain = [x509.load_der_x509_certificate(der) for der in (ours.certificate, ours.chain[0])]
    file = tmp_path / "client.pem"
    file.write_bytes(pkcs8(key) + b"".join(one.public_bytes(Encoding.PEM) for one in chain))
    context = ssl.create_default_context(cafile=server.directory / "certs" / "root_ca.crt")
    context.load_cert_chain(file)
    answer = httpx.post(f"{server.url}/1.0/renew", verify=context, trust_env=False)
    assert answer.status_code == 201, answer.text
    (unknown,) = look(live, server).unknown
    assert unknown.signed.path == "/1.0/renew"
