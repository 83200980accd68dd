"""The issuance cycle on a real database with the real local authority."""

from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from uuid import UUID

import pytest
from cryptography import x509
from msgspec.structs import replace

from ca.issuance import Enrolled, Step
from ledger import bearer
from ledger.alarms import Alarm
from ledger.errors import (
    ForbiddenError,
    GoneError,
    InvalidError,
    NotFoundError,
    RefusedError,
    UnauthorizedError,
)
from ledger.events import Actor
from ledger.grant_state import Grant, GrantStatus, IssuanceState, TokenState
from projections import alarms, certificates
from support import csrs
from support.databases import Database
from support.given import SENSITIVE_SCOPE
from support.live import Live, all_at_once

pytestmark = pytest.mark.postgres

CSR = csrs.request(csrs.ec_key())


@pytest.fixture
def live(database: Database, tmp_path: Path) -> Iterator[Live]:
    with Live.open(database, tmp_path) as live:
        yield live


def open_alarms(live: Live) -> list[str]:
    with live.read() as connection:
        return [row.kind for row in alarms.page(connection, open_only=True, limit=50)]


def serials(live: Live, grant: Grant) -> list[str]:
    with live.read() as connection:
        return [row.serial for row in certificates.page(connection, grant_id=grant.id, limit=99)]


# ---- the ordinary way ------------------------------------------------------------------------


def test_a_token_and_a_csr_become_a_certificate_on_record(live: Live) -> None:
    grant = live.grant(live.peer("Example Peer"))
    before = len(live.events())
    enrolled = live.redeem(live.token(grant), CSR)
    assert live.topics()[before + 1 :] == [
        "enrollment-token.redeemed",
        "issuance.authorized",
        "certificate.issued",
        "grant.activated",
    ]
    after = live.state(grant)
    issuance = after.issuances[enrolled.issuance_id]
    assert (after.status, issuance.state) == (GrantStatus.ACTIVE, IssuanceState.ISSUED)
    assert (issuance.certificate, issuance.serial) == (enrolled.certificate, enrolled.serial)
    assert enrolled.chain == live.authority.chain()
    assert not enrolled.replayed
    certificate = x509.load_der_x509_certificate(enrolled.certificate)
    assert f"{certificate.serial_number:032x}" == enrolled.serial
    assert certificate.subject.rfc4514_string() == "CN=Example Peer"
    assert certificate.not_valid_after_utc == enrolled.not_after
    assert enrolled.not_after == live.clock() + timedelta(hours=24)


def test_the_events_say_that_the_peer_did_it_with_its_token(live: Live) -> None:
    peer = live.peer()
    text = live.token(live.grant(peer))
    live.redeem(text, CSR)
    for event in live.events("issuance.authorized", "certificate.issued"):
        assert event.actor == Actor(
            kind="peer",
            id=str(peer.id),
            auth="enrollment-token",
            credential=text.split("_")[1],
            source="192.0.2.1",
        )
    assert text not in str(live.events())


def test_the_same_token_and_csr_again_give_the_same_certificate(live: Live) -> None:
    token = live.token(live.grant(live.peer()))
    first = live.redeem(token, CSR)
    size = len(live.events())
    again = live.redeem(token, CSR)
    assert again.certificate == first.certificate
    assert again.replayed
    assert len(live.events()) == size, "an answer from the record writes nothing"


def test_the_same_token_and_csr_after_a_revocation_is_gone(live: Live) -> None:
    grant = live.grant(live.peer())
    token = live.token(grant)
    enrolled = live.redeem(token, CSR)
    live.ledger.revoke_certificate(live.call(), grant.id, enrolled.serial, "superseded", "test")
    with pytest.raises(GoneError) as caught:
        live.redeem(token, CSR)
    assert caught.value.code == "certificate-revoked"


def test_an_approved_sensitive_grant_enrolls(live: Live) -> None:
    grant = live.grant(live.peer(), SENSITIVE_SCOPE)
    assert live.redeem(live.token(grant), CSR).grant_id == grant.id


def test_a_certificate_never_outlives_its_grant(live: Live) -> None:
    grant = live.grant(live.peer(), hours=2)
    assert live.redeem(live.token(grant), CSR).not_after == grant.expires_at
    nearly_over = live.grant(live.peer("Other"), hours=1)
    token = live.token(nearly_over)
    live.clock.later(minutes=56)
    with pytest.raises(RefusedError) as caught:
        live.redeem(token, csrs.request(csrs.ec_key(1)))
    assert caught.value.code == "grant-expiring"


def test_an_answer_from_the_record_needs_no_five_minutes(live: Live) -> None:
    token = live.token(live.grant(live.peer(), hours=1))
    first = live.redeem(token, CSR)
    live.clock.later(minutes=57)
    assert live.redeem(token, CSR).certificate == first.certificate


# ---- many at once ----------------------------------------------------------------------------


def test_one_token_and_sixteen_csrs_give_one_certificate(live: Live) -> None:
    grant = live.grant(live.peer())
    token, cycle = live.token(grant), live.cycle()
    requests = [csrs.request(csrs.ec_key(number)) for number in range(16)]
    outcomes = all_at_once([partial(cycle.redeem, live.stranger(), token, csr) for csr in requests])
    won = [one for one in outcomes if isinstance(one, Enrolled)]
    lost = [one for one in outcomes if isinstance(one, UnauthorizedError)]
    assert (len(won), len(lost)) == (1, 15)
    assert {one.detail for one in lost} == {"enrollment token is not valid"}
    assert serials(live, grant) == [won[0].serial]
    assert open_alarms(live) == ["token-replayed"], "one alarm, however many come"


def test_sixteen_callers_with_one_csr_get_one_certificate(live: Live) -> None:
    grant = live.grant(live.peer())
    token, cycle = live.token(grant), live.cycle()
    outcomes = all_at_once([partial(cycle.redeem, live.stranger(), token, CSR)] * 16)
    assert all(isinstance(one, Enrolled) for one in outcomes), outcomes
    assert len({one.certificate for one in outcomes if isinstance(one, Enrolled)}) == 1
    assert len(serials(live, grant)) == 1
    assert len(live.events("certificate.issued")) == 1


def test_one_key_never_serves_two_grants(live: Live) -> None:
    peer = live.peer()
    cycle = live.cycle()
    made = [live.token(live.grant(peer)) for _ in range(2)]
    outcomes = all_at_once([partial(cycle.redeem, live.stranger(), one, CSR) for one in made])
    assert sorted(type(one).__name__ for one in outcomes) == ["Enrolled", "RefusedError"]
    (refused,) = [one for one in outcomes if isinstance(one, RefusedError)]
    assert refused.code == "key-taken"


# ---- strangers, and bad requests of friends --------------------------------------------------


def _causes(live: Live) -> list[str]:
    return [event.data.cause for event in live.events("enrollment.rejected")]  # type: ignore[attr-defined]


def test_whatever_is_wrong_with_a_token_the_answer_is_one_and_the_same(live: Live) -> None:
    peer = live.peer()
    grant = live.grant(peer)
    expired = live.token(live.grant(peer), ttl=timedelta(minutes=1))
    replaced = live.token(grant)
    used = live.token(grant)
    live.redeem(used, CSR)
    live.clock.later(minutes=2)
    other = csrs.request(csrs.ec_key(1))
    secret = "A" if used[22] != "A" else "B"
    wrong = used[:22] + secret + used[23:]
    texts = set()
    for token, request in [
        ("", other),
        ("fle_nonsense", other),
        (wrong, other),
        (expired, other),
        (replaced, other),
        (used, other),
        (used, b"no request at all"),
        (expired, b"no request at all"),
    ]:
        with pytest.raises(UnauthorizedError) as caught:
            live.redeem(token, request)
        texts.add((caught.value.code, caught.value.detail))
    assert len(texts) == 1
    assert _causes(live) == [
        "unknown-token",
        "unknown-token",
        "unknown-token",  # its checksum is wrong, so nobody minted it
        "token-expired",
        "token-cancelled",
        "token-replayed",
        "token-replayed",
        "token-expired",
    ]
    assert open_alarms(live) == ["token-replayed"]


def test_a_wrong_secret_is_noted_and_harms_nobody(live: Live) -> None:
    grant = live.grant(live.peer())
    token = live.token(grant)
    name = token.split("_")[1]
    drawn = iter([int(name, 36).to_bytes(16, "big"), b"\x07" * 32])
    forged = bearer.mint(bearer.BearerKind.ENROLLMENT, lambda count: next(drawn)).text
    assert forged.split("_")[1] == name
    cycle = live.cycle()
    for _ in range(12):
        with pytest.raises(UnauthorizedError):
            cycle.redeem(live.stranger(), forged, CSR)
    assert _causes(live) == ["wrong-secret"] * 10
    live.clock.later(minutes=1)
    for _ in range(10):  # nor is a stranger told what is wrong with his request, or can he lock
        with pytest.raises(UnauthorizedError):
            cycle.redeem(live.stranger(), forged, b"no request at all")
    summary = ["further-rejections"]
    assert _causes(live) == ["wrong-secret"] * 10 + summary + ["wrong-secret"] * 10
    assert live.redeem(token, CSR).grant_id == grant.id, "the token still works"


def test_a_bad_csr_with_the_right_secret_is_told_what_is_wrong_ten_times(live: Live) -> None:
    grant = live.grant(live.peer())
    token, cycle = live.token(grant), live.cycle()
    accessor = token.split("_")[1]
    version = live.state(grant).version
    for _ in range(9):
        with pytest.raises(InvalidError) as caught:
            cycle.redeem(live.stranger(), token, b"no request at all")
        assert caught.value.code == "csr-malformed"
        assert "PEM" in caught.value.detail
    assert live.state(grant).version == version, "failures are not in the grant's stream"
    with pytest.raises(InvalidError) as caught:
        cycle.redeem(live.stranger(), token, csrs.request(csrs.ec_key(), "Somebody Else"))
    assert caught.value.code == "csr-subject"
    assert live.state(grant).tokens[accessor].state is TokenState.LOCKED
    with pytest.raises(UnauthorizedError):
        cycle.redeem(live.stranger(), token, CSR)
    assert _causes(live) == ["csr-malformed"] * 9 + ["csr-subject", "token-locked"]


def test_sixteen_bad_csrs_at_once_lock_the_token_once(live: Live) -> None:
    grant = live.grant(live.peer())
    token, cycle = live.token(grant), live.cycle()
    all_at_once([partial(cycle.redeem, live.stranger(), token, b"bad")] * 16)
    assert len(live.events("enrollment-token.locked")) == 1


def test_the_wrong_pin_is_the_one_refusal_and_counts(live: Live) -> None:
    grant = live.grant(live.peer())
    token = live.token(grant, key_digest="ab" * 32)
    for _ in range(10):
        with pytest.raises(UnauthorizedError):
            live.redeem(token, CSR)
    assert len(live.events("enrollment-token.locked")) == 1
    assert _causes(live) == ["wrong-pin"] * 10


def test_a_stranger_cannot_fill_the_ledger(live: Live) -> None:
    cycle = live.cycle()
    for _ in range(25):
        with pytest.raises(UnauthorizedError):
            cycle.redeem(live.stranger(), "guess", CSR)
    with pytest.raises(UnauthorizedError):
        cycle.redeem(live.stranger("198.51.100.7"), "guess", CSR)
    assert _causes(live) == ["unknown-token"] * 11
    cycle.rejections.flush()
    assert len(_causes(live)) == 11, "the minute is not over"
    live.clock.later(seconds=61)
    cycle.rejections.flush()
    cycle.rejections.flush(everything=True)
    (*_, summary) = live.events("enrollment.rejected")
    assert len(_causes(live)) == 12
    assert (summary.data.cause, summary.data.count) == ("further-rejections", 15)  # type: ignore[attr-defined]
    assert summary.actor.source == "192.0.2.1"


# ---- between authorization and signature -----------------------------------------------------


def test_revoked_between_authorization_and_signature_is_withheld(live: Live) -> None:
    grant = live.grant(live.peer())
    token = live.token(grant)

    def revoke(step: Step) -> None:
        if step == "1-authorized":
            live.ledger.revoke_grant(live.call(live.admin), grant.id)

    with pytest.raises(GoneError) as caught:
        live.cycle(at_step=revoke).redeem(live.stranger(), token, CSR)
    assert caught.value.code == "revoked-in-flight"
    (issuance,) = live.state(grant).issuances.values()
    assert (issuance.state, issuance.certificate is not None) == (IssuanceState.ISSUED, True)
    assert issuance.revocation is not None
    assert issuance.revocation.reason == "cessationOfOperation"
    assert issuance.revocation.detail == "revoked-in-flight"
    with pytest.raises(GoneError):
        live.redeem(token, CSR)


def test_suspended_between_authorization_and_signature_is_on_hold(live: Live) -> None:
    grant = live.grant(live.peer())
    token = live.token(grant)

    def suspend(step: Step) -> None:
        if step == "2-signed":
            live.ledger.suspend_grant(live.call(live.admin), grant.id)

    with pytest.raises(RefusedError) as caught:
        live.cycle(at_step=suspend).redeem(live.stranger(), token, CSR)
    assert caught.value.code == "grant-suspended"
    (issuance,) = live.state(grant).issuances.values()
    assert issuance.revocation is not None
    assert issuance.revocation.reason == "certificateHold"


@pytest.mark.parametrize("step", ["1-authorized", "2-signed", "3-checked"])
def test_narrowed_meanwhile_below_the_certificate_is_withheld(live: Live, step: str) -> None:
    grant = live.grant(live.peer())
    first = live.redeem(live.token(grant), CSR)
    token = live.token(grant)

    def narrow(now: Step) -> None:
        if now == step:
            live.ledger.narrow_grant(
                live.call(live.admin), grant.id, expires_at=live.clock() + timedelta(hours=1)
            )

    with pytest.raises(GoneError):
        live.cycle(at_step=narrow).redeem(live.stranger(), token, csrs.request(csrs.ec_key(1)))
    after = live.state(grant)
    assert after.issuances[first.issuance_id].revocation is not None
    assert all(
        one.revocation is not None or one.not_after <= after.expires_at
        for one in after.issuances.values()
    )


def test_a_certificate_revoked_right_after_it_was_recorded_is_not_delivered(live: Live) -> None:
    grant = live.grant(live.peer())

    def revoke(step: Step) -> None:
        if step == "4-recorded":
            live.ledger.revoke_grant(live.call(live.admin), grant.id)

    with pytest.raises(GoneError):
        live.cycle(at_step=revoke).redeem(live.stranger(), live.token(grant), CSR)


def test_what_one_order_read_never_decides_the_next(live: Live) -> None:
    """A cycle remembers peer, policy and authority; what has moved since is read again."""
    cycle, peer = live.cycle(), live.peer()
    number = iter(range(9))

    def redeem(grant: Grant) -> Enrolled:
        request = csrs.request(csrs.ec_key(next(number)))
        return cycle.redeem(live.stranger(), live.token(grant), request)

    first, second, third = (live.grant(peer) for _ in range(3))
    redeem(first)
    live.ledger.suspend_peer(live.call(live.admin), peer.id)
    with pytest.raises(RefusedError):
        redeem(second)
    live.ledger.resume_peer(live.call(live.admin), peer.id)
    live.ledger.change_policy(live.call(live.approver), certificate_ttl=3600)
    enrolled = redeem(second)
    assert enrolled.not_after - live.clock() <= timedelta(hours=1)
    token = live.token(third)
    live.ledger.revoke_peer(
        live.call(live.admin), peer.id, grants_of=lambda _: [], revoke_grants=True
    )
    with pytest.raises((GoneError, UnauthorizedError)):
        cycle.redeem(live.stranger(), token, csrs.request(csrs.ec_key(next(number))))


# ---- 7. renewal ------------------------------------------------------------------------------


def _with_certificate(live: Live, grant: Grant, serial: str) -> Actor:
    return Actor(kind="peer", id=str(grant.peer_id), auth="certificate", credential=serial)


def test_a_certificate_is_renewed_in_its_last_third_with_a_new_key(live: Live) -> None:
    grant = live.grant(live.peer())
    first, cycle = live.redeem(live.token(grant), CSR), live.cycle()
    call = live.call(_with_certificate(live, grant, first.serial))
    new = csrs.request(csrs.ec_key(1))
    with pytest.raises(RefusedError) as caught:
        cycle.renew(call, first.serial, new)
    assert caught.value.code == "renewal-too-early"
    live.clock.later(hours=17)
    with pytest.raises(RefusedError) as caught:
        cycle.renew(call, first.serial, csrs.request(csrs.ec_key()))
    assert caught.value.code == "key-not-new"
    second = cycle.renew(call, first.serial, new)
    assert second.serial != first.serial
    assert cycle.renew(call, first.serial, new).certificate == second.certificate
    authorized = live.state(grant).issuances[second.issuance_id].authorization
    assert (authorized.kind, authorized.generation) == ("renewal", 2)
    assert authorized.predecessor == first.serial


def test_only_the_holder_of_a_certificate_renews_it(live: Live) -> None:
    grant = live.grant(live.peer())
    first, cycle = live.redeem(live.token(grant), CSR), live.cycle()
    mine = _with_certificate(live, grant, first.serial)
    for actor in (
        live.admin,
        replace(mine, credential="4" + "f" * 31),
        replace(mine, id=str(UUID(int=5, version=4))),
        replace(mine, auth="enrollment-token"),
    ):
        with pytest.raises(NotFoundError):
            cycle.renew(live.call(actor), first.serial, csrs.request(csrs.ec_key(1)))
    with pytest.raises(NotFoundError):
        cycle.renew(live.call(mine), "4" + "f" * 31, csrs.request(csrs.ec_key(1)))


def test_two_successors_of_one_certificate_mean_a_clone(live: Live) -> None:
    grant = live.grant(live.peer())
    first, cycle = live.redeem(live.token(grant), CSR), live.cycle()
    live.clock.later(hours=17)
    call = live.call(_with_certificate(live, grant, first.serial))
    outcomes = all_at_once(
        [
            partial(cycle.renew, call, first.serial, csrs.request(csrs.ec_key(number)))
            for number in (1, 2, 3, 4)
        ]
    )
    assert sum(isinstance(one, ForbiddenError) for one in outcomes) == 3
    after = live.state(grant)
    assert (after.status, after.clone_suspected) == (GrantStatus.SUSPENDED, True)
    assert open_alarms(live) == ["clone-suspected"]
    assert len(live.events("certificate.clone-suspected")) == 1
    (alarm,) = live.events("alarm.raised")
    found = live.ledger.load(Alarm, alarm.originator_id)
    assert found is not None
    assert str(grant.id) in found.about


def test_a_renewal_with_a_bad_csr_is_told_what_is_wrong(live: Live) -> None:
    grant = live.grant(live.peer())
    first = live.redeem(live.token(grant), CSR)
    call = live.call(_with_certificate(live, grant, first.serial))
    with pytest.raises(InvalidError) as caught:
        live.cycle().renew(call, first.serial, b"bad")
    assert caught.value.code == "csr-malformed"


def test_a_dry_run_asks_for_no_certificate(live: Live) -> None:
    token = live.token(live.grant(live.peer()))
    with pytest.raises(InvalidError):
        live.cycle().redeem(live.call(dry_run=True), token, CSR)
