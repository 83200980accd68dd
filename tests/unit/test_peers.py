"""A peer's life: pending, active, suspended, and revoked for good."""

from collections.abc import Callable

import pytest

from ledger import peers
from ledger.errors import InvalidError, RefusedError
from ledger.events import PeerUpdated
from ledger.peers import Peer, PeerState, claimed_name, evolve
from support.given import REASON, World, refused


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize("name", ["a", "A b.c_d-e", "0", "x" * 64])
def test_names_that_may_be_registered(name: str) -> None:
    [fact] = peers.register(name, "https://peer.example")
    assert fact.name == name  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["", " a", "-a", ".a", "x" * 65, "a\n", "ä", "a/b", "a\0", "٣"])
def test_names_that_may_not(name: str) -> None:
    with refused("peer-name", InvalidError):
        peers.register(name, "https://peer.example")


def test_a_name_is_claimed_case_folded() -> None:
    assert (
        claimed_name("Example ORG") == claimed_name("example org") == ("peer-name", "example org")
    )


@pytest.mark.parametrize(
    "url",
    [
        "https://peer.example",
        "https://peer.example:8443/federation/",
        "https://[2001:db8::1]:443",
        "https://xn--bcher-kva.example",
    ],
)
def test_base_urls(url: str) -> None:
    assert peers.register("A", url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "peer.example",
        "http://peer.example",
        "https://",
        "https:///path",
        "https://user@peer.example",
        "https://user:secret@peer.example",
        "https://peer.example?x=1",
        "https://peer.example#x",
        "https://peer.example:x",
        "https://peer.example:0",
        "https://peer.example:99999",
        "https://peer .example",
        "https://peer.example\n",
        "https://bücher.example",
        "https://[::1",
        "https://peer.example/" + "x" * 2000,
    ],
)
def test_no_base_urls(world: World, url: str) -> None:
    with refused("base-url", InvalidError):
        peers.register("A", url)
    with refused("base-url", InvalidError):
        peers.update(world.peer(), url)


def test_a_life(world: World) -> None:
    peer = world.peer()
    assert peer.state is PeerState.PENDING
    peer = world.record(Peer, peer.id, peers.activate(peer, "called them back"))
    assert (peer.state, peer.verification) == (PeerState.ACTIVE, "called them back")
    assert peer.activated_at == world.now
    world.later(hours=1)
    assert world.suspend_peer(peer).suspended_at == world.now
    resumed = world.resume_peer(peer)
    assert (resumed.state, resumed.suspended_at) == (PeerState.ACTIVE, None)
    world.later(hours=1)
    revoked = world.revoke_peer(peer)
    assert (revoked.state, revoked.revoked_at) == (PeerState.REVOKED, world.now)
    assert revoked.revocation_event == world.events[-1].id
    assert revoked.revocation_reason == REASON
    assert revoked.version == 5


@pytest.mark.parametrize("verification", ["", "  ", "x" * 2001])
def test_an_activation_says_what_was_verified(world: World, verification: str) -> None:
    with refused("verification-required", InvalidError):
        peers.activate(world.peer(), verification)


def test_an_update_to_the_same_is_no_event(world: World) -> None:
    peer = world.peer()
    assert peers.update(peer, peer.base_url) == ()
    assert peers.update(peer, "https://new.example") == (
        PeerUpdated(base_url="https://new.example"),
    )


def _states(world: World) -> dict[PeerState, Peer]:
    suspended, revoked = world.active_peer("S"), world.active_peer("R")
    return {
        PeerState.PENDING: world.peer("P"),
        PeerState.ACTIVE: world.active_peer("A"),
        PeerState.SUSPENDED: world.suspend_peer(suspended),
        PeerState.REVOKED: world.revoke_peer(revoked),
    }


@pytest.mark.parametrize(
    ("command", "allowed"),
    [
        (lambda peer: peers.activate(peer, "seen"), {"pending"}),
        (lambda peer: peers.update(peer, "https://x.example"), {"pending", "active", "suspended"}),
        (lambda peer: peers.suspend(peer, REASON), {"active"}),
        (lambda peer: peers.resume(peer, REASON), {"suspended"}),
        (
            lambda peer: peers.revoke(peer, REASON, live_grants=(), revoke_grants=False),
            {"pending", "active", "suspended", "revoked"},
        ),
    ],
)
def test_each_command_has_its_states(
    world: World, command: Callable[[Peer], object], allowed: set[str]
) -> None:
    for state, peer in _states(world).items():
        if state in allowed:
            command(peer)
        else:
            with refused("peer-wrong-state", RefusedError) as caught:
                command(peer)
            assert caught.value.facts["state"] == state.value


def test_taking_a_peers_rights_says_why(world: World) -> None:
    states = _states(world)
    commands: list[Callable[[], object]] = [
        lambda: peers.suspend(states[PeerState.ACTIVE], None),
        lambda: peers.resume(states[PeerState.SUSPENDED], ""),
        lambda: peers.revoke(states[PeerState.ACTIVE], " ", live_grants=(), revoke_grants=True),
    ]
    for command in commands:
        with refused("reason-required", InvalidError):
            command()


def test_a_revocation_with_live_grants_must_be_meant(world: World) -> None:
    peer = world.active_peer()
    live = [world.grant(peer).id, world.grant(peer).id]
    with refused("peer-has-live-grants", RefusedError) as caught:
        peers.revoke(peer, REASON, live_grants=live, revoke_grants=False)
    assert caught.value.facts["grants"] == [str(one) for one in live]
    assert peers.revoke(peer, REASON, live_grants=live, revoke_grants=True)
    revoked = world.revoke_peer(peer)
    assert peers.revoke(revoked, None, live_grants=live, revoke_grants=False) == ()


def test_a_stream_that_no_command_wrote_is_not_folded(world: World) -> None:
    world.active_peer()
    registered, activated = world.events[-2:]
    with pytest.raises(ValueError, match="cannot start"):
        evolve(None, activated)
    with pytest.raises(ValueError, match="cannot hold"):
        evolve(evolve(None, registered), world.events[0])
