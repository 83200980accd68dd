"""Peers over HTTP: wire models and rows. Handlers are in `api/handlers/peers.py`."""

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field, StringConstraints

from api.operation import ADMIN, READERS, Operation
from api.wire import AsOf, Id, Nothing, PastPage, Reasoned, Text, Time, Wire

PeerState: TypeAlias = Literal["pending", "active", "suspended", "revoked"]
PeerName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$"),
    Field(description="Unique among all ever registered, whatever the case; never changed."),
]
BaseUrl = Annotated[
    str,
    StringConstraints(max_length=2000, pattern=r"^https://[^\s]+$"),
    Field(description="Where the peer's server answers; https only."),
]


class RegisterPeer(Nothing):
    """A new peer, pending until somebody verified who it is."""

    name: PeerName
    base_url: BaseUrl


class ActivatePeer(Nothing):
    """What was verified about the peer, and how."""

    verification: Text


class UpdatePeer(Nothing):
    """What may change about a peer."""

    base_url: BaseUrl


class RevokePeer(Reasoned):
    """The end of a peer. With live grants it must say what becomes of them."""

    grants: Annotated[
        Literal["revoke"] | None,
        Field(description="`revoke`: its live grants are revoked too; needed if there are any."),
    ] = None


class Peer(Wire):
    """A peer as it stands."""

    id: Id
    version: int
    name: str
    base_url: str
    state: PeerState
    verification: str | None
    registered_at: Time
    activated_at: Time | None
    suspended_at: Time | None
    revoked_at: Time | None
    changed_at: Time


class Peers(Wire):
    """One page of peers, by name."""

    items: list[Peer]
    next: str | None


class PeerFilter(PastPage):
    """Which peers to list."""

    state: PeerState | None = None
    name: Annotated[str | None, Field(max_length=64, description="In any case of letters.")] = None


_PATH: Final = "/v1/peers/{peer_id}"

ROWS: Final = (
    Operation(
        name="peer.register",
        method="POST",
        path="/v1/peers",
        summary="Register a peer",
        description="The peer is `pending`: grants can be proposed, none can be used.",
        roles=ADMIN,
        command=True,
        versioned=True,
        body=RegisterPeer,
        out=Peer,
        status=201,
        problems=("peer-name-taken", "peer-name", "base-url"),
        example={"name": "Example Hospital", "base_url": "https://ledger.example.org"},
    ),
    Operation(
        name="peer.list",
        method="GET",
        path="/v1/peers",
        summary="List peers",
        roles=READERS,
        query=PeerFilter,
        out=Peers,
    ),
    Operation(
        name="peer.show",
        method="GET",
        path=_PATH,
        summary="Show a peer",
        roles=READERS,
        versioned=True,
        query=AsOf,
        out=Peer,
    ),
    Operation(
        name="peer.activate",
        method="POST",
        path=f"{_PATH}/activate",
        summary="Activate a peer after verifying it",
        roles=ADMIN,
        command=True,
        versioned=True,
        body=ActivatePeer,
        out=Peer,
        problems=("peer-wrong-state", "verification-required"),
        example={"verification": "Called the number in the contract; read the key digest back."},
    ),
    Operation(
        name="peer.update",
        method="PATCH",
        path=_PATH,
        summary="Change a peer's URL",
        roles=ADMIN,
        command=True,
        versioned=True,
        body=UpdatePeer,
        out=Peer,
        problems=("peer-wrong-state", "base-url"),
        example={"base_url": "https://federation.example.org"},
    ),
    Operation(
        name="peer.suspend",
        method="POST",
        path=f"{_PATH}/suspend",
        summary="Suspend a peer, and so all its grants",
        description="Derived into its grants' effective status, never copied: resuming restores.",
        roles=ADMIN,
        command=True,
        versioned=True,
        body=Reasoned,
        out=Peer,
        problems=("peer-wrong-state", "reason-required"),
        example={"reason": "Unusual traffic; asking them."},
    ),
    Operation(
        name="peer.resume",
        method="POST",
        path=f"{_PATH}/resume",
        summary="Resume a suspended peer",
        roles=ADMIN,
        command=True,
        versioned=True,
        body=Reasoned,
        out=Peer,
        problems=("peer-wrong-state", "reason-required"),
        example={"reason": "Explained by a migration on their side."},
    ),
    Operation(
        name="peer.revoke",
        method="POST",
        path=f"{_PATH}/revoke",
        summary="Revoke a peer for good",
        description="Holds for all its grants from this event's position on.",
        roles=ADMIN,
        command=True,
        versioned=True,
        body=RevokePeer,
        out=Peer,
        problems=("peer-has-live-grants", "reason-required"),
        example={"reason": "The contract has ended.", "grants": "revoke"},
    ),
)
