"""Signing authorities as the ledger knows them: adopted with a chain, one day retired.

It signs nothing and reads no certificate; `ca/authority.py` does that and hands over DER and times.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal
from uuid import UUID

from ledger.errors import InvalidError, RefusedError
from ledger.events import (
    AuthorityAdopted,
    AuthorityRetired,
    CertificateFoundUnknown,
    CrlPublished,
    Event,
    Fact,
)


@dataclass(frozen=True, slots=True)
class Authority:
    """An authority as its stream tells it.

    `chain`: DER, the issuing certificate first; `not_after`: the issuing certificate's end.
    `crl_*` are those of the last list published. `unknown`: serials found that we never authorized.
    """

    id: UUID
    version: int
    kind: Literal["local", "step-ca"]
    chain: tuple[bytes, ...]
    not_after: datetime
    adopted_at: datetime
    retired_at: datetime | None = None
    crl_this_update: datetime | None = None
    crl_next_update: datetime | None = None
    unknown: frozenset[str] = frozenset()


def evolve(authority: Authority | None, event: Event) -> Authority:
    """Return the authority after one more event of its stream.

    Raises:
        ValueError: the stream does not start with its adoption, or holds a foreign fact.
    """
    fact, version = event.data, event.originator_version
    if isinstance(fact, AuthorityAdopted):
        return Authority(
            id=event.originator_id,
            version=version,
            kind=fact.kind,
            chain=fact.chain,
            not_after=fact.not_after,
            adopted_at=event.at,
        )
    if authority is None:
        raise ValueError(f"an authority's stream cannot start with {fact.TOPIC}")
    match fact:
        case AuthorityRetired():
            return replace(authority, version=version, retired_at=event.at)
        case CrlPublished(this_update=this_update, next_update=next_update):
            return replace(
                authority,
                version=version,
                crl_this_update=this_update,
                crl_next_update=next_update,
            )
        case CertificateFoundUnknown(serial=serial):
            return replace(authority, version=version, unknown=authority.unknown | {serial})
    raise ValueError(f"an authority's stream cannot hold {fact.TOPIC}")


def adopt(
    authority: Authority | None,
    kind: Literal["local", "step-ca"],
    chain: Sequence[bytes],
    not_after: datetime,
) -> tuple[Fact, ...]:
    """Adopt an authority; nothing happens if the same one is adopted already.

    Raises:
        InvalidError: authority-chain.
        RefusedError: authority-differs.
    """
    if not chain:
        raise InvalidError("an authority comes with its chain", code="authority-chain")
    if authority is None:
        return (AuthorityAdopted(kind=kind, chain=tuple(chain), not_after=not_after),)
    if (authority.kind, authority.chain) != (kind, tuple(chain)) or authority.retired_at:
        raise RefusedError(
            "this authority was adopted with another chain, or is retired; adopt the new one "
            "under a new id",
            code="authority-differs",
        )
    return ()


def retire(authority: Authority) -> tuple[Fact, ...]:
    """Stop issuing from an authority; nothing happens the second time."""
    return () if authority.retired_at else (AuthorityRetired(),)


def publish_crl(
    authority: Authority, this_update: datetime, next_update: datetime, entries: int
) -> tuple[Fact, ...]:
    """Record a certificate revocation list; the event's position is its number."""
    return (CrlPublished(this_update=this_update, next_update=next_update, entries=entries),)


def find_unknown(
    authority: Authority, serial: str, certificate: bytes | None, found_in: str
) -> tuple[Fact, ...]:
    """Record a certificate of this authority that the ledger never authorized, once per serial.

    `serial`: lower-case hex as found; `found_in`: where, in words.
    """
    if serial in authority.unknown:
        return ()
    return (CertificateFoundUnknown(serial=serial, certificate=certificate, found_in=found_in),)
