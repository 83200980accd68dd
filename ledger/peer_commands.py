"""The commands about peers: see `ledger/peers.py` for their rules.

A peer's grants are found by the caller, who may ask a table; their streams are folded again here.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from uuid import UUID, uuid4

from ledger import grants, peers
from ledger.appends import ClaimTakenError
from ledger.commands import Commands, permit, policy_in, put
from ledger.errors import RefusedError, UnavailableError
from ledger.events import Event, Fact
from ledger.grant_state import TERMINAL, Grant
from ledger.grant_status import effective_status
from ledger.peers import Peer, PeerState
from ledger.reading import Call, Reading
from ledger.store import Recorded

FindIds = Callable[[UUID], Sequence[UUID]]
"""Looks up ids in a table: the grants of a peer."""


class PeerCommands(Commands):
    """Register, activate, update, suspend, resume, revoke."""

    def register_peer(self, call: Call, name: str, base_url: str) -> Recorded[Peer]:
        """See `peers.register`; RefusedError peer-name-taken if the name was ever registered."""
        peer_id = uuid4()

        def decide(reading: Reading) -> Peer:
            permit(reading, call, "register-peer")
            facts = peers.register(name, base_url)
            return reading.append(Peer, peer_id, *facts, claims=[peers.claimed_name(name)])

        try:
            return self.decide(call, decide)
        except ClaimTakenError:
            raise RefusedError(
                "a peer of this name was registered before; choose another name",
                code="peer-name-taken",
            ) from None

    def activate_peer(self, call: Call, peer_id: UUID, verification: str) -> Recorded[Peer]:
        """See `peers.activate`."""
        return self.change(
            call, "activate-peer", Peer, peer_id, lambda _, peer: peers.activate(peer, verification)
        )

    def update_peer(self, call: Call, peer_id: UUID, base_url: str) -> Recorded[Peer]:
        """See `peers.update`."""
        return self.change(
            call, "update-peer", Peer, peer_id, lambda _, peer: peers.update(peer, base_url)
        )

    def suspend_peer(self, call: Call, peer_id: UUID) -> Recorded[Peer]:
        """See `peers.suspend`."""
        return self.change(
            call, "suspend-peer", Peer, peer_id, lambda _, peer: peers.suspend(peer, call.reason)
        )

    def resume_peer(self, call: Call, peer_id: UUID) -> Recorded[Peer]:
        """See `peers.resume`."""
        return self.change(
            call, "resume-peer", Peer, peer_id, lambda _, peer: peers.resume(peer, call.reason)
        )

    def revoke_peer(
        self, call: Call, peer_id: UUID, *, revoke_grants: bool, grants_of: FindIds
    ) -> Recorded[Peer]:
        """Revoke a peer (see `peers.revoke`), then its grants one by one.

        The first append is what counts: from its position on every grant of the peer is revoked.
        The rest is bookkeeping, each with the peer's event as its cause. If it stops half-way,
        `finish_peer_revocation` takes it up.
        """

        def rule(reading: Reading, peer: Peer) -> Sequence[Fact]:
            live = () if revoke_grants else _live_grants(reading, peer, grants_of(peer_id))
            return peers.revoke(peer, call.reason, live_grants=live, revoke_grants=revoke_grants)

        recorded = self.change(call, "revoke-peer", Peer, peer_id, rule)
        try:
            events, position = self._follow(call, recorded.value, grants_of)
        except UnavailableError:
            return recorded  # The reconciler will; the revocation itself is on record and holds.
        return replace(
            recorded,
            events=(*recorded.events, *events),
            position=max(recorded.position, position),
        )

    def finish_peer_revocation(self, call: Call, peer_id: UUID, grants_of: FindIds) -> int:
        """Append the `grant.revoked` events that follow from a peer's revocation and are missing.

        For the reconciler; may be repeated. Returns the last position written, 0 if nothing was
        to do. A grant that expired before the revocation stays an expired one.
        """
        peer = self.load(Peer, peer_id)
        return 0 if peer is None else self._follow(call, peer, grants_of)[1]

    def _follow(self, call: Call, peer: Peer, grants_of: FindIds) -> tuple[tuple[Event, ...], int]:
        if peer.state is not PeerState.REVOKED:
            return (), 0
        following = replace(
            call,
            reason=peer.revocation_reason,
            causation_id=peer.revocation_event,
            expected_version=None,
            idempotency=None,
        )
        events: tuple[Event, ...] = ()
        last = 0
        for grant_id in grants_of(peer.id):
            # One append each: a peer may have more grants than one append may hold events.
            recorded = self.decide(following, _follow_peer(peer, grant_id))
            events += recorded.events
            last = recorded.position if recorded.events else last
        return events, last


def _live_grants(reading: Reading, peer: Peer, ids: Iterable[UUID]) -> list[UUID]:
    found = (reading.maybe(Grant, grant_id) for grant_id in ids)
    current = policy_in(reading)
    return [
        grant.id
        for grant in found
        if grant is not None
        and grant.peer_id == peer.id
        and effective_status(grant, peer, current, reading.at) not in TERMINAL
    ]


def _follow_peer(peer: Peer, grant_id: UUID) -> Callable[[Reading], Grant | None]:
    def decide(reading: Reading) -> Grant | None:
        grant = reading.maybe(Grant, grant_id)
        if grant is None or grant.peer_id != peer.id or grant.status in TERMINAL:
            return grant
        if peer.revoked_at is None or peer.revoked_at >= grant.expires_at:
            return grant
        facts = grants.revoke(grant, peer.revocation_reason, reading.at, detail="peer-revoked")
        return put(reading, grant, Grant, grant_id, facts)

    return decide
