"""Enrollment tokens and their redemption: one token, one certificate, and silence to strangers."""

from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from ledger import authorities, enrollment, issuance
from ledger.authorities import Authority
from ledger.errors import (
    GoneError,
    InvalidError,
    NotFoundError,
    RefusedError,
    UnauthorizedError,
    UnavailableError,
)
from ledger.events import EnrollmentTokenRedeemed, IssuanceAuthorized
from ledger.grant_state import Grant, GrantStatus, IssuanceState, TokenState
from ledger.grant_status import live_tokens, token_state
from ledger.issuance import AlreadyIssued, Authorized, Closed, StillOpen
from ledger.peers import Peer
from support.given import PLAIN_SCOPE, SENSITIVE_SCOPE, World, digest, refused, request


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def peer(world: World) -> Peer:
    return world.active_peer()


@pytest.fixture
def grant(world: World, peer: Peer) -> Grant:
    return world.grant(peer)


# ---- the token --------------------------------------------------------------------------------


def test_a_token_lives_as_long_as_the_policy_says_and_never_past_the_grant(
    world: World, peer: Peer, grant: Grant
) -> None:
    assert world.token(grant).expires_at == world.now + timedelta(hours=24)
    assert world.token(grant, ttl=timedelta(days=7)).expires_at == world.now + timedelta(days=7)
    world.change_policy(token_ttl=60)
    assert world.token(grant).expires_at == world.now + timedelta(seconds=60)
    short = world.grant(peer, days=0.01)
    assert world.token(short, ttl=timedelta(days=1)).expires_at == short.expires_at


@pytest.mark.parametrize("seconds", [0, -1, 7 * 86400 + 1])
def test_other_lives_are_refused(world: World, grant: Grant, seconds: int) -> None:
    with refused("token-ttl", InvalidError):
        world.token(grant, ttl=timedelta(seconds=seconds))


@pytest.mark.parametrize("pin", ["", "abc", "A" * 64, "0" * 65])
def test_a_pin_is_a_digest(world: World, grant: Grant, pin: str) -> None:
    with refused("key-digest", InvalidError):
        world.token(grant, pin=pin)


def test_a_new_token_cancels_the_old_one(world: World, grant: Grant) -> None:
    old, new = world.token(grant), world.token(grant)
    now = world.again(grant)
    assert live_tokens(now, world.now) == (new,)
    assert now.tokens[old.accessor].state is TokenState.CANCELLED
    with refused("unauthorized", UnauthorizedError):
        world.redeem(grant, old)


def test_tokens_are_for_grants_to_enroll_or_active(world: World, peer: Peer) -> None:
    world.token(world.active_grant(peer))
    with refused("grant-pending-approval", RefusedError):
        world.token(world.grant(peer, SENSITIVE_SCOPE))
    with refused("grant-suspended", RefusedError):
        world.token(world.suspend(world.grant(peer)))
    with refused("grant-revoked", RefusedError):
        world.token(world.revoke(world.grant(peer)))


def test_a_token_for_a_pending_peer_waits_for_its_activation(world: World) -> None:
    grant = world.grant(world.peer("Not yet"))
    token = world.token(grant)
    with refused("peer-not-active", RefusedError):
        world.redeem(grant, token)


def test_cancelling_is_idempotent_but_not_for_what_was_redeemed(world: World, grant: Grant) -> None:
    token = world.token(grant)
    cancelled = world.cancel_token(grant, token)
    assert cancelled.tokens[token.accessor].state is TokenState.CANCELLED
    assert world.cancel_token(grant, token) == cancelled
    used = world.token(grant)
    world.redeem(grant, used)
    with refused("token-redeemed", RefusedError):
        world.cancel_token(grant, used)
    with refused("not-found", NotFoundError):
        world.cancel_token(grant, replace(used, accessor="0" * 16))


def test_an_expired_token_shows_as_expired_and_needs_no_cancelling(
    world: World, grant: Grant
) -> None:
    token = world.token(grant)
    world.later(hours=24)
    now = world.again(grant)
    assert token_state(token, now, world.now) is TokenState.EXPIRED
    assert world.cancel_token(grant, token) == now


def test_a_token_ends_with_a_grant_that_was_narrowed_since(world: World, peer: Peer) -> None:
    grant = world.active_grant(peer)
    token = world.token(grant)
    world.narrow(grant, expires_at=world.now + timedelta(hours=1))
    world.later(hours=1)
    assert token_state(token, world.again(grant), world.now) is TokenState.EXPIRED
    assert not live_tokens(world.again(grant), world.now)
    with refused("unauthorized") as caught:
        world.redeem(grant, token, "third")
    assert caught.value.facts["cause"] == "token-expired"


def test_ten_failures_lock_a_token(world: World, grant: Grant) -> None:
    token = world.token(grant)
    assert enrollment.lock_token(world.again(grant), token.accessor, 9, world.now) == ()
    facts = enrollment.lock_token(world.again(grant), token.accessor, 10, world.now)
    locked = world.record(Grant, grant.id, facts)
    assert locked.tokens[token.accessor].state is TokenState.LOCKED
    assert enrollment.lock_token(locked, token.accessor, 11, world.now) == ()
    assert enrollment.lock_token(locked, "0" * 16, 11, world.now) == ()
    with refused("unauthorized", UnauthorizedError) as caught:
        world.redeem(grant, token)
    assert caught.value.facts["cause"] == "token-locked"


def test_only_who_knows_the_secret_can_get_a_token_locked() -> None:
    counting = ["wrong-pin", "csr-key", "csr-malformed", "key-taken", "key-compromised"]
    others = ["unknown-token", "wrong-secret", "token-expired", "grant-suspended", "not-yet-valid"]
    assert all(map(enrollment.counts_towards_lock, counting))
    assert not any(map(enrollment.counts_towards_lock, others))


# ---- redeeming --------------------------------------------------------------------------------


def test_a_redemption_authorizes_exactly_what_was_ordered(world: World, grant: Grant) -> None:
    token, order = world.token(grant), world.order(grant)
    outcome = world.redeem(grant, token, order=order).outcome
    assert isinstance(outcome, Authorized)
    redeemed, authorized = outcome.facts
    assert isinstance(redeemed, EnrollmentTokenRedeemed)
    assert isinstance(authorized, IssuanceAuthorized)
    asked = request("first")
    assert (redeemed.csr_sha256, redeemed.key_digest) == (asked.csr_sha256, asked.key_digest)
    assert (authorized.kind, authorized.generation) == ("enrollment", 1)
    assert (authorized.accessor, authorized.predecessor) == (token.accessor, None)
    assert (authorized.csr, authorized.key_digest) == (asked.der, asked.key_digest)
    assert (authorized.serial, authorized.not_after) == (order.serial, order.not_after)
    assert set(outcome.claims) == {("key-digest", asked.key_digest), ("serial", order.serial)}
    issued = world.again(grant).issuances[order.issuance_id]
    assert issued.open
    assert world.again(grant).tokens[token.accessor].state is TokenState.REDEEMED


def test_a_stranger_cannot_tell_the_causes_apart(world: World, grant: Grant) -> None:
    token = world.token(grant, pin=digest("key first"))
    causes, texts = [], set()

    def attempt(**how: str) -> None:
        with refused("unauthorized", UnauthorizedError) as caught:
            world.redeem(grant, how.pop("token", token), **how)  # type: ignore[arg-type]
        causes.append(caught.value.facts.pop("cause"))
        assert not caught.value.facts
        texts.add(str(caught.value))

    attempt(token=replace(token, accessor="0" * 16))  # type: ignore[arg-type]
    attempt(secret=digest("guess"))
    attempt(name="another")
    world.redeem(grant, token)
    attempt(name="another", key="first")
    world.later(hours=24)
    attempt()
    assert causes == [
        "unknown-token",
        "wrong-secret",
        "wrong-pin",
        "token-replayed",
        "token-expired",
    ]
    assert texts == {"enrollment token is not valid"}


def test_a_pinned_token_works_with_its_key(world: World, grant: Grant) -> None:
    token = world.token(grant, pin=request("mine").key_digest)
    assert isinstance(world.redeem(grant, token, "mine").outcome, Authorized)


def test_the_same_request_finds_its_open_issuance_and_then_its_certificate(
    world: World, grant: Grant
) -> None:
    token = world.token(grant)
    first = world.redeem(grant, token)
    again = world.redeem(grant, token).outcome
    assert isinstance(again, StillOpen)
    assert again.issuance.id == first.issuance_id
    world.complete(grant, first.issuance_id)
    answered = world.redeem(grant, token).outcome
    assert isinstance(answered, AlreadyIssued)
    assert answered.issuance.certificate == str(first.issuance_id).encode()
    assert len(world.again(grant).issuances) == 1


def test_after_a_failure_the_same_request_gets_a_new_serial(world: World, grant: Grant) -> None:
    token = world.token(grant)
    first = world.redeem(grant, token)
    world.close(grant, issuance.fail(world.again(grant), first.issuance_id, 400, "no"))
    second = world.redeem(grant, token)
    world.close(grant, issuance.abandon(world.again(grant), second.issuance_id, "gave up"))
    third = world.redeem(grant, token)
    assert isinstance(third.outcome, Authorized)
    # The key is this grant's since the first time; claiming it again would collide with itself.
    assert [kind for kind, _ in third.outcome.claims] == ["serial"]
    states = [one.state for one in world.again(grant).issuances.values()]
    assert states == [IssuanceState.FAILED, IssuanceState.ABANDONED, IssuanceState.AUTHORIZED]
    assert len({one.serial for one in world.again(grant).issuances.values()}) == 3
    with refused("unauthorized"):
        world.redeem(grant, token, "another CSR")
    world.complete(grant, third.issuance_id)
    answered = world.redeem(grant, token).outcome
    assert isinstance(answered, AlreadyIssued)
    assert answered.issuance.id == third.issuance_id


def test_a_certificate_revoked_since_is_not_handed_out_again(world: World, grant: Grant) -> None:
    token = world.token(grant)
    redemption = world.redeem(grant, token)
    world.complete(grant, redemption.issuance_id)
    world.suspend(grant)
    with refused("grant-suspended", RefusedError):
        world.redeem(grant, token)
    world.resume(grant)
    assert isinstance(world.redeem(grant, token).outcome, AlreadyIssued)
    world.revoke_certificate(grant, next(iter(world.again(grant).issuances.values())).serial)
    with refused("certificate-revoked", GoneError):
        world.redeem(grant, token)


def test_a_grant_that_is_not_usable_does_not_enroll(world: World, peer: Peer) -> None:
    soon = world.grant(peer, not_before=world.now + timedelta(hours=1))
    suspended, narrow = world.grant(peer), world.grant(peer, days=0.5)
    tokens = {one.id: world.token(one) for one in (soon, suspended, narrow)}
    world.suspend(suspended)
    with refused("not-yet-valid", RefusedError):
        world.redeem(soon, tokens[soon.id])
    with refused("grant-suspended", RefusedError):
        world.redeem(suspended, tokens[suspended.id])
    world.revoke_peer(peer)
    with refused("grant-revoked", GoneError):
        world.redeem(narrow, tokens[narrow.id])


def test_approvals_are_recounted_when_the_token_is_redeemed(world: World, peer: Peer) -> None:
    world.change_policy(approval_days=1, token_ttl=7 * 86400)
    grant = world.approve(world.grant(peer, SENSITIVE_SCOPE))
    token = world.token(grant)
    world.later(days=1)
    with refused("grant-pending-approval", RefusedError):
        world.redeem(grant, token)
    world.approve(grant)
    world.redeem(grant, token)


def test_no_certificate_is_ordered_for_the_last_five_minutes(world: World, peer: Peer) -> None:
    grant = world.grant(peer, days=1)
    token = world.token(grant)
    world.later(hours=23, minutes=55)
    world.redeem(grant, token)
    other = world.grant(peer, days=1)
    token = world.token(other)
    world.later(hours=23, minutes=55, seconds=1)
    with refused("grant-expiring", RefusedError):
        world.redeem(other, token, "second")


def test_an_authority_near_its_end_or_retired_gets_no_order(world: World, grant: Grant) -> None:
    token = world.token(grant)
    ending = world.record(
        Authority,
        uuid4(),
        authorities.adopt(None, "local", [b"x"], world.now + timedelta(minutes=4)),
    )
    world.authority = ending
    soon = world.order(grant, not_after=world.now + timedelta(minutes=3))
    with refused("authority-expiring", RefusedError):
        world.redeem(grant, token, order=soon)
    world.record(Authority, ending.id, authorities.retire(ending))
    with refused("authority-unavailable", UnavailableError):
        world.redeem(grant, token)


def test_an_order_that_does_not_follow_from_the_grant_stops(world: World, grant: Grant) -> None:
    token = world.token(grant)
    wrong: list[dict[str, object]] = [
        {"not_after": grant.expires_at + timedelta(seconds=1)},
        {"not_after": world.now + timedelta(hours=24, seconds=1)},
        {"not_before": world.now + timedelta(seconds=1)},
        {"subject": "Somebody Else"},
        {"san": (f"urn:uuid:{uuid4()}",)},
        {"san": ()},
        {"authority_id": uuid4()},
    ]
    for change in wrong:
        with refused("order-mismatch", RefusedError):
            world.redeem(grant, token, order=world.order(grant, **change))
    assert not world.again(grant).issuances


def test_the_key_of_a_compromised_certificate_is_banned(world: World, grant: Grant) -> None:
    serial = world.enroll(grant, "mine")
    # The same key once more is fine as long as nothing is known against it.
    world.redeem(grant, world.token(grant), "again", key="mine")
    world.revoke_certificate(grant, serial, "keyCompromise")
    with refused("key-compromised", RefusedError):
        world.redeem(grant, world.token(grant), "and again", key="mine")
    world.redeem(grant, world.token(grant), "new")


def test_a_second_enrollment_does_not_activate_twice(world: World, peer: Peer) -> None:
    grant = world.active_grant(peer, PLAIN_SCOPE)
    redemption = world.redeem(grant, world.token(grant), "second")
    outcome = world.complete(grant, redemption.issuance_id)
    assert isinstance(outcome, Closed)
    assert len(outcome.facts) == 1
    assert world.again(grant).status is GrantStatus.ACTIVE
    assert world.again(grant).activated_at == grant.activated_at
