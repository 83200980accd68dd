"""Who may do what, held against a literal copy of the specification's table."""

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import pytest
from msgspec.structs import replace

from ledger import bearer, operators
from ledger.errors import (
    ForbiddenError,
    InvalidError,
    NotFoundError,
    RefusedError,
    UnauthorizedError,
)
from ledger.events import Actor, CredentialRevoked, OperatorRolesChanged
from ledger.operators import WHO_MAY, Operator, command_for, evolve, require
from support.given import START, World, refused

ROLES = ("admin", "approver", "auditor", "operator", "gateway")

# Written down from the specification, on purpose not derived from WHO_MAY.
MATRIX = {
    "register-peer": "admin",
    "activate-peer": "admin",
    "update-peer": "admin",
    "suspend-peer": "admin",
    "resume-peer": "admin",
    "revoke-peer": "admin",
    "propose-grant": "admin",
    "amend-grant": "admin",
    "narrow-grant": "admin",
    "suspend-grant": "admin",
    "resume-grant": "admin",
    "revoke-grant": "admin",
    "issue-enrollment-token": "admin",
    "cancel-enrollment-token": "admin",
    "revoke-certificate": "admin",
    "write-operator": "admin",
    "approve-grant": "approver",
    "reject-grant": "approver",
    "resume-grant-after-clone": "approver",
    "change-policy": "approver",
    "write-approver": "approver",
    "approve-grant-without-four-eyes": "approver admin",
    "acknowledge-alarm": "operator",
    "expire-grant": "",
    "lock-enrollment-token": "",
    "tell-authority": "",
    "create-ledger": "",
    "rotate-log-key": "",
    "checkpoint-access": "",
    "adopt-authority": "",
    "retire-authority": "",
    "publish-crl": "",
    "find-unknown-certificate": "",
}


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize("role", ROLES)
def test_the_matrix(world: World, role: str) -> None:
    actor = world.person(role)
    for command, allowed in MATRIX.items():
        if role in allowed.split():
            require(command, actor, world.operator(actor), world.now)
        else:
            with refused("forbidden", ForbiddenError) as caught:
                require(command, actor, world.operator(actor), world.now)
            assert caught.value.facts["roles"] == sorted(allowed.split())


def test_the_matrix_is_complete() -> None:
    assert set(WHO_MAY) <= set(MATRIX)


def test_the_machine_itself_and_our_own_bookkeeping_pass(world: World) -> None:
    for actor in (world.local, world.system):
        for command in MATRIX:
            require(command, actor, None, world.now)


@pytest.mark.parametrize("kind", ["peer", "gateway"])
def test_nobody_else_commands(world: World, kind: str) -> None:
    actor = Actor(kind=kind, id="x", roles=("admin",), auth="certificate")  # type: ignore[arg-type]
    for command in MATRIX:
        with refused("forbidden", ForbiddenError):
            require(command, actor, None, world.now)


def test_the_folded_roles_count_not_those_a_caller_claims(world: World) -> None:
    actor = replace_roles(world.person("auditor"), "admin", "approver")
    with refused("forbidden", ForbiddenError):
        require("propose-grant", actor, world.operator(actor), world.now)


def replace_roles(actor: Actor, *roles: str) -> Actor:
    return replace(actor, roles=roles)


def test_a_credential_must_be_the_operators_own_and_alive(world: World) -> None:
    actor = world.admin
    mine = world.operator(actor)
    foreign = replace(actor, credential=world.admin_2.credential)
    none = replace(actor, credential=None)
    for stranger, operator in ((foreign, mine), (none, mine), (actor, None)):
        with refused("unauthorized", UnauthorizedError):
            require("propose-grant", stranger, operator, world.now)
    with refused("unauthorized", UnauthorizedError):
        require("propose-grant", actor, mine, world.now + timedelta(days=366))
    require("propose-grant", actor, mine, world.now + timedelta(days=365))
    facts = operators.revoke_credential(mine, actor.credential or "")
    revoked = world.record(Operator, mine.id, facts)
    with refused("unauthorized", UnauthorizedError):
        require("propose-grant", actor, revoked, world.now)
    assert operators.revoke_credential(revoked, actor.credential or "") == ()
    with refused("not-found", NotFoundError):
        operators.revoke_credential(revoked, "0" * 16)


def test_a_disabled_operator_is_nobody(world: World) -> None:
    actor = world.admin_2
    disabled = world.disable(actor)
    with refused("unauthorized", UnauthorizedError):
        require("propose-grant", actor, disabled, world.now)
    assert not disabled.holds("admin")
    assert all(one.revoked_at == world.now for one in disabled.credentials.values())
    assert operators.disable(disabled, world.now, others=()) == ()
    with refused("operator-disabled", RefusedError):
        operators.change_roles(disabled, ["admin"], world.local, world.now, others=())
    minted = bearer.mint(bearer.BearerKind.OPERATOR, world.randomness)
    with refused("operator-disabled", RefusedError):
        operators.issue_credential(disabled, minted, timedelta(1), world.now)


@pytest.mark.parametrize("roles", [[], ["root"], ["admin", "root"], ["Admin"]])
def test_roles_are_known_ones(roles: list[str]) -> None:
    with refused("roles", InvalidError):
        operators.register("person", roles)


def test_nobody_holds_both_sides(world: World) -> None:
    with refused("separation-of-duties", RefusedError):
        operators.register("person", ["approver", "auditor", "admin"])
    with refused("separation-of-duties", RefusedError):
        world.change_roles(world.admin, "admin", "approver")


def test_roles_are_recorded_sorted_and_once() -> None:
    [fact] = operators.register("machine", ["operator", "auditor", "operator"])
    assert fact.roles == ("auditor", "operator")  # type: ignore[attr-defined]


def test_who_writes_whom() -> None:
    assert command_for(["admin"]) == command_for(["auditor", "gateway"]) == "write-operator"
    assert command_for(["approver"]) == command_for(["auditor"], ["approver"]) == "write-approver"
    assert command_for(["approver"], ["auditor"]) == "write-approver"


def test_moving_between_the_sides_takes_two_people(world: World) -> None:
    admin, approver = world.operator(world.admin), world.operator(world.approver)
    others = ("admin", "approver")
    for operator, roles in ((admin, ["approver"]), (approver, ["admin"])):
        for actor in (world.admin_2, world.approver_2):
            with refused("forbidden", ForbiddenError):
                operators.change_roles(operator, roles, actor, world.now, others=others)
    # An approver takes the role, then an admin gives the other.
    operators.change_roles(approver, ["auditor"], world.approver_2, world.now, others=others)
    auditor = world.change_roles(world.approver, "auditor")
    assert operators.change_roles(auditor, ["admin"], world.admin, world.now, others=others)


def test_a_credential_of_one_side_never_acts_on_the_other(world: World) -> None:
    actor = world.person("auditor")
    changed = world.change_roles(actor, "approver")
    with refused("unauthorized", UnauthorizedError):
        require("approve-grant", actor, changed, world.now)
    harmless = world.person("auditor")
    world.change_roles(harmless, "auditor", "operator")
    require("acknowledge-alarm", harmless, world.operator(harmless), world.now)


def test_a_change_of_roles_says_what_dies_with_it(world: World) -> None:
    before = world.operator(world.approver)
    facts = operators.change_roles(
        before, ["auditor"], world.approver_2, world.now, others=["approver"]
    )
    assert facts == (
        OperatorRolesChanged(roles=("auditor",)),
        CredentialRevoked(accessor=world.approver.credential or ""),
    )
    assert operators.change_roles(before, ["approver"], world.local, world.now, others=()) == ()


@pytest.mark.parametrize("side", ["admin", "approver"])
def test_the_last_of_a_side_stays(world: World, side: str) -> None:
    operator = world.operator(world.admin if side == "admin" else world.approver)
    commands: list[Callable[[list[str]], object]] = [
        lambda others: operators.disable(operator, START, others=others),
        lambda others: operators.change_roles(
            operator, ["auditor"], world.local, START, others=others
        ),
    ]
    for command in commands:
        with refused("last-holder", RefusedError) as caught:
            command([])
        assert caught.value.facts["roles"] == [side]
        assert command([side])
    auditor = world.operator(world.person("auditor"))
    assert operators.disable(auditor, START, others=[])


@pytest.mark.parametrize("ttl", [timedelta(0), timedelta(-1), timedelta(days=366, seconds=1)])
def test_a_credential_ends(world: World, ttl: timedelta) -> None:
    minted = bearer.mint(bearer.BearerKind.OPERATOR, world.randomness)
    with refused("credential-ttl", InvalidError):
        operators.issue_credential(world.operator(world.admin), minted, ttl, world.now)


def test_no_secret_is_in_an_operators_state(world: World) -> None:
    minted = bearer.mint(bearer.BearerKind.OPERATOR, world.randomness)
    operator = world.operator(world.admin)
    facts = operators.issue_credential(operator, minted, timedelta(days=1), world.now)
    after = world.record(Operator, operator.id, facts)
    assert minted.text not in repr(after)
    assert after.credentials[minted.accessor].token_sha256 == minted.digest


def test_a_stream_that_no_command_wrote_is_not_folded(world: World) -> None:
    registered, issued = [e for e in world.events if e.originator_id == UUID(world.admin.id)]
    with pytest.raises(ValueError, match="cannot start"):
        evolve(None, issued)
    world.peer()
    with pytest.raises(ValueError, match="cannot hold"):
        evolve(evolve(None, registered), world.events[-1])
