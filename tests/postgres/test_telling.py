"""The authority is told what the ledger has revoked: every way of revoking, every answer, once."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ca.step_ca import StepCaAuthority
from ca.telling import REST
from ledger.errors import LedgerError, UnavailableError
from ledger.grant_state import Grant
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
    now = datetime.now(UTC)  # noqa: TID251 - the fake has its own clock, like a real one
    with Live.open(database, tmp_path, authority=authority, now=now) as live:
        yield live
    authority.client.close()


def enrolled(live: Live, grant: Grant | None = None) -> tuple[Grant, str]:
    grant = grant or live.grant(live.peer())
    return grant, live.redeem(live.token(grant), CSR).serial


def told(live: Live) -> list[tuple[str, str, int | None]]:
    return [
        (event.data.serial, event.data.answer, event.data.status)  # type: ignore[attr-defined]
        for event in live.events("certificate.authority-told")
    ]


def revoke(live: Live, grant: Grant, serial: str, reason: str = "superseded") -> None:
    call = live.call(live.admin)
    live.ledger.revoke_certificate(call, grant.id, serial, reason, "")  # type: ignore[arg-type]


def by_certificate(live: Live, grant: Grant, serial: str) -> None:
    revoke(live, grant, serial, "keyCompromise")


def by_grant(live: Live, grant: Grant, serial: str) -> None:
    live.ledger.revoke_grant(live.call(live.admin), grant.id)


def by_peer(live: Live, grant: Grant, serial: str) -> None:
    live.ledger.revoke_peer(
        live.call(live.admin), grant.peer_id, grants_of=live.live_grants, revoke_grants=True
    )


def by_peer_cut_short(live: Live, grant: Grant, serial: str) -> None:
    """Nothing but the peer's own event: the reconciler finds the rest first."""
    live.ledger.revoke_peer(
        live.call(live.admin), grant.peer_id, grants_of=lambda _: [], revoke_grants=True
    )


WAYS: dict[str, tuple[Callable[[Live, Grant, str], None], int]] = {
    "certificate": (by_certificate, 1),
    "grant": (by_grant, 5),
    "peer": (by_peer, 5),
    "peer, cut short": (by_peer_cut_short, 5),
}


@pytest.mark.parametrize("way", WAYS)
def test_told_however_it_was_revoked(live: Live, fake: FakeStepCa, way: str) -> None:
    grant, serial = enrolled(live)
    act, code = WAYS[way]
    assert live.reconciler().run_once(live.clock()).done == {}
    act(live, grant, serial)
    assert told(live) == []
    assert live.reconciler().run_once(live.clock()).done["told-confirmed"] == 1
    assert told(live) == [(serial, "confirmed", None)]
    assert fake.revoked == {str(int(serial, 16))}
    (asked,) = [body for path, body in fake.asked if path == "/1.0/revoke"]
    assert asked["reasonCode"] == code
    assert live.reconciler().run_once(live.clock()).done == {}, "once"


def test_told_of_what_was_revoked_in_flight(live: Live, fake: FakeStepCa) -> None:
    grant = live.grant(live.peer())
    token = live.token(grant)

    def revoked(step: str) -> None:
        if step == "3-checked":
            live.ledger.revoke_grant(live.call(live.admin), grant.id)

    with pytest.raises(LedgerError):
        live.cycle(at_step=revoked).redeem(live.stranger(), token, CSR)  # type: ignore[arg-type]
    live.reconciler().run_once(live.clock())
    (issuance,) = live.state(grant).issuances.values()
    assert told(live) == [(issuance.serial, "confirmed", None)]


def test_told_of_what_was_mis_issued(live: Live, fake: FakeStepCa) -> None:
    honest, grant = fake.sign, live.grant(live.peer())
    fake.sign = lambda order: honest(replace(order, common_name="Somebody Else"))  # type: ignore[method-assign]
    with pytest.raises(LedgerError):
        live.redeem(live.token(grant), CSR)
    live.reconciler().run_once(live.clock())
    (issuance,) = live.state(grant).issuances.values()
    assert told(live) == [(issuance.serial, "confirmed", None)]


def test_told_of_what_was_abandoned_since_it_may_exist(live: Live, fake: FakeStepCa) -> None:
    grant = live.grant(live.peer())
    fake.faults.extend(["lost"] * 3)
    with pytest.raises(UnavailableError):
        live.redeem(live.token(grant), CSR)
    live.ledger.revoke_grant(live.call(live.admin), grant.id)
    live.clock.later(minutes=2)
    done = live.reconciler().run_once(live.clock()).done
    assert done == {"abandoned": 1, "told-confirmed": 1}
    assert len(fake.issued()) == 3


def test_a_hold_is_not_told_since_it_may_be_lifted(live: Live, fake: FakeStepCa) -> None:
    grant, _ = enrolled(live)
    live.ledger.suspend_grant(live.call(live.admin), grant.id)
    assert live.reconciler().run_once(live.clock()).done == {}
    assert told(live) == []


def test_after_a_crash_between_telling_and_recording_it_is_already_revoked(
    live: Live, fake: FakeStepCa
) -> None:
    grant, serial = enrolled(live)
    revoke(live, grant, serial)
    assert isinstance(live.authority, StepCaAuthority)
    live.authority.revoke(serial, "superseded", timeout=5.0)
    live.reconciler().run_once(live.clock())
    assert told(live) == [(serial, "already-revoked", None)]


def test_an_authority_without_a_database_says_so_and_is_not_asked_again(
    live: Live, fake: FakeStepCa
) -> None:
    fake.database = False
    grant, serial = enrolled(live)
    revoke(live, grant, serial)
    live.reconciler().run_once(live.clock())
    assert told(live) == [(serial, "unsupported", None)]
    assert live.reconciler().run_once(live.clock()).done == {}


def test_one_that_is_silent_is_told_in_a_later_round(live: Live, fake: FakeStepCa) -> None:
    grant, serial = enrolled(live)
    revoke(live, grant, serial)
    with fake.down():
        assert live.reconciler().run_once(live.clock()).done == {}
    assert told(live) == []
    live.reconciler().run_once(live.clock())
    assert told(live) == [(serial, "confirmed", None)]


def test_one_that_refuses_is_left_alone_for_a_while_and_asked_again(
    live: Live, fake: FakeStepCa
) -> None:
    grant, serial = enrolled(live)
    revoke(live, grant, serial)
    reconciler = live.reconciler()
    fake.faults.extend([401, 401])
    reconciler.run_once(live.clock())
    reconciler.run_once(live.clock())
    assert told(live) == [(serial, "failed", 401)]
    live.clock.later(seconds=REST.total_seconds() + 1)
    reconciler.run_once(live.clock())
    assert told(live) == [(serial, "failed", 401)], "the same answer is recorded once"
    live.clock.later(seconds=REST.total_seconds() + 1)
    reconciler.run_once(live.clock())
    assert told(live)[1:] == [(serial, "confirmed", None)]


def test_what_has_ended_is_not_worth_a_word(live: Live, fake: FakeStepCa) -> None:
    grant, serial = enrolled(live)
    revoke(live, grant, serial)
    live.clock.later(seconds=timedelta(days=2).total_seconds())
    assert live.reconciler().run_once(live.clock()).done == {}


def test_a_local_authority_is_not_told_and_the_record_stays_quiet(
    database: Database, tmp_path: Path
) -> None:
    with Live.open(database, tmp_path) as live:
        grant, serial = enrolled(live)
        revoke(live, grant, serial)
        assert live.reconciler().run_once(live.clock()).done == {}
        assert told(live) == []
