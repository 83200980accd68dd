"""Every row of the grant's life: what starts it, what stops it, what it leaves behind."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest

from ledger.errors import ForbiddenError, InvalidError, RefusedError
from ledger.events import Actor, PolicyChanged
from ledger.grant_state import Grant, GrantStatus, TokenState, evolve
from ledger.grant_status import live_tokens
from ledger.grants import terms_digest
from ledger.scope import Scope
from support.given import (
    PLAIN_SCOPE,
    SENSITIVE_SCOPE,
    START,
    World,
    digest,
    refused,
    scope,
)

S = GrantStatus


@pytest.fixture
def world() -> World:
    return World()


# ---- propose ----------------------------------------------------------------------------------


def test_a_plain_grant_waits_for_enrollment_and_a_sensitive_one_for_approval(world: World) -> None:
    peer = world.active_peer()
    assert world.grant(peer, PLAIN_SCOPE).status is S.PENDING_ENROLLMENT
    assert world.grant(peer, SENSITIVE_SCOPE).status is S.PENDING_APPROVAL


def test_not_before_is_the_moment_of_the_proposal_unless_given(world: World) -> None:
    peer = world.active_peer()
    assert world.grant(peer).not_before == world.now
    later = world.now + timedelta(days=3)
    assert world.grant(peer, not_before=later).not_before == later


def test_a_pending_peer_may_be_proposed_to_a_suspended_or_revoked_one_not(world: World) -> None:
    pending, suspended, revoked = (
        world.peer("One"),
        world.active_peer("Two"),
        world.active_peer("Three"),
    )
    world.suspend_peer(suspended)
    world.revoke_peer(revoked)
    assert world.grant(pending).status is S.PENDING_ENROLLMENT
    for peer in (suspended, revoked):
        with refused("peer-not-active", RefusedError):
            world.grant(peer)


@pytest.mark.parametrize("subject", ["a", "A.b_c:d@e-f", "x" * 100, "42"])
def test_a_subject_user_id_is_plain_text(world: World, subject: str) -> None:
    assert world.grant(world.active_peer(), subject=subject).subject_user_id == subject


@pytest.mark.parametrize("subject", ["", "x" * 101, "a b", "a\n", "ä", "a/b", "\0", "a\ud800"])
def test_other_subject_user_ids_are_refused(world: World, subject: str) -> None:
    with refused("subject-user-id", InvalidError):
        world.grant(world.active_peer(), subject=subject)


def test_the_expiry_is_in_the_future_and_within_the_policy(world: World) -> None:
    peer = world.active_peer()
    for days in (0, -1):
        with refused("expires-in-past", InvalidError):
            world.grant(peer, days=days)
    world.grant(peer, days=365)
    with refused("expires-too-late", InvalidError):
        world.grant(peer, days=365.001)
    world.change_policy(max_grant_days=10)
    with refused("expires-too-late"):
        world.grant(peer, days=11)
    with refused("empty-validity", InvalidError):
        world.grant(peer, days=5, not_before=world.now + timedelta(days=5))


@pytest.mark.parametrize("reason", [None, "", "  \n"])
def test_a_sensitive_proposal_says_why(world: World, reason: str | None) -> None:
    peer = world.active_peer()
    world.grant(peer, PLAIN_SCOPE, reason=reason)
    with refused("reason-required", InvalidError):
        world.grant(peer, SENSITIVE_SCOPE, reason=reason)
    with refused("reason-too-long", InvalidError):
        world.grant(peer, SENSITIVE_SCOPE, reason="x" * 2001)


def test_the_terms_digest_is_that_of_their_canonical_json(world: World) -> None:
    grant = world.grant(world.active_peer(), scope("notes", "tasks", rows=5), days=1)
    written = (
        '{"expires_at":"2026-11-24T15:00:00.000000Z","not_before":"2026-11-23T15:00:00.000000Z",'
        f'"peer_id":"{grant.peer_id}","scope":{{"excluded_resources":[],"filters":{{}},'
        '"max_rows_per_query":5,"resources":["notes","tasks"]},"subject_user_id":"user-7"}'
    )
    assert grant.terms_digest == hashlib.sha256(written.encode()).hexdigest()
    # The same moment written in another zone is the same term.
    elsewhere = START.astimezone(timezone(timedelta(hours=5)))
    assert grant.terms_digest == terms_digest(
        grant.peer_id, "user-7", scope("tasks", "notes", rows=5), elsewhere, grant.expires_at
    )


# ---- approve, reject --------------------------------------------------------------------------


def test_one_approval_of_another_person_is_enough_by_default(world: World) -> None:
    grant = world.approve(world.grant(world.active_peer(), SENSITIVE_SCOPE))
    assert grant.status is world.status(grant) is S.PENDING_ENROLLMENT


def test_an_approver_names_the_present_terms(world: World) -> None:
    grant = world.grant(world.active_peer(), SENSITIVE_SCOPE)
    with refused("terms-changed", RefusedError) as caught:
        world.approve(grant, terms=digest("other"))
    assert caught.value.facts["terms_digest"] == grant.terms_digest
    world.amend(grant, expires_at=world.now + timedelta(days=2))
    with refused("terms-changed"):
        world.approve(grant, terms=grant.terms_digest)


def test_nobody_approves_what_they_proposed_or_amended(world: World) -> None:
    peer = world.active_peer()
    own = world.grant(peer, SENSITIVE_SCOPE, by=world.approver)
    with refused("four-eyes", ForbiddenError):
        world.approve(own, by=world.approver)
    # Not even if somebody else has amended it since, or one was an amender two amendments ago.
    world.amend(own, expires_at=world.now + timedelta(days=2), by=world.approver_2)
    world.amend(own, expires_at=world.now + timedelta(days=3), by=world.admin)
    for author in (world.approver, world.approver_2):
        with refused("four-eyes"):
            world.approve(own, by=author)
    assert world.approve(own, by=world.person("approver")).status is S.PENDING_ENROLLMENT


def test_the_stable_id_counts_not_the_role_held_meanwhile(world: World) -> None:
    grant = world.grant(world.active_peer(), SENSITIVE_SCOPE, by=world.admin)
    world.change_roles(world.admin, "approver")
    with refused("four-eyes"):
        world.approve(grant, by=world.admin)


def test_without_four_eyes_the_proposers_side_approves_but_an_approval_it_takes(
    world: World,
) -> None:
    world.change_policy(four_eyes=False, required_approvals=0)
    grant = world.grant(world.active_peer(), SENSITIVE_SCOPE)
    assert world.status(grant) is S.PENDING_APPROVAL
    assert world.approve(grant, by=world.admin).status is S.PENDING_ENROLLMENT
    world.redeem(grant, world.token(grant))


def test_turning_four_eyes_on_again_makes_the_proposers_own_approval_void(world: World) -> None:
    world.change_policy(four_eyes=False)
    grant = world.grant(world.active_peer(), SENSITIVE_SCOPE)
    world.approve(grant, by=world.admin)
    token = world.token(grant)
    world.change_policy(four_eyes=True)
    with refused("grant-pending-approval", RefusedError):
        world.redeem(grant, token)
    world.approve(grant, by=world.approver)
    world.redeem(grant, token)


def test_an_author_who_became_an_approver_does_not_count_once_four_eyes_are_back(
    world: World,
) -> None:
    world.change_policy(four_eyes=False)
    grant = world.grant(world.active_peer(), SENSITIVE_SCOPE)
    world.approve(grant, by=world.admin)
    token = world.token(grant)
    world.change_roles(world.admin, "approver")
    world.change_policy(four_eyes=True)
    with refused("grant-pending-approval", RefusedError):
        world.redeem(grant, token)


def test_the_same_person_twice_counts_once(world: World) -> None:
    world.change_policy(required_approvals=2)
    grant = world.approve(world.grant(world.active_peer(), SENSITIVE_SCOPE))
    assert grant.status is S.PENDING_APPROVAL
    with refused("already-approved", RefusedError):
        world.approve(grant)
    assert world.approve(grant, by=world.approver_2).status is S.PENDING_ENROLLMENT


def test_after_the_policy_was_eased_an_approver_may_repeat_to_let_it_through(world: World) -> None:
    world.change_policy(required_approvals=2)
    grant = world.approve(world.grant(world.active_peer(), SENSITIVE_SCOPE))
    world.change_policy(required_approvals=1)
    assert world.status(grant) is S.PENDING_APPROVAL
    assert world.approve(grant).status is S.PENDING_ENROLLMENT


def test_approvals_lapse_and_can_be_given_again(world: World) -> None:
    grant = world.approve(world.grant(world.active_peer(), SENSITIVE_SCOPE))
    world.later(days=7, microseconds=-1)
    assert world.status(grant) is S.PENDING_ENROLLMENT
    world.later(microseconds=1)
    assert world.status(grant) is S.PENDING_APPROVAL
    assert world.again(grant).status is S.PENDING_ENROLLMENT
    with refused("grant-pending-approval", RefusedError):
        world.token(grant)
    assert len(world.approve(grant).approvals) == 1
    assert world.status(grant) is S.PENDING_ENROLLMENT


def test_a_stricter_policy_asks_for_more_and_an_active_grant_is_not_asked_again(
    world: World,
) -> None:
    peer = world.active_peer()
    waiting = world.approve(world.grant(peer, SENSITIVE_SCOPE))
    active = world.active_grant(peer, SENSITIVE_SCOPE)
    world.change_policy(required_approvals=2)
    assert world.status(waiting) is S.PENDING_APPROVAL
    assert world.status(active) is S.ACTIVE
    world.later(days=8)
    assert world.status(active) is S.ACTIVE


def test_an_approval_that_would_not_count_is_refused(world: World) -> None:
    peer = world.active_peer()
    plain, done = world.grant(peer), world.approve(world.grant(peer, SENSITIVE_SCOPE))
    for grant in (plain, done, world.active_grant(peer, SENSITIVE_SCOPE)):
        with refused("approval-not-needed", RefusedError):
            world.approve(grant, by=world.approver_2)


@pytest.mark.parametrize("how", ["demoted", "disabled"])
def test_an_approver_who_has_left_can_be_replaced_and_the_recount_sees_it(
    world: World, how: str
) -> None:
    grant = world.approve(world.grant(world.active_peer(), SENSITIVE_SCOPE))
    token = world.token(grant)
    if how == "demoted":
        world.change_roles(world.approver, "auditor")
    else:
        world.disable(world.approver)
    with refused("grant-pending-approval", RefusedError):
        world.redeem(grant, token)
    world.approve(grant, by=world.approver_2)
    world.redeem(grant, token)


def test_only_operators_approve_because_nobody_else_can_be_recounted(world: World) -> None:
    grant = world.grant(world.active_peer(), SENSITIVE_SCOPE)
    for actor in (world.local, world.system, Actor(kind="peer", id="p", auth="certificate")):
        with refused("forbidden", ForbiddenError):
            world.approve(grant, by=actor)


def test_one_rejection_ends_it(world: World) -> None:
    grant = world.reject(world.grant(world.active_peer(), SENSITIVE_SCOPE))
    assert grant.status is world.status(grant) is S.REJECTED
    assert grant.ended_at == world.now
    with refused("grant-rejected"):
        world.approve(grant)
    with refused("wrong-status"):
        world.reject(grant)


def test_only_what_waits_for_approval_is_rejected(world: World) -> None:
    peer = world.active_peer()
    for grant in (world.grant(peer), world.active_grant(peer)):
        with refused("wrong-status", RefusedError):
            world.reject(grant)


# ---- amend, narrow ----------------------------------------------------------------------------


def test_an_amendment_voids_approvals_and_cancels_the_token(world: World) -> None:
    grant = world.approve(world.grant(world.active_peer(), SENSITIVE_SCOPE))
    token = world.token(grant)
    amended = world.amend(grant, scope=scope("credentials"), by=world.admin_2)
    assert amended.status is S.PENDING_APPROVAL
    assert amended.approvals == ()
    assert amended.amended_by == {world.admin_2.id}
    assert amended.terms_digest != grant.terms_digest
    assert amended.tokens[token.accessor].state is TokenState.CANCELLED


def test_an_amendment_decides_anew_whether_approval_is_needed(world: World) -> None:
    grant = world.grant(world.active_peer(), SENSITIVE_SCOPE)
    assert world.amend(grant, scope=PLAIN_SCOPE).status is S.PENDING_ENROLLMENT
    assert world.amend(grant, scope=SENSITIVE_SCOPE).status is S.PENDING_APPROVAL


def test_an_amendment_changes_something_within_the_same_limits(world: World) -> None:
    grant = world.grant(world.active_peer())
    with refused("nothing-to-amend", RefusedError):
        world.amend(grant, scope=scope("notes", "tasks"), expires_at=grant.expires_at)
    with refused("nothing-to-amend"):
        world.amend(grant)
    with refused("expires-in-past", InvalidError):
        world.amend(grant, expires_at=world.now)
    with refused("expires-too-late"):
        world.amend(grant, expires_at=world.now + timedelta(days=366))
    with refused("empty-validity"):
        world.amend(grant, not_before=grant.expires_at)
    amended = world.amend(grant, not_before=world.now + timedelta(days=1))
    assert amended.not_before == world.now + timedelta(days=1)


def test_nobody_amends_what_the_peer_relies_on_or_what_has_ended(world: World) -> None:
    peer = world.active_peer()
    active, gone = world.active_grant(peer), world.grant(peer, days=1)
    with refused("wrong-status", RefusedError):
        world.amend(active, scope=SENSITIVE_SCOPE)
    world.later(days=1)
    # Else an expired grant would come back to life.
    with refused("grant-expired"):
        world.amend(gone, expires_at=world.now + timedelta(days=1))


OLD = scope("tasks", "notes", teams={"tasks": ["a", "b"]}, personal={"tasks": True}, rows=100)


@pytest.mark.parametrize(
    "new",
    [
        scope("tasks", teams={"tasks": ["a", "b"]}, rows=100),
        scope("tasks", "notes", teams={"tasks": ["a"]}, rows=100),
        scope("tasks", "notes", teams={"tasks": ["a", "b"]}, personal={"tasks": False}, rows=100),
        scope("tasks", "notes", teams={"tasks": ["a", "b"]}, rows=99),
        scope("tasks", "notes", personal={"notes": False}, rows=100),
    ],
)
def test_each_single_dimension_can_be_narrowed(world: World, new: Scope) -> None:
    grant = world.active_grant(world.active_peer(), OLD)
    narrowed = world.narrow(grant, scope=new)
    assert narrowed.scope == new
    assert narrowed.status is S.ACTIVE
    assert narrowed.terms_digest != grant.terms_digest


@pytest.mark.parametrize(
    "new",
    [
        scope("tasks", "notes", "memory", teams={"tasks": ["a", "b"]}, rows=1),
        scope("tasks", teams={"tasks": ["a", "c"]}, rows=100),
        scope("tasks", teams={"notes": ["a"]}, rows=101),
        scope("notes", teams={"notes": ["a"]}, rows=100),
    ],
)
def test_any_widening_needs_a_new_grant_even_if_something_else_shrinks(
    world: World, new: Scope
) -> None:
    grant = world.active_grant(world.active_peer(), OLD)
    with refused("widening-requires-new-grant", RefusedError) as caught:
        world.narrow(grant, scope=new)
    assert caught.value.facts["widened"]
    with refused("widening-requires-new-grant"):
        world.narrow(grant, expires_at=grant.expires_at + timedelta(microseconds=1))


def test_narrowing_to_the_same_is_refused(world: World) -> None:
    grant = world.active_grant(world.active_peer(), OLD)
    with refused("nothing-to-narrow", RefusedError):
        world.narrow(grant)
    with refused("nothing-to-narrow"):
        world.narrow(grant, scope=OLD, expires_at=grant.expires_at)


def test_an_earlier_expiry_revokes_the_certificates_that_would_outlive_it(world: World) -> None:
    grant = world.active_grant(world.active_peer())
    [serial] = [one.serial for one in grant.issuances.values()]
    kept = world.narrow(grant, expires_at=world.now + timedelta(hours=24))
    assert kept.issuance_of(serial).revocation is None  # type: ignore[union-attr]
    narrowed = world.narrow(grant, expires_at=world.now + timedelta(hours=23))
    revocation = narrowed.issuance_of(serial).revocation  # type: ignore[union-attr]
    assert revocation is not None
    assert (revocation.reason, revocation.detail) == ("cessationOfOperation", "grant-narrowed")
    with refused("expires-in-past", InvalidError):
        world.narrow(grant, expires_at=world.now)


def test_narrowing_works_on_the_suspended_and_on_the_expired_but_not_before_enrollment(
    world: World,
) -> None:
    peer = world.active_peer()
    waiting, grant = world.grant(peer), world.active_grant(peer)
    with refused("wrong-status", RefusedError):
        world.narrow(waiting, scope=scope("tasks"))
    world.suspend(grant)
    assert world.narrow(grant, scope=scope("tasks")).status is S.SUSPENDED
    world.later(days=40)
    assert world.status(grant) is S.EXPIRED
    world.narrow(grant, scope=scope("tasks", rows=1))


def test_a_narrowed_grant_that_is_yet_to_come_must_keep_some_validity(world: World) -> None:
    grant = world.grant(world.active_peer(), not_before=world.now + timedelta(days=3))
    world.suspend(grant)
    with refused("empty-validity", InvalidError):
        world.narrow(grant, expires_at=world.now + timedelta(days=2))


# ---- suspend, resume --------------------------------------------------------------------------


@pytest.mark.parametrize("enrolled", [True, False])
def test_resume_restores_what_the_suspension_interrupted(world: World, enrolled: bool) -> None:
    peer = world.active_peer()
    grant = world.active_grant(peer) if enrolled else world.grant(peer)
    before = grant.status
    assert world.suspend(grant).status is S.SUSPENDED
    assert world.status(grant) is S.SUSPENDED
    resumed = world.resume(grant)
    assert resumed.status is before
    assert (resumed.suspended_from, resumed.suspended_at) == (None, None)


def test_only_what_runs_is_suspended_and_only_what_is_suspended_resumed(world: World) -> None:
    peer = world.active_peer()
    grant, waiting = world.grant(peer), world.grant(peer, SENSITIVE_SCOPE)
    with refused("wrong-status", RefusedError):
        world.suspend(waiting)
    with refused("wrong-status", RefusedError):
        world.resume(grant)
    world.suspend(grant)
    with refused("wrong-status"):
        world.suspend(grant)


def test_a_suspension_does_not_stop_the_clock(world: World) -> None:
    grant = world.suspend(world.active_grant(world.active_peer()))
    world.later(days=30)
    assert world.status(grant) is S.EXPIRED
    with refused("grant-expired", RefusedError):
        world.resume(grant)


def test_a_grant_of_a_suspended_peer_is_not_resumed(world: World) -> None:
    peer = world.active_peer()
    grant = world.suspend(world.active_grant(peer))
    world.suspend_peer(peer)
    with refused("peer-not-active", RefusedError):
        world.resume(grant)
    world.resume_peer(peer)
    assert world.status(grant) is S.SUSPENDED
    assert world.resume(grant).status is S.ACTIVE


def test_a_suspended_peer_suspends_its_grants_and_gives_them_back_exactly(world: World) -> None:
    peer = world.active_peer()
    all_kinds = [
        world.grant(peer),
        world.grant(peer, SENSITIVE_SCOPE),
        world.active_grant(peer),
        world.reject(world.grant(peer, SENSITIVE_SCOPE)),
    ]
    before = [world.status(grant) for grant in all_kinds]
    stored = [world.again(grant) for grant in all_kinds]
    world.suspend_peer(peer)
    assert [world.status(grant) for grant in all_kinds] == [S.SUSPENDED] * 3 + [S.REJECTED]
    with refused("grant-suspended", RefusedError):
        world.approve(all_kinds[1])
    with refused("grant-suspended", RefusedError):
        world.token(all_kinds[0])
    world.resume_peer(peer)
    assert [world.status(grant) for grant in all_kinds] == before
    assert [world.again(grant) for grant in all_kinds] == stored


# ---- revoke, expire ---------------------------------------------------------------------------


def test_a_revocation_cancels_the_token_and_revokes_every_valid_certificate(world: World) -> None:
    grant = world.active_grant(world.active_peer())
    first = next(iter(grant.issuances.values())).serial
    second = world.enroll(grant, "another key")
    token = world.token(grant)
    revoked = world.revoke(grant)
    assert revoked.status is world.status(grant) is S.REVOKED
    assert revoked.tokens[token.accessor].state is TokenState.CANCELLED
    assert not live_tokens(revoked, world.now)
    for serial in (first, second):
        issuance = revoked.issuance_of(serial)
        assert issuance is not None
        assert issuance.revocation is not None
        assert issuance.revocation.detail == "grant-revoked"


def test_a_revocation_lists_no_certificate_twice_and_none_that_has_expired(world: World) -> None:
    grant = world.active_grant(world.active_peer())
    own = world.enroll(grant, "second")
    world.later(hours=23)
    third = world.enroll(grant, "third")
    world.revoke_certificate(grant, third)
    world.later(hours=2)
    revoked = world.revoke(grant)
    found = {one.serial: one.revocation for one in revoked.issuances.values()}
    assert found[own] is None
    assert found[third].reason == "keyCompromise"  # type: ignore[union-attr]
    assert next(iter(found.values())) is None


def test_a_revocation_is_idempotent_and_works_in_any_state_that_has_not_ended(
    world: World,
) -> None:
    peer = world.active_peer()
    makers: list[Callable[[], Grant]] = [
        lambda: world.grant(peer),
        lambda: world.grant(peer, SENSITIVE_SCOPE),
        lambda: world.active_grant(peer),
        lambda: world.suspend(world.grant(peer)),
    ]
    for make in makers:
        grant = world.revoke(make())
        assert grant.status is S.REVOKED
        assert world.revoke(grant, reason=None) == grant
    late = world.active_grant(peer)
    world.later(days=31)
    assert world.status(late) is S.EXPIRED
    assert world.revoke(late).status is S.REVOKED
    with refused("wrong-status", RefusedError):
        world.revoke(world.reject(world.grant(peer, SENSITIVE_SCOPE)))


def test_a_grant_expires_by_the_clock_whether_swept_or_not(world: World) -> None:
    grant = world.active_grant(world.active_peer(), days=1)
    world.later(days=1, microseconds=-1)
    assert world.status(grant) is S.ACTIVE
    assert world.expire(grant).status is S.ACTIVE
    world.later(microseconds=1)
    assert world.status(grant) is S.EXPIRED
    assert world.unusable(grant) == "grant-expired"
    swept = world.expire(grant)
    assert swept.status is S.EXPIRED
    assert world.expire(grant) == swept


def test_a_peers_revocation_holds_for_its_grants_at_once(world: World) -> None:
    peer = world.active_peer()
    pending, active = world.grant(peer, SENSITIVE_SCOPE), world.active_grant(peer)
    world.revoke_peer(peer)
    for grant in (pending, active):
        assert world.status(grant) is S.REVOKED
        assert world.unusable(grant, enrolling=True) == "grant-revoked"
    with refused("grant-revoked", RefusedError):
        world.approve(pending)
    with refused("grant-revoked", RefusedError):
        world.token(active)
    assert world.revoke(active).status is S.REVOKED


def test_a_peer_revoked_before_the_expiry_leaves_revoked_grants_later_expired_ones(
    world: World,
) -> None:
    peer = world.active_peer()
    early, then, late = (world.grant(peer, days=days) for days in (1, 2, 3))
    world.later(days=2)
    world.revoke_peer(peer)
    world.later(days=2)
    assert world.status(early) is S.EXPIRED
    assert world.status(then) is S.EXPIRED  # a grant is valid until its expiry, not at it
    assert world.status(late) is S.REVOKED
    # The sweeper must not turn a revoked grant into an expired one.
    assert world.expire(late).status is S.PENDING_ENROLLMENT
    assert world.expire(early).status is S.EXPIRED


@pytest.mark.parametrize("reason", [None, " "])
def test_every_command_that_takes_away_says_why(world: World, reason: str | None) -> None:
    peer = world.active_peer()
    grant, waiting, active = (
        world.grant(peer),
        world.grant(peer, SENSITIVE_SCOPE),
        world.active_grant(peer),
    )
    suspended = world.suspend(world.grant(peer))
    commands: list[Callable[[], object]] = [
        lambda: world.suspend(grant, reason=reason),
        lambda: world.resume(suspended, reason=reason),
        lambda: world.revoke(grant, reason=reason),
        lambda: world.reject(waiting, reason=reason),
        lambda: world.approve(waiting, reason=reason),
        lambda: world.narrow(active, scope=scope("tasks"), reason=reason),
        lambda: world.amend(grant, scope=scope("tasks"), reason=reason),
    ]
    for command in commands:
        with refused("reason-required", InvalidError):
            command()


# ---- usable -----------------------------------------------------------------------------------


def test_usable_means_status_peer_and_time(world: World) -> None:
    pending = world.peer("Pending")
    peer = world.active_peer()
    soon = world.grant(peer, not_before=world.now + timedelta(hours=1))
    waiting = world.grant(peer, SENSITIVE_SCOPE)
    assert world.unusable(world.grant(pending), enrolling=True) == "peer-not-active"
    assert world.unusable(soon, enrolling=True) == "not-yet-valid"
    assert world.unusable(soon) == "grant-pending-enrollment"
    assert world.unusable(waiting, enrolling=True) == "grant-pending-approval"
    world.later(hours=1)
    assert world.unusable(soon, enrolling=True) is None
    world.enroll(soon)
    assert world.unusable(soon) is None
    world.suspend(soon)
    assert world.unusable(soon) == "grant-suspended"
    assert world.unusable(world.reject(waiting)) == "grant-rejected"


def test_a_stream_that_no_command_wrote_is_not_folded(world: World) -> None:
    grant = world.approve(world.grant(world.active_peer(), SENSITIVE_SCOPE))
    proposed, approved = [event for event in world.events if event.originator_id == grant.id]
    with pytest.raises(ValueError, match="cannot hold"):
        evolve(None, approved)
    foreign = PolicyChanged(
        four_eyes=True,
        required_approvals=1,
        approval_days=1,
        max_grant_days=1,
        certificate_ttl=1,
        token_ttl=1,
    )
    world.events.clear()
    with pytest.raises(ValueError, match="cannot hold"):
        world.record(Grant, grant.id, [foreign])
    assert evolve(None, proposed).version == 1


def test_times_are_moments_not_texts(world: World) -> None:
    there = timezone(timedelta(hours=-7))
    grant = world.grant(world.active_peer(), not_before=datetime(2026, 11, 23, 9, tzinfo=there))
    assert grant.not_before == datetime(2026, 11, 23, 16, tzinfo=UTC)
