"""Peers: what their operations do."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from api import peers as wire
from api.cursors import place
from api.exchange import Answer, Asked, Handler
from api.handlers.views import command, page, shown
from ledger.peers import Peer
from ledger.store import Recorded
from projections import grants, peers
from projections.peers import PeerRow


def register(asked: Asked) -> Answer:
    body = asked.body_as(wire.RegisterPeer)
    recorded = asked.services.ledger.register_peer(asked.call, body.name, body.base_url)
    return _command(asked, recorded, created=True)


def list_(asked: Asked) -> Answer:
    query = asked.query_as(wire.PeerFilter)
    return page(
        asked,
        query,
        lambda snapshot, after: peers.page(
            snapshot.connection,
            state=query.state,
            name=query.name,
            after=place(after),
            limit=query.limit + 1,
        ),
        key=lambda row: row.id,
        item=sent,
    )


def sent(row: PeerRow) -> Mapping[str, Any]:
    """A row as it is sent: what `wire.Peer` would be in JSON, which a test holds equal."""
    return row.__dict__


def show(asked: Asked) -> Answer:
    with asked.read() as snapshot:
        value = shown(wire.Peer, peers.by_id(snapshot.connection, asked.id("peer_id")))
        return Answer(value, version=value.version, position=snapshot.position)


def activate(asked: Asked) -> Answer:
    body = asked.body_as(wire.ActivatePeer)
    ledger = asked.services.ledger
    return _command(asked, ledger.activate_peer(asked.call, asked.id("peer_id"), body.verification))


def update(asked: Asked) -> Answer:
    body = asked.body_as(wire.UpdatePeer)
    ledger = asked.services.ledger
    return _command(asked, ledger.update_peer(asked.call, asked.id("peer_id"), body.base_url))


def suspend(asked: Asked) -> Answer:
    return _command(asked, asked.services.ledger.suspend_peer(asked.call, asked.id("peer_id")))


def resume(asked: Asked) -> Answer:
    return _command(asked, asked.services.ledger.resume_peer(asked.call, asked.id("peer_id")))


def revoke(asked: Asked) -> Answer:
    body = asked.body_as(wire.RevokePeer)

    def grants_of(peer_id: UUID) -> list[UUID]:
        with asked.read() as snapshot:
            return grants.live_of_peer(snapshot.connection, peer_id)

    recorded = asked.services.ledger.revoke_peer(
        asked.call,
        asked.id("peer_id"),
        revoke_grants=body.grants == "revoke",
        grants_of=grants_of,
    )
    return _command(asked, recorded)


def _command(asked: Asked, recorded: Recorded[Peer], *, created: bool = False) -> Answer:
    peer = recorded.value
    return command(
        asked,
        recorded,
        lambda: shown(wire.Peer, peer),
        peer.version,
        location=f"/v1/peers/{peer.id}" if created else None,
    )


HANDLERS: Final[Mapping[str, Handler]] = {
    "peer.register": register,
    "peer.list": list_,
    "peer.show": show,
    "peer.activate": activate,
    "peer.update": update,
    "peer.suspend": suspend,
    "peer.resume": resume,
    "peer.revoke": revoke,
}
