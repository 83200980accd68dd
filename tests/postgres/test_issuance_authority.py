"""What the cycle makes of an authority that returns something else, loses the answer or refuses."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ca.authority import AuthorityRefused, AuthorityUnavailable
from ca.csr import key_digest
from ca.issuance import RETRY_AFTER, Enrolled
from ca.local import LocalAuthority
from ca.profile import SigningOrder, der_utf8
from ledger.errors import MisIssuedError, UnavailableError
from ledger.grant_state import Grant, Issuance, IssuanceState
from ledger.issuance import revocation_of
from ledger.peers import Peer
from projections import alarms, certificates
from support import csrs
from support.databases import Database
from support.live import Live, all_at_once
from support.signers import Fake, Sign, honest, losing_the_answer

pytestmark = pytest.mark.postgres

CSR = csrs.request(csrs.ec_key())
OTHER_CSR = csrs.request(csrs.ec_key(1))


@pytest.fixture
def live(database: Database, tmp_path: Path) -> Iterator[Live]:
    with Live.open(database, tmp_path) as live:
        yield live


def signing(change: Callable[[SigningOrder], SigningOrder]) -> Sign:
    """An authority that signs another order than it was given."""
    return lambda authority, order: honest(authority, change(order))


def with_key(order: SigningOrder) -> SigningOrder:
    return replace(order, csr_der=OTHER_CSR, key_digest=key_digest(csrs.ec_key(1).public_key()))


def with_other_serial(order: SigningOrder) -> SigningOrder:
    return replace(order, serial=f"{int(order.serial, 16) ^ 1:032x}")


def with_another_bit(authority: LocalAuthority, order: SigningOrder) -> bytes:
    der = honest(authority, order)
    return der[:-1] + bytes([der[-1] ^ 1])


def with_extension(order: SigningOrder) -> SigningOrder:
    return replace(order, extensions=(*order.extensions, ("1.3.6.1.4.1.99999.3", der_utf8("x"))))


def with_other_value(order: SigningOrder) -> SigningOrder:
    (grant, _), user = order.extensions
    return replace(order, extensions=((grant, der_utf8("another grant")), user))


MINUTE = timedelta(minutes=1)
WRONG: dict[str, Sign] = {
    "serial": signing(with_other_serial),
    "not before": signing(lambda order: replace(order, not_before=order.not_before - MINUTE)),
    "not after": signing(lambda order: replace(order, not_after=order.not_after + MINUTE)),
    "shorter": signing(lambda order: replace(order, not_after=order.not_after - MINUTE)),
    "subject": signing(lambda order: replace(order, common_name="Somebody Else")),
    "san": signing(lambda order: replace(order, san_uri="urn:uuid:" + "0" * 8)),
    "key": signing(with_key),
    "one extension more": signing(with_extension),
    "one extension less": signing(lambda order: replace(order, extensions=order.extensions[:1])),
    "an extension's value": signing(with_other_value),
    "nothing": lambda authority, order: b"",
    "garbage": lambda authority, order: b"\x30\x03\x02\x01\x01",
    "a request": lambda authority, order: order.csr_der,
    "its own certificate": lambda authority, order: authority.chain()[0],
    "something after it": lambda authority, order: honest(authority, order) + b"\x00",
    "one bit": with_another_bit,
}


def only_issuance(live: Live, grant: Grant) -> Issuance:
    (issuance,) = live.state(grant).issuances.values()
    return issuance


def counts_as_revoked(live: Live, grant: Grant, issuance: Issuance) -> bool:
    peer = live.ledger.load(Peer, grant.peer_id)
    assert peer is not None
    return revocation_of(issuance, live.state(grant), peer, live.clock()) is not None


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_certificate_is_recorded_revoked_and_never_delivered(live: Live, what: str) -> None:
    grant = live.grant(live.peer())
    token = live.token(grant)
    returned = []

    def answer(authority: LocalAuthority, order: SigningOrder) -> bytes:
        returned.append(WRONG[what](authority, order))
        return returned[-1]

    cycle = live.cycle(Fake(live.authority, answer))
    with pytest.raises(MisIssuedError) as caught:
        cycle.redeem(live.stranger(), token, CSR)
    assert caught.value.code == "mis-issued"
    assert live.topics()[-3:] == ["certificate.mis-issued", "certificate.revoked", "alarm.raised"]
    (event,) = live.events("certificate.mis-issued")
    assert event.data.certificate == returned[0]  # type: ignore[attr-defined]
    issuance = only_issuance(live, grant)
    assert (issuance.state, issuance.mis_issued) == (IssuanceState.FAILED, True)
    assert counts_as_revoked(live, grant, issuance)
    with live.read() as connection:
        row = certificates.by_serial(connection, issuance.serial)
        (alarm,) = alarms.page(connection, open_only=True, limit=9)
    assert row is not None
    assert row.certificate is None
    assert (alarm.kind, issuance.serial in alarm.about) == ("mis-issued", True)
    enrolled = live.redeem(token, CSR)  # the authority was mended: a new serial
    assert enrolled.serial != issuance.serial


def test_a_certificate_of_another_authority_is_mis_issued(live: Live, tmp_path: Path) -> None:
    other = LocalAuthority.create(tmp_path / "other", name="Test", now=live.clock())
    token = live.token(live.grant(live.peer()))
    fake = Fake(live.authority, lambda _, order: honest(other, order))
    with pytest.raises(MisIssuedError):
        live.cycle(fake).redeem(live.stranger(), token, CSR)


def test_the_chain_on_record_counts_and_not_what_the_authority_says(
    live: Live, tmp_path: Path
) -> None:
    other = LocalAuthority.create(tmp_path / "other", name="Test", now=live.clock())

    class Impostor(Fake):
        def chain(self) -> tuple[bytes, ...]:
            return other.chain()

    token = live.token(live.grant(live.peer()))
    fake = Impostor(live.authority, lambda _, order: honest(other, order))
    with pytest.raises(MisIssuedError):
        live.cycle(fake).redeem(live.stranger(), token, CSR)


def test_a_lost_answer_leaves_it_open_and_the_retry_gets_the_same_certificate(live: Live) -> None:
    grant = live.grant(live.peer())
    token = live.token(grant)
    fake = Fake(live.authority, losing_the_answer(2))
    cycle = live.cycle(fake)
    for _ in range(2):
        with pytest.raises(UnavailableError) as caught:
            cycle.redeem(live.stranger(), token, CSR)
        assert caught.value.code == "authority-unavailable"
        assert caught.value.facts["retry_after"] == RETRY_AFTER
        assert only_issuance(live, grant).open
    enrolled = cycle.redeem(live.stranger(), token, CSR)
    assert len(set(map(repr, fake.asked))) == 1, "the same order each time"
    assert enrolled.serial == fake.asked[0].serial
    assert enrolled.certificate == honest(live.authority, fake.asked[0])


def test_a_final_refusal_closes_it_and_the_same_request_starts_anew(live: Live) -> None:
    grant = live.grant(live.peer())
    token = live.token(grant)

    def refuse(authority: LocalAuthority, order: SigningOrder) -> bytes:
        raise AuthorityRefused(403, "not by my policy")

    with pytest.raises(UnavailableError) as caught:
        live.cycle(Fake(live.authority, refuse)).redeem(live.stranger(), token, CSR)
    assert caught.value.code == "issuance-failed"
    failed = only_issuance(live, grant)
    assert (failed.state, failed.failure) == (IssuanceState.FAILED, "not by my policy")
    (event,) = live.events("issuance.failed")
    assert event.data.status == 403  # type: ignore[attr-defined]
    assert counts_as_revoked(live, grant, failed)
    enrolled = live.redeem(token, CSR)
    assert enrolled.serial != failed.serial
    assert len(live.state(grant).issuances) == 2


def test_an_authority_that_was_never_adopted_gets_no_order(live: Live, tmp_path: Path) -> None:
    stranger = LocalAuthority.create(tmp_path / "other", name="Test", now=live.clock())
    token = live.token(live.grant(live.peer()))
    size = len(live.events())
    with pytest.raises(UnavailableError) as caught:
        live.cycle(stranger).redeem(live.stranger(), token, CSR)
    assert caught.value.code == "authority-unavailable"
    assert len(live.events()) == size


def test_no_transaction_is_open_while_the_authority_signs(live: Live) -> None:
    grant = live.grant(live.peer())
    token = live.token(grant)
    found: list[Any] = []

    def look(authority: LocalAuthority, order: SigningOrder) -> bytes:
        with live.read() as connection:
            query = """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                       AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
                       AND backend_type = 'client backend'"""  # autovacuum may pass by
            found.append(connection.execute(query).fetchone())
        return honest(authority, order)

    live.cycle(Fake(live.authority, look)).redeem(live.stranger(), token, CSR)
    assert found == [(0,)]


def test_several_that_drive_one_issuance_all_answer_with_the_record(live: Live) -> None:
    grant = live.grant(live.peer())
    token = live.token(grant)
    fake = Fake(live.authority, losing_the_answer(1))
    cycle = live.cycle(fake)
    with pytest.raises(UnavailableError):
        cycle.redeem(live.stranger(), token, CSR)
    issuance = only_issuance(live, grant)
    outcomes = all_at_once([partial(cycle.drive, live.call(), grant.id, issuance.id)] * 8)
    answers = [one for one in outcomes if isinstance(one, Enrolled)]
    assert len(answers) == 8, outcomes
    assert len({one.certificate for one in answers}) == 1
    assert sum(not one.replayed for one in answers) == 1
    assert len(live.events("certificate.issued")) == 1


def test_a_wrong_answer_that_comes_after_the_right_one_is_on_record_too(live: Live) -> None:
    grant = live.grant(live.peer())
    token = live.token(grant)

    def late_and_wrong(authority: LocalAuthority, order: SigningOrder) -> bytes:
        live.redeem(token, CSR)  # the peer's retry, which another process answers
        return WRONG["not after"](authority, order)

    cycle = live.cycle(Fake(live.authority, late_and_wrong))
    enrolled = cycle.redeem(live.stranger(), token, CSR)
    assert enrolled.replayed
    assert enrolled.certificate == only_issuance(live, grant).certificate
    (event,) = live.events("certificate.found-unknown")
    assert event.data.serial == enrolled.serial  # type: ignore[attr-defined]
    assert event.data.certificate != enrolled.certificate  # type: ignore[attr-defined]
    with live.read() as connection:
        assert alarms.is_open_about(connection, "mis-issued", enrolled.serial)


def test_a_timeout_of_the_authority_is_passed_on(live: Live) -> None:
    seen: list[float] = []

    class Patient(Fake):
        def sign(self, order: SigningOrder, *, timeout: float) -> bytes:
            seen.append(timeout)
            raise AuthorityUnavailable("out of time")

    token = live.token(live.grant(live.peer()))
    with pytest.raises(UnavailableError):
        live.cycle(Patient(live.authority)).redeem(live.stranger(), token, CSR)
    assert seen == [10.0]
