"""The policy: its defaults, its limits, and that every change is an event."""

import pytest

from ledger import policy
from ledger.errors import InvalidError
from ledger.events import POLICY_ID, PolicyChanged
from ledger.policy import DEFAULT, LIMITS, evolve
from support.given import World, refused


def test_the_defaults() -> None:
    assert (DEFAULT.id, DEFAULT.version) == (POLICY_ID, 0)
    assert DEFAULT.four_eyes is True
    assert DEFAULT.required_approvals == 1
    assert DEFAULT.approval_days == 7
    assert DEFAULT.max_grant_days == 365
    assert DEFAULT.certificate_ttl == 86400
    assert DEFAULT.token_ttl == 86400


def test_a_change_carries_the_whole_policy() -> None:
    [fact] = policy.change(DEFAULT, {"required_approvals": 2})
    assert fact == PolicyChanged(
        four_eyes=True,
        required_approvals=2,
        approval_days=7,
        max_grant_days=365,
        certificate_ttl=86400,
        token_ttl=86400,
    )


def test_changes_add_up() -> None:
    world = World()
    world.change_policy(four_eyes=False)
    now = world.change_policy(approval_days=3)
    assert (now.four_eyes, now.approval_days, now.version) == (False, 3, 2)
    assert now.changed_at == world.now
    assert policy.change(now, {"four_eyes": False, "approval_days": 3}) == ()
    assert policy.change(now, {}) == ()


@pytest.mark.parametrize(("asked", "needed"), [(0, 1), (1, 1), (2, 2)])
def test_at_least_one_approval_is_needed(asked: int, needed: int) -> None:
    world = World()
    assert DEFAULT.approvals == 1
    world.change_policy(required_approvals=asked)
    assert world.policy.approvals == needed


@pytest.mark.parametrize("name", LIMITS)
def test_numbers_have_limits(name: str) -> None:
    least, greatest = LIMITS[name]
    for value in (least - 1, greatest + 1, True, str(least), float(least), None):
        with refused("policy-field", InvalidError):
            policy.change(DEFAULT, {name: value})
    for value in (least, greatest):
        [fact] = policy.change(DEFAULT, {name: value})
        assert getattr(fact, name) == value


@pytest.mark.parametrize("value", [0, 1, "true", None])
def test_four_eyes_is_true_or_false(value: object) -> None:
    with refused("policy-field", InvalidError):
        policy.change(DEFAULT, {"four_eyes": value})


@pytest.mark.parametrize("name", ["id", "version", "changed_at", "four-eyes", "approvals"])
def test_other_fields_are_refused(name: str) -> None:
    with refused("policy-field", InvalidError):
        policy.change(DEFAULT, {name: 1})


def test_a_foreign_fact_is_not_folded() -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        evolve(None, World().events[0])
