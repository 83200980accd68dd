"""What if: what is decided again, what stands, and what would not have been."""

from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ledger.authorities import Authority
from ledger.bodies import stored_json
from ledger.errors import LedgerError
from ledger.events import CrlPublished, Event
from ledger.grant_state import Grant
from projections.replay import FoldError
from projections.what_if import Difference, Placed, Revoked, WhatIfError, Without, what_if
from support.given import PLAIN_SCOPE, SENSITIVE_SCOPE, START, World


class Recording(World):
    """A world that remembers which events came of one command, as the ledger's appends do."""

    def __init__(self) -> None:
        self.appends: list[list[Event]] = []
        super().__init__()

    def record(self, kind: Any, stream_id: Any, facts: Any, **more: Any) -> Any:
        before = len(self.events)
        state = super().record(kind, stream_id, facts, **more)
        self.appends.append(self.events[before:])
        return state

    def placed(self) -> list[Placed]:
        found: list[Placed] = []
        for number, append in enumerate(self.appends):
            for event in append:
                moment = START + timedelta(microseconds=number) + (event.at - START)
                found.append(Placed(len(found) + 1, moment, event))
        return found

    def without(self, event: Event) -> Difference:
        placed = self.placed()
        (position,) = [one.position for one in placed if one.event is event]
        return what_if(placed, Without(position))


def topics(difference: Difference) -> list[str]:
    return [one.topic.removesuffix(".v1") for one in difference.events]


def reasons(difference: Difference) -> dict[str, str]:
    return {one.topic.removesuffix(".v1"): one.because for one in difference.events}


def ends(difference: Difference) -> dict[str, tuple[str, str | None]]:
    return {one.id: (one.actual, one.altered) for one in difference.changed}


def last(world: World, topic: str) -> Event:
    return next(e for e in reversed(world.events) if f"{topic}.v1" == e.data.TOPIC)


def test_without_an_approval_nothing_that_needed_it_would_have_been() -> None:
    world = Recording()
    grant = world.active_grant(world.active_peer(), SENSITIVE_SCOPE)
    (serial,) = [one.serial for one in grant.issuances.values()]
    found = world.without(last(world, "grant.approved"))
    assert reasons(found) == {
        "grant.approved": "left-out",
        "enrollment-token.issued": "grant-pending-approval",
        "enrollment-token.redeemed": "not-found",
        "issuance.authorized": "not-found",
        "certificate.issued": "not-found",
        "grant.activated": "not-found",
    }
    assert ends(found) == {
        str(grant.id): ("active", "pending_approval"),
        serial: ("issued", None),
    }


def test_a_second_approval_stands_in_for_the_first() -> None:
    world = Recording()
    world.change_policy(required_approvals=2)
    grant = world.grant(world.active_peer(), SENSITIVE_SCOPE)
    world.approve(grant)
    first = last(world, "grant.approved")
    world.approve(grant, by=world.approver_2)
    found = world.without(first)
    assert [(one.because, one.topic) for one in found.events] == [
        ("left-out", "grant.approved.v1"),
        ("differs", "grant.approved.v1"),
    ]
    assert found.events[1].instead is not None
    assert stored_json(found.events[1].instead)["sufficient"] is False
    assert ends(found) == {str(grant.id): ("pending_enrollment", "pending_approval")}


def test_without_its_proposal_the_whole_grant_is_gone_and_nothing_else() -> None:
    world = Recording()
    peer = world.active_peer()
    other = world.active_grant(peer)
    grant = world.active_grant(peer, SENSITIVE_SCOPE)
    world.later(minutes=1)
    world.revoke(grant)
    found = what_if(world.placed(), Without(_position(world, grant, 1)))
    mine = {one.position for one in world.placed() if one.event.originator_id == grant.id}
    assert {one.position for one in found.events} == mine
    assert str(other.id) not in ends(found)
    assert all(altered is None for _, altered in ends(found).values())


def _position(world: Recording, grant: Grant, version: int) -> int:
    return next(
        one.position
        for one in world.placed()
        if (one.event.originator_id, one.event.originator_version) == (grant.id, version)
    )


def test_an_approver_who_never_got_the_role_never_approved() -> None:
    world = Recording()
    newcomer = world.person("auditor")
    world.later(minutes=1)
    world.change_roles(newcomer, "approver")
    event = last(world, "operator.roles-changed")
    world.later(minutes=1)
    # A change of side revokes credentials; this one brings its own.
    newcomer = _with_credential(world, newcomer)
    grant = world.grant(world.active_peer(), SENSITIVE_SCOPE)
    world.approve(grant, by=newcomer)
    found = world.without(event)
    assert reasons(found)["grant.approved"] == "forbidden"
    assert ends(found)[str(grant.id)] == ("pending_enrollment", "pending_approval")


def _with_credential(world: Recording, actor: Any) -> Any:
    from ledger import bearer, operators
    from ledger.operators import Operator

    operator = world.operator(actor)
    minted = bearer.mint(bearer.BearerKind.OPERATOR, world.randomness)
    facts = operators.issue_credential(operator, minted, timedelta(days=30), world.now)
    world.record(Operator, operator.id, facts)
    return replace(actor, credential=minted.accessor)


def test_without_a_certificate_its_successors_are_gone() -> None:
    world = Recording()
    grant = world.active_grant(world.active_peer())
    (serial,) = [one.serial for one in grant.issuances.values()]
    world.later(hours=20)
    renewal: Any = world.renew(grant, serial, "second")
    world.complete(grant, renewal.issuance_id)
    found = world.without(last_of(world, "certificate.issued", 0))
    assert reasons(found)["issuance.authorized"] == "not-found"
    assert [one.topic for one in found.events].count("certificate.issued.v1") == 2


def last_of(world: World, topic: str, number: int) -> Event:
    return [e for e in world.events if f"{topic}.v1" == e.data.TOPIC][number]


def test_without_a_revocation_certificates_work_on() -> None:
    world = Recording()
    grant = world.active_grant(world.active_peer())
    (serial,) = [one.serial for one in grant.issuances.values()]
    world.later(minutes=5)
    world.revoke(grant)
    found = world.without(last(world, "grant.revoked"))
    assert set(topics(found)) == {"grant.revoked", "certificate.revoked"}
    assert ends(found) == {
        str(grant.id): ("revoked", "active"),
        serial: ("revoked (grant-revoked)", "issued"),
    }


def test_without_a_peers_activation_nobody_could_enroll() -> None:
    world = Recording()
    peer = world.active_peer()
    activation = last(world, "peer.activated")
    grant = world.active_grant(peer)
    found = world.without(activation)
    assert reasons(found)["issuance.authorized"] == "peer-not-active"
    assert "grant.proposed" not in reasons(found), "a pending peer may be proposed to"
    assert ends(found)[str(grant.id)] == ("active", "pending_enrollment")


def test_a_grant_revoked_earlier_loses_what_gave_rights_afterwards_and_nothing_else() -> None:
    world = Recording()
    peer = world.active_peer()
    other, grant = world.active_grant(peer), world.active_grant(peer)
    (serial,) = [one.serial for one in grant.issuances.values()]
    world.later(hours=1)
    moment = world.now
    world.later(hours=19)
    renewal: Any = world.renew(grant, serial, "second")
    world.complete(grant, renewal.issuance_id)
    found = what_if(world.placed(), Revoked(grant.id, moment))
    assert topics(found) == ["issuance.authorized", "certificate.issued"]
    assert ends(found)[str(grant.id)] == ("active", "revoked")
    assert ends(found)[serial] == ("issued", "revoked (grant-revoked)")
    assert str(other.id) not in ends(found)


def test_what_makes_no_sense_is_said() -> None:
    world = Recording()
    grant = world.grant(world.active_peer())
    with pytest.raises(WhatIfError, match="no such event"):
        what_if(world.placed(), Without(10_000))
    with pytest.raises(WhatIfError, match="did not exist"):
        what_if(world.placed(), Revoked(grant.id, START - timedelta(days=1)))
    world.later(days=1)
    world.revoke(grant)
    with pytest.raises(WhatIfError, match="revoked by then"):
        what_if(world.placed(), Revoked(grant.id, world.now + timedelta(days=1)))


# ---- properties over made-up histories --------------------------------------------------------


@st.composite
def histories(draw: st.DrawFn) -> Recording:
    """Some peers and grants, taken through some of what can happen to them."""
    world = Recording()
    peers = [world.active_peer(f"Peer {n}") for n in range(draw(st.integers(1, 2)))]
    made: list[Grant] = []
    for _ in range(draw(st.integers(1, 8))):
        world.later(minutes=draw(st.integers(1, 60)))
        step = draw(
            st.sampled_from(["propose", "approve", "enroll", "suspend", "resume", "revoke"])
        )
        if step == "propose" or not made:
            scope = draw(st.sampled_from([PLAIN_SCOPE, SENSITIVE_SCOPE]))
            made.append(world.grant(draw(st.sampled_from(peers)), scope))
            continue
        grant = draw(st.sampled_from(made))
        with suppress(LedgerError):  # refused by the rules: so it did not happen
            getattr(world, step)(grant)
    return world


def _alone(events: Iterable[Placed], position: int) -> set[int]:
    placed = list(events)
    moment = next(one.recorded_at for one in placed if one.position == position)
    return {one.position for one in placed if one.recorded_at == moment}


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(histories(), st.data())
def test_whatever_is_left_out_takes_itself_along_and_only_what_comes_after(
    world: Recording, data: st.DataObject
) -> None:
    placed = world.placed()
    position = data.draw(st.integers(1, len(placed)))
    found = what_if(placed, Without(position))
    gone = [one.position for one in found.events]
    assert gone == sorted(set(gone)), "each once, in order"
    assert _alone(placed, position) <= set(gone)
    assert min(gone) == min(_alone(placed, position))
    assert {p.position for p in placed} >= set(gone)


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(histories(), st.data())
def test_leaving_out_the_last_command_of_a_stream_changes_that_alone(
    world: Recording, data: st.DataObject
) -> None:
    placed = world.placed()
    last_append = placed[-1].recorded_at
    mine = {one.position for one in placed if one.recorded_at == last_append}
    found = what_if(placed, Without(placed[-1].position))
    assert {one.position for one in found.events} == mine
    assert {one.because for one in found.events} == {"left-out"}
    data.draw(st.none())


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(histories())
def test_the_same_history_gives_the_same_answer(world: Recording) -> None:
    placed = world.placed()
    middle = placed[len(placed) // 2].position
    assert what_if(placed, Without(middle)) == what_if(iter(placed), Without(middle))


def test_events_that_no_command_can_have_left_so_are_refused_in_words() -> None:
    world = Recording()
    world.active_grant(world.active_peer())
    last_ones = [one for one in world.placed() if one.event.originator_version > 1]
    with pytest.raises(FoldError, match="behind version"):
        what_if(last_ones, Without(last_ones[0].position))


def test_without_an_authority_its_revocation_lists_would_not_have_been() -> None:
    # Publishing is no one's decision, but it needs a stream that has begun.
    world = Recording()
    list_of_now = CrlPublished(this_update=START, next_update=START, entries=0)
    world.record(Authority, world.authority.id, [list_of_now])
    found = world.without(last(world, "authority.adopted"))
    assert reasons(found) == {"authority.adopted": "left-out", "crl.published": "not-found"}
