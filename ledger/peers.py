"""What may happen to a peer: register, activate, update, suspend, resume, revoke.

It does not touch the peer's grants: a suspension or revocation is derived into their effective
status (`ledger/grant_status.py`), and the bookkeeping after a revocation is
`Ledger.finish_peer_revocation`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

from ledger.errors import InvalidError, RefusedError
from ledger.events import (
    Event,
    Fact,
    PeerActivated,
    PeerRegistered,
    PeerResumed,
    PeerRevoked,
    PeerSuspended,
    PeerUpdated,
)
from ledger.frozen import begun
from ledger.operators import require_reason

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}", re.ASCII)
_URL_LENGTH: Final = 2000
_URL: Final = re.compile(r"[!-~]+", re.ASCII)  # printable ASCII without blanks: RFC 3986 §2


class PeerState(StrEnum):
    """A peer's state, as in the enum type `peer_state`. `REVOKED` is final."""

    PENDING = "pending"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    REVOKED = "revoked"


@dataclass(frozen=True)
class Peer:
    """A peer as its stream tells it.

    `revocation_event` is the id of the `peer.revoked` event, which its grants' `grant.revoked`
    events name as their cause; `revocation_reason` is the text given for it.
    """

    id: UUID
    version: int
    name: str
    base_url: str
    state: PeerState
    registered_at: datetime
    changed_at: datetime
    verification: str | None = None
    activated_at: datetime | None = None
    suspended_at: datetime | None = None
    revoked_at: datetime | None = None
    revocation_event: UUID | None = None
    revocation_reason: str | None = None


def evolve(peer: Peer | None, event: Event) -> Peer:
    """Return the peer after one more event of its stream.

    Raises:
        ValueError: the stream does not start with its registration, or holds a foreign fact.
    """
    fact = event.data
    if isinstance(fact, PeerRegistered):
        return begun(
            Peer,
            id=event.originator_id,
            version=event.originator_version,
            name=fact.name,
            base_url=fact.base_url,
            state=PeerState.PENDING,
            registered_at=event.at,
            changed_at=event.at,
        )
    if peer is None:
        raise ValueError(f"a peer's stream cannot start with {fact.TOPIC}")
    return _changed(replace(peer, version=event.originator_version, changed_at=event.at), event)


def _changed(peer: Peer, event: Event) -> Peer:
    match event.data:
        case PeerActivated(verification=verification):
            return replace(
                peer, state=PeerState.ACTIVE, verification=verification, activated_at=event.at
            )
        case PeerUpdated(base_url=base_url):
            return replace(peer, base_url=base_url)
        case PeerSuspended():
            return replace(peer, state=PeerState.SUSPENDED, suspended_at=event.at)
        case PeerResumed():
            return replace(peer, state=PeerState.ACTIVE, suspended_at=None)
        case PeerRevoked():
            return replace(
                peer,
                state=PeerState.REVOKED,
                revoked_at=event.at,
                revocation_event=event.id,
                revocation_reason=event.reason,
            )
        case fact:
            raise ValueError(f"a peer's stream cannot hold {fact.TOPIC}")


def claimed_name(name: str) -> tuple[str, str]:
    """Return the claim that keeps `name` unique among all peers ever registered."""
    return ("peer-name", name.casefold())


# ---- commands ---------------------------------------------------------------------------------


def register(name: str, base_url: str) -> tuple[Fact, ...]:
    """Register a peer, pending until somebody has verified who it is.

    Raises:
        InvalidError: peer-name, base-url.
    """
    if not _NAME.fullmatch(name):
        raise InvalidError(
            "a peer's name is 1 to 64 letters, digits, blanks, dots, hyphens or underscores and "
            "starts with a letter or digit; choose such a name",
            code="peer-name",
        )
    return (PeerRegistered(name=name, base_url=_checked_url(base_url)),)


def activate(peer: Peer, verification: str) -> tuple[Fact, ...]:
    """Make a pending peer active; `verification` says what was verified, and how.

    Raises:
        InvalidError: verification-required.
        RefusedError: peer-wrong-state.
    """
    _require_state(peer, "activate", PeerState.PENDING)
    if not verification.strip() or len(verification) > _URL_LENGTH:
        raise InvalidError(
            "say in 1 to 2000 characters what was verified about the peer, and how",
            code="verification-required",
        )
    return (PeerActivated(verification=verification),)


def update(peer: Peer, base_url: str) -> tuple[Fact, ...]:
    """Change the base URL; nothing happens if it is the same.

    Raises:
        InvalidError: base-url.
        RefusedError: peer-wrong-state.
    """
    _require_state(peer, "update", PeerState.PENDING, PeerState.ACTIVE, PeerState.SUSPENDED)
    if _checked_url(base_url) == peer.base_url:
        return ()
    return (PeerUpdated(base_url=base_url),)


def suspend(peer: Peer, reason: str | None) -> tuple[Fact, ...]:
    """Suspend an active peer, and with it every grant of it until it is resumed.

    Raises:
        InvalidError: reason-required, reason-too-long.
        RefusedError: peer-wrong-state.
    """
    _require_state(peer, "suspend", PeerState.ACTIVE)
    require_reason(reason, "suspend a peer")
    return (PeerSuspended(),)


def resume(peer: Peer, reason: str | None) -> tuple[Fact, ...]:
    """Resume a suspended peer; its grants are again what they were.

    Raises:
        InvalidError: reason-required, reason-too-long.
        RefusedError: peer-wrong-state.
    """
    _require_state(peer, "resume", PeerState.SUSPENDED)
    require_reason(reason, "resume a peer")
    return (PeerResumed(),)


def revoke(
    peer: Peer, reason: str | None, *, live_grants: Sequence[UUID], revoke_grants: bool
) -> tuple[Fact, ...]:
    """Revoke a peer for good; nothing happens if it is revoked already.

    `live_grants` are the ids of its grants with an effective status that is not final.

    Raises:
        InvalidError: reason-required, reason-too-long.
        RefusedError: peer-has-live-grants, with `grants`.
    """
    if peer.state is PeerState.REVOKED:
        return ()
    require_reason(reason, "revoke a peer")
    if live_grants and not revoke_grants:
        raise RefusedError(
            f"the peer has {len(live_grants)} live grant(s); revoke them first, or repeat the call "
            'with "grants": "revoke" to revoke them too',
            code="peer-has-live-grants",
            grants=[str(one) for one in live_grants],
        )
    return (PeerRevoked(),)


def _require_state(peer: Peer, command: str, *allowed: PeerState) -> None:
    if peer.state not in allowed:
        raise RefusedError(
            f"a {peer.state} peer cannot be changed by {command}; that is for a peer that is "
            f"{' or '.join(allowed)}",
            code="peer-wrong-state",
            state=peer.state.value,
            allowed=[one.value for one in allowed],
        )


def _checked_url(text: str) -> str:
    try:
        parts = urlsplit(text) if _URL.fullmatch(text) and len(text) <= _URL_LENGTH else None
        good = (
            parts is not None
            and parts.scheme == "https"
            and bool(parts.hostname)
            and parts.port != 0  # reading it refuses a port that is no number
            and "@" not in parts.netloc
            and not parts.query
            and not parts.fragment
        )
    except ValueError:
        good = False
    if not good:
        raise InvalidError(
            "the base URL must be https://host[:port][/path], without user, query or fragment",
            code="base-url",
        )
    return text
