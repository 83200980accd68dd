"""Who is asking: bearer credentials, looked up in the projected tables, or a peer's certificate.

It decides about no operation beyond its roles, and records nothing. Whatever is wrong with a
credential, the answer is one and the same; the rules look at the operator's own stream again
before anything is appended, so a stale or tampered row here opens nothing for writing.
"""

from datetime import datetime
from typing import Final

from api.holders import Holder
from api.operation import Operation
from api.problems import UNAUTHORIZED_TEXT
from ledger.bearer import BearerKind, Parsed, parse, same_digest
from ledger.errors import ForbiddenError, UnauthorizedError
from ledger.events import Actor
from projections.operators import CredentialOfOperator

_NO_DIGEST: Final = "0" * 64


def presented_in(header: str | None) -> Parsed | None:
    """The operator token in an Authorization header; None if there is none."""
    scheme, _, token = (header or "").partition(" ")
    found = parse(token.strip()) if scheme.lower() == "bearer" else None
    return found if found and found.kind is BearerKind.OPERATOR else None


def authenticate(
    presented: Parsed | None, known: CredentialOfOperator | None, source: str, at: datetime
) -> Actor:
    """The actor of a token presented. `known`: what the tables say of its accessor.

    Raises:
        UnauthorizedError: always with the same text, whatever was wrong.
    """
    digest = presented.digest if presented else _NO_DIGEST
    stored = known.token_sha256 if known else "f" * 64
    # Compared even when nothing is known: the time must not tell which accessors exist.
    same = same_digest(digest, stored)
    if not (same and presented and known and known.live(at)):
        raise UnauthorizedError(UNAUTHORIZED_TEXT)
    return Actor(
        kind="operator",
        id=str(known.operator_id),
        roles=tuple(sorted(known.roles)),
        auth="bearer",
        credential=presented.accessor,
        source=source,
    )


def authenticate_holder(operation: Operation, known: Holder | None, source: str) -> Actor:
    """The actor of a client certificate. `known`: what the record says of it.

    Of one on hold the rules of renewal have more to say (a clone), so there it gets that far.

    Raises:
        UnauthorizedError: with the text of every bad credential.
    """
    if known is None or (known.on_hold and operation.access != "certificate"):
        raise UnauthorizedError(UNAUTHORIZED_TEXT)
    return Actor(
        kind="peer",
        id=str(known.peer_id),
        auth="certificate",
        credential=known.serial,
        source=source,
    )


def authorize(operation: Operation, actor: Actor) -> None:
    """Refuse an actor none of whose roles may do this operation.

    Raises:
        ForbiddenError: with `roles`, those that may.
    """
    if actor.kind == "peer" and (operation.peers or operation.access == "certificate"):
        return
    if operation.access == "certificate":
        raise ForbiddenError("this takes the client certificate of a peer", roles=[])
    if operation.roles.isdisjoint(actor.roles):
        allowed = sorted(operation.roles)
        raise ForbiddenError(f"this takes the role {' or '.join(allowed)}", roles=allowed)


def stranger(source: str) -> Actor:
    """The actor of a public operation."""
    return Actor(kind="peer", id="unknown", auth="none", source=source)
