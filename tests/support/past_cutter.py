"""Cuts what a stream of the mould holds into what every copy has, and what is another in each.

Names and times are exchanged (`past_names`); what follows from others, digests of terms, requests and
certificates, is computed again. It stamps nothing.
"""

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from itertools import chain
from typing import Any, NamedTuple
from uuid import UUID

from ca.profile import order_extensions
from ledger.canonical import canonical_json, format_time, parse_time
from ledger.events import Fact, GrantAmended, GrantNarrowed, GrantProposed, IssuanceAuthorized
from ledger.grant_state import Grant
from ledger.packing import LENGTH, Kind, integer
from support import past_forms as forms
from support.past_names import FOUND, Copy, kept


class Hole(NamedTuple):
    """What a copy makes of something `old`."""

    make: Callable[[Copy, Any], bytes]
    old: Any


@dataclass(frozen=True, eq=False, slots=True)
class Step:
    """What follows from other values, joined."""

    compute: Callable[[bytes], bytes]
    pieces: "Pieces"


Piece = bytes | Hole | Step  # octets are the same in all copies
Pieces = tuple[Piece, ...]


def written(copy: Copy, old: bytes) -> bytes:
    return old.translate(copy.letters)


def _packed(copy: Copy, old: bytes) -> bytes:
    return old.translate(copy.octets)


def _written_moment(copy: Copy, old: datetime) -> bytes:
    return format_time(copy.moment(old)).encode()


def _packed_moment(copy: Copy, old: int) -> bytes:
    return integer(old - copy.microseconds)


def _der_moment(copy: Copy, old: datetime) -> bytes:
    return forms.der_time(copy.moment(old))


def _digest(text: bytes) -> bytes:
    return sha256(text).hexdigest().encode()


class Cutter:
    """Knows of one stream what is exchanged and what is computed."""

    def __init__(self, once: Set[bytes], *, copied: bool) -> None:
        """`once`: names that are the same in every copy. Not copied: nothing is another anywhere."""
        self._once = once
        self.copied = copied
        self._computed: dict[bytes, Step] = {}  # by what it is in the mould

    def text(self, text: bytes) -> Pieces:
        return tuple(self._cut(text)) if self.copied else (text,)

    def row(self, kinds: Sequence[Kind], row: Sequence[object], more: int = 0) -> Pieces:
        """A row as COPY takes it, without its last so many items."""
        pieces: list[Piece] = []
        # How many items, each behind its length (see ledger/packing.py).
        same = (len(row) + more).to_bytes(2, "big")
        for kind, value in zip(kinds, row, strict=True):
            item = kind.item(value)
            if self.copied and (other := self._other(value, item[LENGTH:])):
                pieces += (same + item[:LENGTH], *other)
                same = b""
            else:
                same += item
        return (*pieces, same)

    def _other(self, value: object, octets: bytes) -> Pieces:
        """What stands for a row's value; nothing if that is the same in every copy."""
        if isinstance(value, str):
            return tuple(self._cut(octets)) if FOUND.search(octets) else ()
        if isinstance(value, datetime):
            return (Hole(_packed_moment, int.from_bytes(octets, "big")),)
        if isinstance(value, UUID) and str(value).encode() not in self._once:
            return (Hole(_packed, octets),)
        return (self._computed[value],) if isinstance(value, bytes) else ()

    def _cut(self, text: bytes) -> Iterator[Piece]:
        letters, end = bytearray(kept(text)), 0
        for found in FOUND.finditer(text):
            old, (start, stop) = found[0], found.span()
            if old in self._computed or found["moment"]:
                yield Hole(written, bytes(letters[end:start]))
                yield self._computed.get(old) or Hole(_written_moment, parse_time(old.decode()))
                end = stop
            elif found["name"] and old not in self._once:
                letters[start:stop] = old
        yield Hole(written, bytes(letters[end:]))

    # ---- what is computed ----

    def compute(self, grant: Grant, facts: Iterable[Fact], form: forms.Form) -> None:
        """Take up what in this grant's events and rows follows from other values there."""
        for terms in facts:
            if isinstance(terms, GrantProposed | GrantAmended | GrantNarrowed):
                self._compute(_digest, self._terms(grant, terms), terms.terms_digest.encode())
        for _, value in order_extensions(str(grant.id), grant.subject_user_id):
            self._compute(base64.b64encode, self.text(value), base64.b64encode(value))
        for issuance in grant.issuances.values():
            order, der = issuance.authorization, issuance.certificate
            self._compute_request(order)
            if der is not None:
                self._compute_certificate(grant, order, form, der)

    def _compute(self, compute: Callable[[bytes], bytes], pieces: Pieces, old: bytes) -> None:
        self._computed[old] = Step(compute, pieces)

    def _terms(self, grant: Grant, fact: GrantProposed | GrantAmended | GrantNarrowed) -> Pieces:
        # As ledger.grants.terms_digest() has them.
        terms = {
            "peer_id": str(grant.peer_id),
            "subject_user_id": grant.subject_user_id,
            "scope": fact.scope.canonical(),
            "not_before": format_time(fact.not_before),
            "expires_at": format_time(fact.expires_at),
        }
        return self.text(canonical_json(terms))

    def _compute_request(self, order: IssuanceAuthorized) -> None:
        point = Hole(_packed, forms.point_of(order.csr))
        tail = Hole(_packed, order.csr[-forms.TAIL :])
        csr = Step(bytes, _filled(forms.REQUEST, {"point": (point,), "tail": (tail,)}))
        self._compute(base64.b64encode, (csr,), base64.b64encode(order.csr))
        self._compute(_digest, (csr,), order.csr_sha256.encode())
        self._compute(_digest, (forms.BEFORE_POINT, point), order.key_digest.encode())

    def _compute_certificate(
        self, grant: Grant, order: IssuanceAuthorized, form: forms.Form, der: bytes
    ) -> None:
        point = Hole(_packed, forms.point_of(order.csr))
        values = {
            "point": (point,),
            "identifier": (Step(forms.key_identifier, (point,)),),
            "serial": (Hole(_packed, bytes.fromhex(order.serial)),),
            "subject": self.text(order.subject.encode()),
            "begin": (Hole(_der_moment, order.not_before),),
            "end": (Hole(_der_moment, order.not_after),),
            "grant": self.text(str(grant.id).encode()),
            "user": self.text(grant.subject_user_id.encode()),
            "tail": (Hole(_packed, der[-forms.TAIL :]),),
        }
        tbs = Step(bytes, _filled(form.tbs, values))
        whole = Step(bytes, (form.before, tbs, *_filled(form.after, values)))
        self._computed[der] = whole
        self._compute(base64.b64encode, (whole,), base64.b64encode(der))
        self._compute(_digest, (whole,), _digest(der))
        self._compute(_digest, (tbs,), _digest(der[forms.to_be_signed(der)]))


def _filled(parts: forms.Parts, values: Mapping[str, Pieces]) -> Pieces:
    filled = (values[part] if isinstance(part, str) else (part,) for part in parts)
    return tuple(chain.from_iterable(filled))
