"""The issuance cycle on the real server: enrolled, killed half-way, mis-issued, down, and closed."""

import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from ca.orders import signing_order
from ca.profile import DEFAULT_ARC, check_certificate, read_der_utf8, tbs_sha256
from ca.reconciler import PATIENCE
from ca.step_ca import StepCaAuthority
from ledger.errors import InvalidError, MisIssuedError, UnavailableError
from ledger.grant_state import Grant, GrantStatus, Issuance, IssuanceState
from projections import certificates
from support import csrs, dying
from support.databases import Database
from support.live import Live, all_at_once
from support.step_ca import StepCa, step_ca, with_template

pytestmark = pytest.mark.step_ca

CSR = csrs.request(csrs.ec_key())
ROOT = Path(__file__).parents[2]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StepCa]:
    with step_ca(tmp_path) as server:
        yield server


@pytest.fixture
def live(database: Database, server: StepCa, tmp_path: Path) -> Iterator[Live]:
    authority = replace(server.authority(tmp_path / "ca"), _pause=lambda seconds: None)
    now = datetime.now(UTC)  # noqa: TID251 - the server has its own clock
    with Live.open(database, tmp_path, authority=authority, now=now) as live:
        yield live
    authority.client.close()


def the_issuance(live: Live, grant: Grant) -> Issuance:
    (issuance,) = live.state(grant).issuances.values()
    return issuance


def test_enrolled_renewed_and_answered_again_with_the_same(live: Live, server: StepCa) -> None:
    grant = live.grant(live.peer())
    token = live.token(grant)
    enrolled = live.redeem(token, CSR)
    issuance = the_issuance(live, grant)
    certificate = x509.load_der_x509_certificate(enrolled.certificate)
    assert certificate.serial_number == int(issuance.serial, 16)
    values = {
        one.oid.dotted_string: one.value.value
        for one in certificate.extensions
        if isinstance(one.value, x509.UnrecognizedExtension)
    }
    assert read_der_utf8(values[f"{DEFAULT_ARC}.1"]) == str(grant.id)
    assert read_der_utf8(values[f"{DEFAULT_ARC}.2"]) == "u:1"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [one.value for one in names] == [f"urn:uuid:{grant.id}"]
    assert live.redeem(token, CSR).certificate == enrolled.certificate
    assert len(server.issued()) == 1
    assert live.state(grant).status is GrantStatus.ACTIVE


def test_a_request_with_names_never_reaches_the_authority(live: Live, server: StepCa) -> None:
    names = x509.SubjectAlternativeName([x509.DNSName("a.example")])
    csr = csrs.request(csrs.ec_key(), extensions=[(names, False)])
    with pytest.raises(InvalidError) as caught:
        live.redeem(live.token(live.grant(live.peer())), csr)
    assert caught.value.code == "csr-names"
    assert server.issued() == []


def test_eight_at_once_with_one_token_get_one_certificate(live: Live, server: StepCa) -> None:
    token = live.token(live.grant(live.peer()))
    outcomes = all_at_once([lambda: live.redeem(token, CSR)] * 8)
    enrolled = [one for one in outcomes if not isinstance(one, UnavailableError)]
    assert enrolled
    assert len({one.certificate for one in enrolled}) == 1  # type: ignore[union-attr]
    assert len({tbs_sha256(der) for der in server.issued()}) == 1


def test_down_it_stays_open_and_the_peer_s_retry_closes_it(live: Live, server: StepCa) -> None:
    grant = live.grant(live.peer())
    token = live.token(grant)
    server.kill()
    with pytest.raises(UnavailableError) as caught:
        live.redeem(token, CSR)
    assert caught.value.code == "authority-unavailable"
    assert the_issuance(live, grant).open
    server.start()
    assert live.redeem(token, CSR).serial == the_issuance(live, grant).serial


def test_restarted_in_the_middle_the_reconciler_closes_it_by_its_serial(
    live: Live, server: StepCa
) -> None:
    grant = live.grant(live.peer())

    def power_cut(step: str) -> None:
        if step == "1-authorized":
            server.kill()

    with pytest.raises(UnavailableError):
        live.cycle(at_step=power_cut).redeem(live.stranger(), live.token(grant), CSR)  # type: ignore[arg-type]
    server.start()
    live.clock.later(seconds=PATIENCE.total_seconds())
    assert live.reconciler().run_once(live.clock()).done == {"issued": 1}
    assert the_issuance(live, grant).state is IssuanceState.ISSUED


def test_what_a_wrong_template_makes_is_recorded_revoked_and_never_delivered(
    live: Live, server: StepCa
) -> None:
    right = server.config.read_text()
    server.configure(with_template(lambda text: text.replace('"clientAuth"', '"serverAuth"')))
    server.restart()
    grant = live.grant(live.peer())
    token = live.token(grant)
    with pytest.raises(MisIssuedError):
        live.redeem(token, CSR)
    (der,) = server.issued()
    (event,) = live.events("certificate.mis-issued")
    assert event.data.certificate == der  # type: ignore[attr-defined]
    assert live.topics()[-3:] == ["certificate.mis-issued", "certificate.revoked", "alarm.raised"]
    with live.read() as connection:
        assert certificates.by_tbs_sha256(connection, tbs_sha256(der)) is None
    server.config.write_text(right)
    server.restart()
    assert live.redeem(token, CSR).serial != the_first(live, grant).serial
    live.reconciler().run_once(live.clock())
    (told,) = live.events("certificate.authority-told")
    assert (told.data.serial, told.data.answer) == (the_first(live, grant).serial, "confirmed")  # type: ignore[attr-defined]


def the_first(live: Live, grant: Grant) -> Issuance:
    return next(iter(live.state(grant).issuances.values()))


def test_a_final_no_is_on_record_with_its_status_and_a_hint(live: Live, server: StepCa) -> None:
    server.configure(with_template(lambda text: "{{ fail `not today` }}" + text))
    server.restart()
    grant = live.grant(live.peer())
    with pytest.raises(UnavailableError) as caught:
        live.redeem(live.token(grant), CSR)
    assert caught.value.code == "issuance-failed"
    (event,) = live.events("issuance.failed")
    assert event.data.status == 400  # type: ignore[attr-defined]
    assert "not today" in event.data.detail  # type: ignore[attr-defined]
    assert server.issued() == []


STEPS = ["1-authorized", "answer lost", "2-signed", "3-checked", "4-recorded"]


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_a_step_the_reconciler_closes_it(
    live: Live, server: StepCa, tmp_path: Path, step: str
) -> None:
    """The crash matrix of tests/postgres/test_issuance_crash.py, once, on the real server."""
    grant = live.grant(live.peer())
    signed = tmp_path / "signed"
    signed.touch()
    errand = dying.Errand(
        dsn=live.database.service_dsn, authority=str(tmp_path / "ca"), signed=str(signed),
        now=live.clock().isoformat(), token=live.token(grant), csr=b64encode(CSR).decode(),
        step=step,
    )  # fmt: skip
    ended = subprocess.run(
        [sys.executable, "-P", dying.__file__, errand.to_json()],
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}, capture_output=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode == -9, ended.stderr.decode()
    before = [bytes.fromhex(line) for line in signed.read_text().split()]
    assert len(before) == (0 if step == "1-authorized" else 1)
    assert the_issuance(live, grant).open == (step != "4-recorded")
    live.clock.later(seconds=PATIENCE.total_seconds())
    live.reconciler().run_once(live.clock())
    closed = the_issuance(live, grant)
    assert closed.state is IssuanceState.ISSUED
    assert isinstance(live.authority, StepCaAuthority)
    assert closed.certificate is not None
    order, chain = signing_order(closed.authorization), live.authority.chain()
    extra = live.authority.extra_extensions
    assert check_certificate(closed.certificate, order, chain, allowed_extra_oids=extra) == ()
    # ECDSA is not deterministic there: what was lost differs in its signature and in nothing else.
    assert {tbs_sha256(der) for der in server.issued()} == {closed.tbs_sha256}
