"""Cuts what a stream of the mould holds into what every copy has, and what is another in each.

Names and times are exchanged (`past_names`); what follows from others, digests of terms, requests and
certificates, is computed again. It stamps nothing.
"""

from base64 import b64encode
from binascii import hexlify
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any, Final, Self
from uuid import UUID

import orjson

from ca.profile import order_extensions
from ledger.canonical import canonical_json, format_time, parse_time
from ledger.events import Fact, GrantAmended, GrantNarrowed, GrantProposed, IssuanceAuthorized
from ledger.grant_state import Grant
from ledger.packing import LENGTH, Kind, integer
from support import past_forms as forms
from support.past_names import FOUND, SHORTEST, Copy, is_moment, is_name

_NAMED: Final = LENGTH + SHORTEST  # the shortest item that may hold a name

Make = Callable[[Copy, Sequence[Any]], Iterable[bytes]]


@dataclass(frozen=True, eq=False, slots=True)
class Hole:
    """What a copy makes of something `old`; of all that it makes in this way at once."""

    make: Make
    old: Any


@dataclass(frozen=True, eq=False, slots=True)
class Step:
    """What follows from other values, joined."""

    compute: Callable[[bytes], bytes]
    pieces: "Pieces"
    needed: Mapping["Hole | Step", None]

    @classmethod
    def of(cls, compute: Callable[[bytes], bytes], pieces: "Pieces") -> Self:
        return cls(compute, pieces, gathered(pieces.others))


Other = Hole | Step
"""What is another in each copy: the same object wherever it has the same value there."""


@dataclass(eq=False, slots=True)
class Pieces:
    """Octets that are the same in all copies, and what is another in each, one between any two."""

    same: list[bytes]
    others: list[Other] = field(default_factory=list)

    def add(self, octets: bytes) -> None:
        self.same[-1] += octets

    def put(self, other: Other, after: bytes = b"") -> None:
        self.others.append(other)
        self.same.append(after)

    def extend(self, pieces: "Pieces") -> None:
        self.same[-1] += pieces.same[0]
        self.same += pieces.same[1:]
        self.others += pieces.others


def gathered(others: Iterable[Other]) -> dict[Other, None]:
    """Each once, and before what follows from others these."""
    found: dict[Other, None] = {}
    for one in others:
        if isinstance(one, Step):
            found.update(one.needed)
        found[one] = None
    return found


def _written(copy: Copy, names: Sequence[bytes]) -> list[bytes]:
    return [old.translate(copy.letters) for old in names]


def _packed(copy: Copy, names: Sequence[bytes]) -> list[bytes]:
    return [old.translate(copy.octets) for old in names]


def _written_moments(copy: Copy, moments: Sequence[datetime]) -> list[bytes]:
    # As ledger.canonical.format_time() does one after the other.
    texts = orjson.dumps([old - copy.earlier for old in moments], option=orjson.OPT_UTC_Z)
    return [text if b"." in text else text[:-1] + b".000000Z" for text in texts[2:-2].split(b'","')]


def _packed_moments(copy: Copy, moments: Sequence[int]) -> list[bytes]:
    return [integer(old - copy.microseconds) for old in moments]


def _der_moments(copy: Copy, moments: Sequence[datetime]) -> list[bytes]:
    return [forms.der_time(text) for text in _written_moments(copy, moments)]


def _digest(text: bytes) -> bytes:
    return hexlify(sha256(text).digest())


class Cutter:
    """Knows of one stream what is exchanged and what is computed."""

    def __init__(self, once: Set[bytes], *, copied: bool) -> None:
        """`once`: names that are the same in every copy. Not copied: nothing is another anywhere."""
        self._once = once
        self.copied = copied
        # By what is found in a text, and by a row's value; None: the same in all copies.
        self._found: dict[bytes, Other | None] = {}
        self._values: dict[bytes, Other | None] = {}

    def text(self, text: bytes) -> Pieces:
        if not self.copied:
            return Pieces([text])
        first, *others = FOUND.split(text)
        pieces = Pieces([first])
        for old, after in zip(others[::2], others[1::2], strict=True):
            if old not in self._found:
                self._found[old] = self._of_text(old)
            other = self._found[old]
            if other is None:
                pieces.add(old + after)
            else:
                pieces.put(other, after)
        return pieces

    def row(self, kinds: Sequence[Kind], row: Sequence[object], more: int = 0) -> Pieces:
        """A row as COPY takes it, without its last so many items."""
        # How many items, each behind its length (see ledger/packing.py).
        pieces = Pieces([(len(row) + more).to_bytes(2, "big")])
        for kind, value in zip(kinds, row, strict=True):
            item = kind.item(value)
            if self.copied and isinstance(value, str) and len(item) >= _NAMED:
                pieces.add(item[:LENGTH])
                pieces.extend(self.text(item[LENGTH:]))
            elif self.copied and isinstance(value, datetime | UUID | bytes):
                self._put(pieces, value, item)
            else:
                pieces.add(item)
        return pieces

    def _put(self, pieces: Pieces, value: datetime | UUID | bytes, item: bytes) -> None:
        octets = item[LENGTH:]
        if octets not in self._values:
            self._values[octets] = self._of_value(value, octets)
        other = self._values[octets]
        if other is None:
            pieces.add(item)
        else:
            pieces.add(item[:LENGTH])
            pieces.put(other)

    def _of_text(self, old: bytes) -> Other | None:
        if is_moment(old):
            return Hole(_written_moments, parse_time(old.decode()))
        return Hole(_written, old) if is_name(old) and old not in self._once else None

    def _of_value(self, value: datetime | UUID | bytes, octets: bytes) -> Other | None:
        if isinstance(value, datetime):
            return Hole(_packed_moments, int.from_bytes(octets, "big"))
        if isinstance(value, UUID):
            return None if str(value).encode() in self._once else Hole(_packed, octets)
        return self._found[value]

    # ---- what is computed ----

    def compute(self, grant: Grant, facts: Iterable[Fact], form: forms.Form) -> None:
        """Take up what in this grant's events and rows follows from other values there."""
        for terms in facts:
            if isinstance(terms, GrantProposed | GrantAmended | GrantNarrowed):
                self._compute(_digest, self._terms(grant, terms), terms.terms_digest.encode())
        for _, value in order_extensions(str(grant.id), grant.subject_user_id):
            self._compute(b64encode, self.text(value), b64encode(value))
        for issuance in grant.issuances.values():
            order, der = issuance.authorization, issuance.certificate
            self._compute_request(order)
            if der is not None:
                self._compute_certificate(grant, order, form, der)

    def _compute(self, compute: Callable[[bytes], bytes], pieces: Pieces, old: bytes) -> None:
        self._found[old] = Step.of(compute, pieces)

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

    def _binary(self, octets: bytes) -> Pieces:
        hole = Hole(_packed, octets)
        return _piece(self._values.setdefault(octets, hole) or hole)

    def _compute_request(self, order: IssuanceAuthorized) -> None:
        point, tail = forms.point_of(order.csr), order.csr[-forms.TAIL :]
        values = {"point": self._binary(point), "tail": self._binary(tail)}
        csr = _piece(Step.of(bytes, _filled(forms.REQUEST, values)))
        self._compute(b64encode, csr, b64encode(order.csr))
        self._compute(_digest, csr, order.csr_sha256.encode())
        key = _filled((forms.BEFORE_POINT, "point"), values)
        self._compute(_digest, key, order.key_digest.encode())

    def _compute_certificate(
        self, grant: Grant, order: IssuanceAuthorized, form: forms.Form, der: bytes
    ) -> None:
        point = self._binary(forms.point_of(order.csr))
        values = {
            "point": point,
            "identifier": _piece(Step.of(forms.key_identifier, point)),
            "serial": self._binary(bytes.fromhex(order.serial)),
            "subject": self.text(order.subject.encode()),
            "begin": _piece(Hole(_der_moments, order.not_before)),
            "end": _piece(Hole(_der_moments, order.not_after)),
            "grant": self.text(str(grant.id).encode()),
            "user": self.text(grant.subject_user_id.encode()),
            "tail": self._binary(der[-forms.TAIL :]),
        }
        tbs = _piece(Step.of(bytes, _filled(form.tbs, values)))
        values["tbs"] = tbs
        whole = Step.of(bytes, _filled((form.before, "tbs", *form.after), values))
        self._found[der] = whole
        self._compute(b64encode, _piece(whole), b64encode(der))
        self._compute(_digest, _piece(whole), _digest(der))
        self._compute(_digest, tbs, _digest(der[forms.to_be_signed(der)]))


def _piece(other: Other) -> Pieces:
    return Pieces([b"", b""], [other])


def _filled(parts: forms.Parts, values: Mapping[str, Pieces]) -> Pieces:
    filled = Pieces([b""])
    for part in parts:
        if isinstance(part, str):
            filled.extend(values[part])
        else:
            filled.add(part)
    return filled
