"""The issuance cycle with a step-ca that lies, refuses or loses its answers: a fake one, of ours."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from ca.csr import key_digest
from ca.profile import SigningOrder, certificate_builder, der_utf8, tbs_sha256
from ledger.errors import MisIssuedError, UnavailableError
from ledger.grant_state import Grant, Issuance, IssuanceState
from ledger.issuance import revocation_of
from ledger.peers import Peer
from projections import certificates
from support import csrs
from support.databases import Database
from support.fake_step_ca import FakeStepCa, fake_step_ca
from support.live import Live

pytestmark = pytest.mark.postgres

CSR = csrs.request(csrs.ec_key())


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeStepCa]:
    with fake_step_ca(tmp_path) as fake:
        yield fake


@pytest.fixture
def live(database: Database, fake: FakeStepCa, tmp_path: Path) -> Iterator[Live]:
    authority = replace(fake.authority(tmp_path / "authority"), _pause=lambda seconds: None)
    with Live.open(database, tmp_path, authority=authority) as live:
        yield live
    authority.close()


def the_issuance(live: Live, grant: Grant) -> Issuance:
    (issuance,) = live.state(grant).issuances.values()
    return issuance


def changed(**changes: object) -> Callable[[SigningOrder], SigningOrder]:
    return lambda order: replace(order, **changes)  # type: ignore[arg-type]


def with_another_key(order: SigningOrder) -> SigningOrder:
    other = csrs.ec_key(1)
    return replace(order, csr_der=csrs.request(other), key_digest=key_digest(other.public_key()))


def with_another_value(order: SigningOrder) -> SigningOrder:
    (grant, _), user = order.extensions
    return replace(order, extensions=((grant, der_utf8("another")), user))


WRONG: dict[str, Callable[[SigningOrder], SigningOrder]] = {
    "another key": with_another_key,
    "another serial": changed(serial="5" * 32),
    "an extension missing": lambda order: replace(order, extensions=order.extensions[:1]),
    "an extension altered": with_another_value,
    "a longer validity": lambda order: replace(order, not_after=order.not_after + timedelta(1)),
    "another name": changed(san_uri="urn:uuid:0d9cb46e-5a0c-4a39-9d4e-0b6f5f1a7c11"),
}


def assert_recorded_revoked_and_withheld(live: Live, fake: FakeStepCa) -> None:
    grant = live.grant(live.peer())
    with pytest.raises(MisIssuedError):
        live.redeem(live.token(grant), CSR)
    (der,) = fake.issued()
    (event,) = live.events("certificate.mis-issued")
    assert event.data.certificate == der  # type: ignore[attr-defined]
    assert live.topics()[-3:] == ["certificate.mis-issued", "certificate.revoked", "alarm.raised"]
    issuance = the_issuance(live, grant)
    assert (issuance.state, issuance.mis_issued) == (IssuanceState.FAILED, True)
    peer = live.ledger.load(Peer, grant.peer_id)
    assert peer is not None
    assert revocation_of(issuance, live.state(grant), peer, live.clock()) is not None
    with live.read() as connection:
        assert certificates.by_tbs_sha256(connection, tbs_sha256(der)) is None


@pytest.mark.parametrize("what", WRONG)
def test_another_certificate_than_ordered(live: Live, fake: FakeStepCa, what: str) -> None:
    honest = fake.sign
    fake.sign = lambda order: honest(WRONG[what](order))  # type: ignore[method-assign]
    assert_recorded_revoked_and_withheld(live, fake)


def test_a_certificate_for_servers(live: Live, fake: FakeStepCa) -> None:
    def for_servers(order: SigningOrder) -> bytes:
        builder = certificate_builder(order, fake.issuer.certificate)
        usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        builder._extensions = [
            x509.Extension(usages.oid, False, usages) if one.oid == usages.oid else one
            for one in builder._extensions
        ]
        return builder.sign(fake.issuer.key, hashes.SHA256()).public_bytes(Encoding.DER)

    fake.sign = for_servers  # type: ignore[method-assign]
    assert_recorded_revoked_and_withheld(live, fake)


def test_junk_in_the_place_of_a_certificate_is_kept_as_it_came(
    live: Live, fake: FakeStepCa
) -> None:
    fake.faults.append(b'{"crt": "no certificate"}')
    with pytest.raises(MisIssuedError):
        live.redeem(live.token(live.grant(live.peer())), CSR)
    (event,) = live.events("certificate.mis-issued")
    assert event.data.certificate == b"no certificate"  # type: ignore[attr-defined]


@pytest.mark.parametrize("status", [400, 401, 403, 500, 501])
def test_a_final_no_is_recorded_with_its_status(live: Live, fake: FakeStepCa, status: int) -> None:
    grant = live.grant(live.peer())
    token = live.token(grant)
    fake.faults.append(status)
    with pytest.raises(UnavailableError) as caught:
        live.redeem(token, CSR)
    assert caught.value.code == "issuance-failed"
    (event,) = live.events("issuance.failed")
    assert event.data.status == status  # type: ignore[attr-defined]
    assert live.redeem(token, CSR).serial != event.data.serial  # type: ignore[attr-defined]


@pytest.mark.parametrize("fault", [502, 503, 504, "lost", "cut"])
def test_no_answer_in_three_tries_leaves_it_open_for_the_same_serial(
    live: Live, fake: FakeStepCa, fault: int | str
) -> None:
    grant = live.grant(live.peer())
    token = live.token(grant)
    fake.faults.extend([fault] * 3)
    with pytest.raises(UnavailableError) as caught:
        live.redeem(token, CSR)
    assert caught.value.code == "authority-unavailable"
    assert the_issuance(live, grant).open
    assert live.redeem(token, CSR).serial == the_issuance(live, grant).serial
    assert len({tbs_sha256(der) for der in fake.issued()}) == 1
