"""A process killed at any step of the cycle: whoever comes next closes what it left open."""

import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from ca.authority import AuthorityRefused, AuthorityUnavailable
from ca.local import LocalAuthority
from ca.profile import SigningOrder, tbs_sha256
from ca.reconciler import PATIENCE
from ledger.errors import GoneError, RefusedError, UnavailableError
from ledger.grant_state import Grant, GrantStatus, Issuance, IssuanceState
from ledger.issuance import revocation_of
from ledger.peers import Peer
from projections import certificates
from support import csrs, dying
from support.databases import Database
from support.fake_step_ca import fake_step_ca
from support.live import Live
from support.signers import Fake, losing_the_answer

pytestmark = pytest.mark.postgres

REQUESTS = [csrs.request(csrs.ec_key(number)) for number in range(3)]
CSR = REQUESTS[0]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> str:
    """Of the authority: local, unless a test asks for the other."""
    return str(getattr(request, "param", "local"))


@pytest.fixture
def live(database: Database, tmp_path: Path, kind: str) -> Iterator[Live]:
    if kind == "local":
        with Live.open(database, tmp_path) as live:
            yield live
        return
    with (
        fake_step_ca(tmp_path) as fake,
        closing(fake.authority(tmp_path / "ca")) as authority,
        Live.open(database, tmp_path, authority=authority) as live,
    ):
        yield live


def the_issuance(live: Live, grant: Grant) -> Issuance:
    (issuance,) = live.state(grant).issuances.values()
    return issuance


def killed_at(step: str, live: Live, token: str, folder: Path) -> list[bytes]:
    """Let a process redeem and be killed; return the certificates it had signed."""
    signed = folder / "signed"
    signed.touch()
    errand = dying.Errand(
        dsn=live.database.service_dsn,
        authority=str(folder / "ca"),
        signed=str(signed),
        now=live.clock().isoformat(),
        token=token,
        csr=b64encode(CSR).decode(),
        step=step,
    )
    ended = subprocess.run(
        [sys.executable, "-P", dying.__file__, errand.to_json()],
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        capture_output=True,
        timeout=60,
    )
    assert ended.returncode == -9, ended.stderr.decode()
    return [bytes.fromhex(line) for line in signed.read_text().split()]


def assert_all_are_known(live: Live, grant: Grant, signed: list[bytes]) -> None:
    """Every certificate that exists is on record, or its serial counts as revoked."""
    peer = live.ledger.load(Peer, grant.peer_id)
    assert peer is not None
    after = live.state(grant)
    for der in signed:
        with live.read() as connection:
            known = certificates.by_tbs_sha256(connection, tbs_sha256(der))
        revoked = [
            one
            for one in after.issuances.values()
            if bytes.fromhex(one.serial) in der
            and revocation_of(one, after, peer, live.clock()) is not None
        ]
        assert (known is not None and known.certificate == der) or revoked


STEPS = ["1-authorized", "answer lost", "2-signed", "3-checked", "4-recorded"]


@pytest.mark.parametrize("kind", ["local", "step-ca"], indirect=True)
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_a_step_the_reconciler_closes_it(live: Live, tmp_path: Path, step: str) -> None:
    grant = live.grant(live.peer())
    signed = killed_at(step, live, live.token(grant), tmp_path)
    assert len(signed) == (0 if step == "1-authorized" else 1)
    assert the_issuance(live, grant).open == (step != "4-recorded")
    assert live.reconciler().run_once(live.clock()).done == {}, "its caller may still be at work"
    live.clock.later(seconds=PATIENCE.total_seconds())
    report = live.reconciler().run_once(live.clock())
    assert report.done == ({} if step == "4-recorded" else {"issued": 1})
    closed = the_issuance(live, grant)
    assert closed.state is IssuanceState.ISSUED
    assert live.state(grant).status is GrantStatus.ACTIVE
    assert all(der == closed.certificate for der in signed)
    assert_all_are_known(live, grant, signed)


def test_killed_at_a_step_the_peer_s_retry_closes_it(live: Live, tmp_path: Path) -> None:
    grant = live.grant(live.peer())
    token = live.token(grant)
    (signed,) = killed_at("2-signed", live, token, tmp_path)
    assert live.redeem(token, CSR).certificate == signed
    assert len(live.state(grant).issuances) == 1


def test_killed_and_the_grant_revoked_it_is_abandoned_and_counts_as_revoked(
    live: Live, tmp_path: Path
) -> None:
    grant = live.grant(live.peer())
    signed = killed_at("answer lost", live, live.token(grant), tmp_path)
    live.ledger.revoke_grant(live.call(live.admin), grant.id)
    live.clock.later(minutes=2)
    assert live.reconciler().run_once(live.clock()).done == {"abandoned": 1}
    closed = the_issuance(live, grant)
    assert (closed.state, closed.failure) == (IssuanceState.ABANDONED, "grant-ended")
    assert_all_are_known(live, grant, signed)


# ---- the reconciler --------------------------------------------------------------------------


def left_open(live: Live, grant: Grant, *, number: int = 0) -> str:
    """Redeem with an authority that loses its answer; return the token."""
    token = live.token(grant)
    cycle = live.cycle(Fake(live.authority, losing_the_answer(1)))
    with pytest.raises(UnavailableError):
        cycle.redeem(live.stranger(), token, REQUESTS[number])
    return token


def test_nearly_over_it_is_abandoned(live: Live) -> None:
    grant = live.grant(live.peer(), hours=1)
    token = left_open(live, grant)
    live.clock.later(minutes=56)
    assert live.reconciler().run_once(live.clock()).done == {"abandoned": 1}
    assert the_issuance(live, grant).failure == "validity-nearly-over"
    with pytest.raises(RefusedError) as caught:
        live.redeem(token, CSR)
    assert caught.value.code == "grant-expiring"


def test_an_abandoned_issuance_is_not_completed_by_whoever_was_slow(live: Live) -> None:
    grant = live.grant(live.peer(), hours=1)
    token = left_open(live, grant)

    def slow(authority: LocalAuthority, order: SigningOrder) -> bytes:
        live.clock.later(minutes=56)
        assert live.reconciler().run_once(live.clock()).done == {"abandoned": 1}
        return authority.sign(order, timeout=1)

    with pytest.raises(UnavailableError) as caught:
        live.cycle(Fake(live.authority, slow)).redeem(live.stranger(), token, CSR)
    assert caught.value.code == "issuance-failed"
    assert the_issuance(live, grant).state is IssuanceState.ABANDONED
    assert not live.events("certificate.issued")


def test_suspended_meanwhile_it_is_completed_on_hold(live: Live) -> None:
    grant = live.grant(live.peer())
    left_open(live, grant)
    live.ledger.suspend_grant(live.call(live.admin), grant.id)
    live.clock.later(minutes=2)
    assert live.reconciler().run_once(live.clock()).done == {"withheld": 1}
    revocation = the_issuance(live, grant).revocation
    assert revocation is not None
    assert revocation.reason == "certificateHold"


def test_revoked_by_its_serial_meanwhile_it_is_abandoned(live: Live) -> None:
    grant = live.grant(live.peer())
    token = left_open(live, grant)
    serial = the_issuance(live, grant).serial
    live.ledger.revoke_certificate(live.call(live.admin), grant.id, serial, "keyCompromise", "x")
    live.clock.later(minutes=2)
    assert live.reconciler().run_once(live.clock()).done == {"abandoned": 1}
    with pytest.raises(RefusedError) as caught:
        live.redeem(token, CSR)
    assert caught.value.code == "key-compromised"


def test_an_authority_that_does_not_answer_is_asked_once_a_run(live: Live) -> None:
    peer = live.peer()
    for number in range(3):
        left_open(live, live.grant(peer), number=number)
    live.clock.later(minutes=2)

    def silent(authority: LocalAuthority, order: SigningOrder) -> bytes:
        raise AuthorityUnavailable("nobody there")

    fake = Fake(live.authority, silent)
    assert live.reconciler(fake).run_once(live.clock()).done == {"left-open": 3}
    assert len(fake.asked) == 1
    assert live.reconciler().run_once(live.clock()).done == {"issued": 3}


def test_a_refusal_and_a_wrong_answer_close_it(live: Live) -> None:
    peer = live.peer()
    for number in range(2):
        left_open(live, live.grant(peer), number=number)
    live.clock.later(minutes=2)
    refusals = iter([AuthorityRefused(403, "no")])

    def answer(authority: LocalAuthority, order: SigningOrder) -> bytes:
        if (refusal := next(refusals, None)) is not None:
            raise refusal
        return b"garbage"

    report = live.reconciler(Fake(live.authority, answer)).run_once(live.clock())
    assert report.done == {"failed": 1, "mis-issued": 1}


def test_one_that_cannot_be_finished_does_not_keep_the_others(live: Live) -> None:
    peer = live.peer()
    for number in range(2):
        left_open(live, live.grant(peer), number=number)
    live.clock.later(minutes=2)
    broken = iter([True])

    def answer(authority: LocalAuthority, order: SigningOrder) -> bytes:
        if next(broken, False):
            raise RuntimeError("a mistake of ours")
        return authority.sign(order, timeout=1)

    report = live.reconciler(Fake(live.authority, answer)).run_once(live.clock())
    assert report.done == {"errors": 1, "issued": 1}


def test_expired_grants_are_put_on_record(live: Live) -> None:
    peer = live.peer()
    grant, other = live.grant(peer, hours=1), live.grant(peer, hours=3)
    live.token(grant)
    live.clock.later(hours=2)
    assert live.reconciler().run_once(live.clock()).done == {"expired": 1}
    assert live.state(grant).status is GrantStatus.EXPIRED
    assert live.state(other).status is GrantStatus.PENDING_ENROLLMENT
    assert live.reconciler().run_once(live.clock()).done == {}


def test_one_reconciler_at_a_time(live: Live) -> None:
    left_open(live, live.grant(live.peer()))
    live.clock.later(minutes=2)
    inside = []

    def meanwhile(authority: LocalAuthority, order: SigningOrder) -> bytes:
        inside.append(live.reconciler().run_once(live.clock()))
        return authority.sign(order, timeout=1)

    report = live.reconciler(Fake(live.authority, meanwhile)).run_once(live.clock())
    assert [one.ran for one in inside] == [False]
    assert report.done == {"issued": 1}


def test_a_withheld_certificate_stays_withheld_for_the_retry(live: Live) -> None:
    grant = live.grant(live.peer())
    token = left_open(live, grant)
    live.ledger.suspend_grant(live.call(live.admin), grant.id)
    live.clock.later(minutes=2)
    live.reconciler().run_once(live.clock())
    live.ledger.resume_grant(live.call(live.admin), grant.id)
    with pytest.raises(GoneError):
        live.redeem(token, CSR)
    again = live.redeem(live.token(grant), csrs.request(csrs.ec_key(5)))
    assert again.not_after == live.clock() + timedelta(hours=24)
