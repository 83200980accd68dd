"""The ledger's own stream: its origin, the key of its log, and the checkpoints of its access log.

It neither signs nor verifies; `ledger/checkpoints.py` does.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from ledger.errors import RefusedError
from ledger.events import AccessCheckpointed, Event, Fact, LedgerCreated, LogKeyRotated


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this ledger is. `log_keys`: C2SP verifier keys in order of use, the present one last."""

    id: UUID
    version: int
    origin: str
    log_keys: tuple[str, ...]
    product_version: str
    created_at: datetime
    access_size: int = 0
    access_root: str | None = None  # hex

    @property
    def log_key(self) -> str:
        """The verifier key in use."""
        return self.log_keys[-1]


def evolve(identity: Identity | None, event: Event) -> Identity:
    """Return the identity after one more event of the ledger's stream.

    Raises:
        ValueError: the stream does not start with the creation, or holds a foreign fact.
    """
    match event.data:
        case LedgerCreated(origin=origin, log_key=log_key, product_version=product_version):
            return Identity(
                id=event.originator_id,
                version=event.originator_version,
                origin=origin,
                log_keys=(log_key,),
                product_version=product_version,
                created_at=event.at,
            )
        case LogKeyRotated(log_key=log_key) if identity is not None:
            return replace(
                identity,
                version=event.originator_version,
                log_keys=(*identity.log_keys, log_key),
            )
        case AccessCheckpointed(size=size, root=root) if identity is not None:
            return replace(
                identity, version=event.originator_version, access_size=size, access_root=root
            )
    raise ValueError(f"the ledger's stream cannot hold {event.data.TOPIC} here")


def create(
    identity: Identity | None, origin: str, log_key: str, product_version: str
) -> tuple[Fact, ...]:
    """Create the ledger, once.

    Raises:
        RefusedError: already-created.
    """
    if identity is not None:
        raise RefusedError(
            "this database already holds a ledger; start it, or choose another database",
            code="already-created",
        )
    return (LedgerCreated(origin=origin, log_key=log_key, product_version=product_version),)


def rotate_log_key(identity: Identity, log_key: str) -> tuple[Fact, ...]:
    """Record a new log key; nothing happens if it is the one in use."""
    return () if identity.log_key == log_key else (LogKeyRotated(log_key=log_key),)


def checkpoint_access(identity: Identity, size: int, root: str) -> tuple[Fact, ...]:
    """Record a tree head of the access log; nothing happens if it did not grow.

    Raises:
        RefusedError: access-log-shrunk.
    """
    if (size, root) == (identity.access_size, identity.access_root):
        return ()
    if size <= identity.access_size and identity.access_root is not None:
        raise RefusedError(
            "the access log is shorter than, or other than recorded; stop, and compare a backup",
            code="access-log-shrunk",
        )
    return (AccessCheckpointed(size=size, root=root),)
