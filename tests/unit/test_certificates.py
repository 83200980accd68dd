"""Issuance from its authorization to its end, renewal, revocation, and what counts as revoked."""

from datetime import timedelta
from uuid import uuid4

import pytest

from ledger import certificates, issuance
from ledger.certificates import CloneSuspected
from ledger.errors import (
    ForbiddenError,
    GoneError,
    InvalidError,
    MisIssuedError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from ledger.grant_state import Grant, GrantStatus, Issuance, IssuanceState
from ledger.issuance import AlreadyClosed, AlreadyIssued, Authorized, Closed, StillOpen
from ledger.peers import Peer
from support.given import PLAIN_SCOPE, REASON, SENSITIVE_SCOPE, World, refused, signed


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def peer(world: World) -> Peer:
    return world.active_peer()


@pytest.fixture
def grant(world: World, peer: Peer) -> Grant:
    return world.active_grant(peer)


def only(grant: Grant) -> Issuance:
    [issuance] = grant.issuances.values()
    return issuance


def issuance_of(world: World, grant: Grant, serial: str) -> Issuance:
    found = world.again(grant).issuance_of(serial)
    assert found is not None
    return found


def topics(outcome: Closed | AlreadyClosed | CloneSuspected) -> list[str]:
    assert not isinstance(outcome, AlreadyClosed)
    return [fact.TOPIC for fact in outcome.facts]


# ---- presented by its holder ------------------------------------------------------------------


def standing(world: World, grant: Grant, digest: str | None = None, **later: float) -> str | None:
    issued = only(world.again(grant)).certificate_sha256 or ""
    at = world.now + timedelta(**later)
    return world.standing(grant, issued if digest is None else digest, at)


def test_a_certificate_is_good_between_its_ends(world: World, grant: Grant) -> None:
    assert standing(world, grant) == "good"
    life = only(grant).not_after - world.now
    assert standing(world, grant, seconds=life.total_seconds()) == "good"
    assert standing(world, grant, seconds=life.total_seconds() + 1) is None
    assert standing(world, grant, seconds=-61) is None


def test_other_bytes_than_were_issued_are_not_known(world: World, grant: Grant) -> None:
    assert standing(world, grant, "f" * 64) is None


def test_what_was_authorized_and_never_issued_opens_nothing(world: World, peer: Peer) -> None:
    grant = world.grant(peer)
    redemption = world.redeem(grant, world.token(grant), "first")
    assert standing(world, grant, "f" * 64) is None
    assert standing(world, grant, "") is None
    world.close(grant, issuance.abandon(world.again(grant), redemption.issuance_id, "hopeless"))
    assert standing(world, grant, "f" * 64) is None


def test_a_suspension_holds_and_a_revocation_ends(world: World, grant: Grant) -> None:
    held = world.suspend(grant)
    assert standing(world, held) == "on-hold"
    resumed = world.resume(grant)
    assert standing(world, resumed) == "good"
    world.revoke_certificate(grant, only(grant).serial)
    assert standing(world, grant) is None


# ---- step 4: completing -----------------------------------------------------------------------


def test_the_first_certificate_activates_the_grant(world: World, peer: Peer) -> None:
    grant = world.grant(peer)
    redemption = world.redeem(grant, world.token(grant))
    outcome = world.complete(grant, redemption.issuance_id, signed("DER"))
    assert isinstance(outcome, Closed)
    assert outcome.error is None
    assert topics(outcome) == ["certificate.issued.v1", "grant.activated.v1"]
    now = world.again(grant)
    assert now.status is GrantStatus.ACTIVE
    assert (only(now).certificate, only(now).issued_at) == (b"DER", world.now)
    assert only(now).tbs_sha256 == signed("DER").tbs_sha256


def test_who_comes_late_gets_what_is_on_record(world: World, grant: Grant, peer: Peer) -> None:
    outcome = world.complete(grant, only(grant).id, signed("another DER"))
    assert isinstance(outcome, AlreadyClosed)
    assert outcome.issuance.certificate == only(grant).certificate
    assert issuance.recorded(outcome.issuance, grant, peer, world.now) == only(grant)
    for late in (
        issuance.fail(grant, only(grant).id, None, "late"),
        issuance.abandon(grant, only(grant).id, "late"),
        issuance.mis_issued(grant, only(grant).id, b"x", ["late"]),
    ):
        assert isinstance(late, AlreadyClosed)


def test_an_unknown_issuance_is_not_found(world: World, grant: Grant) -> None:
    with refused("not-found", NotFoundError):
        world.complete(grant, uuid4())


@pytest.mark.parametrize("what", ["grant", "peer", "expiry", "serial", "narrowed", "amended"])
def test_what_was_withdrawn_meanwhile_is_recorded_revoked_and_withheld(
    world: World, peer: Peer, what: str
) -> None:
    grant = world.grant(peer, days=1)
    redemption = world.redeem(grant, world.token(grant))
    if what == "grant":
        world.revoke(grant)
    elif what == "peer":
        world.revoke_peer(peer)
    elif what == "expiry":
        world.later(days=1)
    elif what == "serial":
        world.revoke_certificate(grant, only(world.again(grant)).serial)
    elif what == "narrowed":
        world.amend(grant, expires_at=world.now + timedelta(hours=5))
    else:
        world.amend(grant, scope=SENSITIVE_SCOPE)
    outcome = world.complete(grant, redemption.issuance_id)
    assert isinstance(outcome, Closed)
    assert isinstance(outcome.error, GoneError)
    assert outcome.error.code == "revoked-in-flight"
    closed = only(world.again(grant))
    assert closed.state is IssuanceState.ISSUED
    assert closed.revocation is not None
    if what == "serial":
        # Revoked before it was known: one entry is enough, and it keeps its reason.
        assert topics(outcome) == ["certificate.issued.v1"]
        assert closed.revocation.reason == "keyCompromise"
    else:
        assert topics(outcome) == ["certificate.issued.v1", "certificate.revoked.v1"]
        assert closed.revocation.reason == "cessationOfOperation"
        assert closed.revocation.detail == "revoked-in-flight"
    assert world.again(grant).activated_at is None
    with pytest.raises(GoneError):
        issuance.recorded(closed, world.again(grant), world.again(peer), world.now)


@pytest.mark.parametrize("who", ["grant", "peer"])
def test_what_was_only_suspended_meanwhile_is_recorded_on_hold(
    world: World, peer: Peer, who: str
) -> None:
    grant = world.grant(peer)
    redemption = world.redeem(grant, world.token(grant))
    if who == "grant":
        world.suspend(grant)
    else:
        world.suspend_peer(peer)
    outcome = world.complete(grant, redemption.issuance_id)
    assert isinstance(outcome, Closed)
    assert isinstance(outcome.error, RefusedError)
    assert outcome.error.code == "grant-suspended"
    closed = only(world.again(grant))
    assert closed.revocation is not None
    assert closed.revocation.reason == "certificateHold"
    assert world.again(grant).activated_at is None


def test_a_hold_in_flight_stays_until_something_final_replaces_it(world: World, peer: Peer) -> None:
    grant = world.grant(peer)
    token = world.token(grant)
    redemption = world.redeem(grant, token)
    world.suspend(grant)
    world.complete(grant, redemption.issuance_id)
    serial = only(world.again(grant)).serial
    with refused("certificate-revoked", GoneError):
        world.redeem(grant, token)
    world.resume(grant)
    held = world.revocation(grant, serial)
    assert held is not None
    assert (held.reason, held.detail) == ("certificateHold", "suspended-in-flight")
    with refused("certificate-revoked", GoneError):
        world.redeem(grant, token)
    # A new token makes the grant active all the same.
    world.enroll(grant, "second")
    assert world.again(grant).status is GrantStatus.ACTIVE
    world.revoke_peer(peer)
    final = world.revocation(grant, serial)
    assert final is not None
    assert (final.reason, final.detail) == ("cessationOfOperation", "peer-revoked")


def test_a_key_found_compromised_meanwhile_gets_no_certificate(world: World, grant: Grant) -> None:
    serial = world.enroll(grant, "mine")
    again = world.redeem(grant, world.token(grant), "again", key="mine")
    world.revoke_certificate(grant, serial, "keyCompromise")
    outcome = world.complete(grant, again.issuance_id)
    assert isinstance(outcome, Closed)
    assert isinstance(outcome.error, GoneError)


def test_approvals_are_recounted_when_the_grant_becomes_active(world: World, peer: Peer) -> None:
    grant = world.approve(world.grant(peer, SENSITIVE_SCOPE))
    redemption = world.redeem(grant, world.token(grant))
    world.disable(world.approver)
    outcome = world.complete(grant, redemption.issuance_id)
    assert isinstance(outcome, Closed)
    assert isinstance(outcome.error, GoneError)
    assert world.again(grant).status is GrantStatus.PENDING_ENROLLMENT


def test_an_approved_grant_enrolls(world: World, peer: Peer) -> None:
    assert world.active_grant(peer, SENSITIVE_SCOPE).status is GrantStatus.ACTIVE


# ---- step 3 and 5: other ends -----------------------------------------------------------------


def test_what_came_back_wrong_is_kept_revoked_and_never_delivered(world: World, peer: Peer) -> None:
    grant = world.grant(peer)
    redemption = world.redeem(grant, world.token(grant))
    findings = ["serial differs", "", "y" * 3000]
    wrong = issuance.mis_issued(world.again(grant), redemption.issuance_id, b"z" * 99999, findings)
    assert isinstance(wrong, Closed)
    assert isinstance(wrong.error, MisIssuedError)
    assert topics(wrong) == ["certificate.mis-issued.v1", "certificate.revoked.v1"]
    world.close(grant, wrong)
    closed = only(world.again(grant))
    assert closed.mis_issued
    assert closed.state is IssuanceState.FAILED
    assert closed.certificate is not None
    assert len(closed.certificate) < 60 * 1024 * 3 / 4
    assert world.revocation(grant, closed.serial) is not None
    with pytest.raises(MisIssuedError):
        issuance.recorded(closed, world.again(grant), peer, world.now)


@pytest.mark.parametrize("state", [IssuanceState.FAILED, IssuanceState.ABANDONED])
def test_a_serial_that_never_became_a_certificate_counts_as_revoked(
    world: World, peer: Peer, state: IssuanceState
) -> None:
    grant = world.grant(peer)
    redemption = world.redeem(grant, world.token(grant))
    serial = only(world.again(grant)).serial
    assert world.revocation(grant, serial) is None
    if state is IssuanceState.FAILED:
        closed = issuance.fail(world.again(grant), redemption.issuance_id, 403, "")
    else:
        closed = issuance.abandon(world.again(grant), redemption.issuance_id, "x" * 9999)
    world.close(grant, closed)
    assert only(world.again(grant)).state is state
    revocation = world.revocation(grant, serial)
    assert revocation is not None
    assert revocation.detail == f"issuance-{state.value}"
    late = world.complete(grant, redemption.issuance_id)
    assert isinstance(late, AlreadyClosed)
    with refused("issuance-failed", UnavailableError):
        issuance.recorded(late.issuance, world.again(grant), peer, world.now)


# ---- step 7: renewal --------------------------------------------------------------------------


def due(world: World, grant: Grant) -> str:
    world.later(hours=17)
    return only(world.again(grant)).serial


def test_a_renewal_takes_the_next_generation_from_two_thirds_on(world: World, grant: Grant) -> None:
    current = only(grant)
    two_thirds = current.not_before + (current.not_after - current.not_before) * 2 / 3
    world.now = two_thirds - timedelta(microseconds=1)
    with refused("renewal-too-early", RefusedError) as caught:
        world.renew(grant, current.serial, "new")
    assert caught.value.facts["renew_after"] == two_thirds
    world.now = two_thirds
    outcome = world.renew(grant, current.serial, "new")
    assert isinstance(outcome, Authorized)
    successor = world.again(grant).issuances[outcome.issuance_id]
    assert successor.authorization.generation == 2
    assert successor.authorization.predecessor == current.serial
    assert successor.authorization.accessor is None
    closed = world.complete(grant, outcome.issuance_id)
    assert topics(closed) == ["certificate.issued.v1"]
    # The predecessor works to its own end.
    assert world.revocation(grant, current.serial) is None


def test_the_same_request_again_gets_the_same_successor(world: World, grant: Grant) -> None:
    serial = due(world, grant)
    first = world.renew(grant, serial, "new")
    assert isinstance(first, Authorized)
    assert isinstance(world.renew(grant, serial, "new"), StillOpen)
    world.complete(grant, first.issuance_id)
    again = world.renew(grant, serial, "new")
    assert isinstance(again, AlreadyIssued)
    assert again.issuance.id == first.issuance_id


@pytest.mark.parametrize("completed", [True, False])
def test_another_request_after_a_successor_means_a_clone(
    world: World, grant: Grant, completed: bool
) -> None:
    serial = due(world, grant)
    first = world.renew(grant, serial, "new")
    assert isinstance(first, Authorized)
    if completed:
        world.complete(grant, first.issuance_id)
    outcome = world.renew(grant, serial, "thief")
    assert isinstance(outcome, CloneSuspected)
    assert isinstance(outcome.error, ForbiddenError)
    assert outcome.error.code == "clone-suspected"
    assert topics(outcome) == ["certificate.clone-suspected.v1", "grant.suspended.v1"]
    now = world.again(grant)
    assert now.clone_suspected
    assert now.status is GrantStatus.SUSPENDED
    # Once on record is enough: a thief cannot fill the stream.
    more = world.renew(grant, serial, "thief again")
    assert isinstance(more, CloneSuspected)
    assert more.facts == ()
    resumed = world.resume(grant)
    assert (resumed.status, resumed.clone_suspected) == (GrantStatus.ACTIVE, False)


def test_a_suspension_does_not_hide_a_clone(world: World, grant: Grant) -> None:
    serial = due(world, grant)
    world.renew(grant, serial, "new")
    world.suspend(grant)
    outcome = world.renew(grant, serial, "thief")
    assert isinstance(outcome, CloneSuspected)
    assert topics(outcome) == ["certificate.clone-suspected.v1"]


def test_a_successor_that_failed_leaves_its_place_free(world: World, grant: Grant) -> None:
    serial = due(world, grant)
    for name in ("new", "new", "newer"):
        outcome = world.renew(grant, serial, name)
        assert isinstance(outcome, Authorized)
        world.close(grant, issuance.fail(world.again(grant), outcome.issuance_id, 500, "no"))
    assert world.again(grant).status is GrantStatus.ACTIVE


def test_a_renewal_takes_a_new_key(world: World, grant: Grant) -> None:
    serial = due(world, grant)
    with refused("key-not-new", RefusedError):
        world.renew(grant, serial, str(grant.id))  # the name that active_grant enrolled with


def test_what_is_over_cannot_renew(world: World, peer: Peer) -> None:
    expired, revoked, ended, suspended = (world.active_grant(peer) for _ in range(4))
    serials = {
        one.id: due(world, one) if one is expired else only(one).serial
        for one in (expired, revoked, ended, suspended)
    }
    world.revoke_certificate(revoked, serials[revoked.id])
    world.revoke(ended)
    world.suspend(suspended)
    with refused("certificate-revoked", GoneError):
        world.renew(revoked, serials[revoked.id], "a")
    with refused("grant-revoked", GoneError):
        world.renew(ended, serials[ended.id], "b")
    with refused("grant-suspended", RefusedError):
        world.renew(suspended, serials[suspended.id], "c")
    world.later(hours=8)
    with refused("certificate-expired", RefusedError):
        world.renew(expired, serials[expired.id], "d")
    with refused("not-found", NotFoundError):
        world.renew(expired, serials[revoked.id], "e")
    # But the grant itself is active: a new token does it.
    world.enroll(expired, "fresh")


def test_a_certificate_renews_to_its_very_last_moment(world: World, grant: Grant) -> None:
    world.now = only(grant).not_after
    assert isinstance(world.renew(grant, only(grant).serial, "new"), Authorized)


def test_a_thiefs_renewal_does_not_survive_the_revocation_of_what_he_stole(
    world: World, grant: Grant
) -> None:
    serial = due(world, grant)
    outcome = world.renew(grant, serial, "thief")
    assert isinstance(outcome, Authorized)
    world.revoke_certificate(grant, serial)
    closed = world.complete(grant, outcome.issuance_id)
    assert isinstance(closed, Closed)
    assert isinstance(closed.error, GoneError)


def test_a_narrowing_catches_the_renewal_in_flight(world: World, grant: Grant) -> None:
    serial = due(world, grant)
    outcome = world.renew(grant, serial, "new")
    assert isinstance(outcome, Authorized)
    world.narrow(grant, expires_at=world.now + timedelta(hours=20))
    closed = world.complete(grant, outcome.issuance_id)
    assert isinstance(closed, Closed)
    assert isinstance(closed.error, GoneError)


# ---- revoking ---------------------------------------------------------------------------------


def test_revoking_again_adds_an_entry_only_if_it_says_more(world: World, grant: Grant) -> None:
    serial = only(grant).serial
    before = world.revoke_certificate(grant, serial, "superseded")
    assert world.revoke_certificate(grant, serial, "affiliationChanged") == before
    worse = world.revoke_certificate(grant, serial, "keyCompromise")
    assert worse.version == before.version + 1
    assert world.revoke_certificate(grant, serial, "keyCompromise") == worse
    revocation = world.revocation(grant, serial)
    assert revocation is not None
    assert revocation.reason == "keyCompromise"


def test_a_certificate_on_hold_can_be_revoked_for_good(world: World, peer: Peer) -> None:
    grant = world.grant(peer)
    redemption = world.redeem(grant, world.token(grant))
    world.suspend(grant)
    world.complete(grant, redemption.issuance_id)
    serial = only(world.again(grant)).serial
    world.revoke_certificate(grant, serial, "superseded")
    revocation = world.revocation(grant, serial)
    assert revocation is not None
    assert revocation.reason == "superseded"


def test_a_compromise_can_be_recorded_after_the_grants_end(world: World, grant: Grant) -> None:
    world.revoke(grant)
    world.revoke_certificate(grant, only(grant).serial, "keyCompromise")
    revocation = world.revocation(grant, only(grant).serial)
    assert revocation is not None
    assert revocation.reason == "keyCompromise"


def test_a_revocation_says_why_and_names_what_exists(world: World, grant: Grant) -> None:
    serial = only(grant).serial
    with refused("hold-means-suspend", InvalidError):
        world.revoke_certificate(grant, serial, "certificateHold")
    with refused("reason-required", InvalidError):
        certificates.revoke(grant, [serial], "superseded", "detail", " ")
    with refused("not-found", NotFoundError):
        certificates.revoke(grant, [serial, "4" + "0" * 31], "superseded", "detail", REASON)
    [fact] = certificates.revoke(grant, [serial, serial], "superseded", " ", REASON)
    assert fact.detail == REASON  # type: ignore[attr-defined]


def test_what_counts_as_revoked(world: World, peer: Peer, grant: Grant) -> None:
    serial = only(grant).serial

    def found() -> tuple[str, str] | None:
        revocation = world.revocation(grant, serial)
        return None if revocation is None else (revocation.reason, revocation.detail)

    assert found() is None
    world.suspend_peer(peer)
    assert found() == ("certificateHold", "peer-suspended")
    world.suspend(grant)
    assert found() == ("certificateHold", "grant-suspended")
    world.resume_peer(peer)
    world.resume(grant)
    assert found() is None
    world.later(hours=1)
    world.revoke_peer(peer)
    since = world.now
    assert found() == ("cessationOfOperation", "peer-revoked")
    world.later(hours=1)
    world.revoke(grant)
    revocation = world.revocation(grant, serial)
    assert revocation == issuance_of(world, grant, serial).revocation
    unsigned = world.again(grant).issuances
    assert len(unsigned) == 1
    assert world.revocation(grant, serial).at > since  # type: ignore[union-attr]


def test_an_open_issuance_counts_as_revoked_through_its_grant(world: World, peer: Peer) -> None:
    grant = world.grant(peer)
    world.redeem(grant, world.token(grant))
    serial = only(world.again(grant)).serial
    world.revoke(grant)
    world.later(hours=1)
    world.revoke_peer(peer)
    revocation = world.revocation(grant, serial)
    assert revocation is not None
    assert revocation.detail == "grant-revoked"
    assert revocation.at == world.again(grant).ended_at


def test_an_expired_certificate_of_an_expired_grant_is_not_revoked(
    world: World, peer: Peer
) -> None:
    grant = world.active_grant(peer, PLAIN_SCOPE, days=1)
    world.later(days=2)
    assert world.revocation(grant, only(grant).serial) is None


def test_the_authority_is_told_of_revocations_only_and_an_answer_is_kept_once(
    world: World, grant: Grant, peer: Peer
) -> None:
    serial = only(grant).serial
    with refused("certificate-not-revoked", RefusedError):
        certificates.tell_authority(grant, peer, serial, "confirmed", 200, world.now)
    now = world.revoke_certificate(grant, serial)
    failed = certificates.tell_authority(now, peer, serial, "failed", 500, world.now)
    now = world.record(Grant, grant.id, failed)
    assert certificates.tell_authority(now, peer, serial, "failed", 500, world.now) == ()
    told = certificates.tell_authority(now, peer, serial, "confirmed", 200, world.now)
    assert only(world.record(Grant, grant.id, told)).authority_told == "confirmed"
