"""Stamps copies of a stream: the same life under other names and at other times, byte for byte.

A stencil is cut from a stream that the rules and folds have made. Names and times are exchanged
(`past_names`); what follows from others, digests of terms, requests and certificates, is computed
again. A copy's certificates hold its own names and times, and their signatures are no more right than
those of the mould (`past_forms`).
"""

import base64
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, Final, NamedTuple
from uuid import UUID

from ca.profile import order_extensions
from ledger.appends import InlineProjection
from ledger.canonical import format_time, parse_time
from ledger.claims import claims_of
from ledger.events import Event, Fact, GrantAmended, GrantNarrowed, GrantProposed
from ledger.grant_state import Grant, Issuance
from ledger.grants import terms_digest
from ledger.mapper import body_of
from ledger.packing import moment, packed
from projections.registry import INLINE
from support import past_forms as forms
from support.past_names import FOUND, MOULD, Copy

_TABLES: Final[dict[type, list[InlineProjection]]] = {}
for _table in INLINE:
    _TABLES.setdefault(_table.state, []).append(_table)


Row = tuple[object, ...]


class Line(NamedTuple):
    """One event, ready to be recorded. `claims` are new ones; `rows` packed ones by table: those of
    the whole stream at its end, told with its first event."""

    fact: type[Fact]
    stream_id: UUID
    version: int
    body: bytes
    claims: Sequence[tuple[str, str]]
    rows: Sequence[tuple[str, bytes]]


def original(events: Sequence[Event], state: object) -> list[Line]:
    """The lines of a stream, of which `state` is the last, as it is."""
    rows = [(table.table, packed(table.kinds, row)) for table, row in _rows(state)]
    return [
        Line(
            type(event.data),
            event.originator_id,
            event.originator_version,
            body_of(event),
            claims,
            [] if number else rows,
        )
        for number, (event, claims) in enumerate(zip(events, _claims(events), strict=True))
    ]


def _rows(state: object) -> Iterator[tuple[InlineProjection, Row]]:
    return ((table, row) for table in _TABLES.get(type(state), ()) for row in table.rows(state))


def _claims(events: Sequence[Event]) -> Iterator[list[tuple[str, str]]]:
    seen: set[tuple[str, str]] = set()
    for event in events:
        new = [one for one in claims_of(event) if one not in seen]
        seen.update(new)
        yield new


# ---- what is another in every copy --------------------------------------------------------------

Make = Callable[[Copy, Any], bytes]
Parts = Sequence[int]  # places in the table of a stencil
Piece = bytes | int  # what is the same in all copies, or a place


def _written(copy: Copy, old: bytes) -> bytes:
    return old.translate(copy.letters)


def _packed(copy: Copy, old: bytes) -> bytes:
    return old.translate(copy.octets)


def _written_moment(copy: Copy, old: datetime) -> bytes:
    return format_time(copy.moment(old)).encode()


def _packed_moment(copy: Copy, old: datetime) -> bytes:
    return moment(copy.moment(old))


def _der_moment(copy: Copy, old: datetime) -> bytes:
    return forms.der_time(copy.moment(old))


def _digest(text: bytes) -> bytes:
    return sha256(text).hexdigest().encode()


class Stencil:
    """One stream of the mould, ready to be stamped."""

    def __init__(
        self, lines: Sequence[Line], facts: Sequence[Fact], state: object, once: frozenset[bytes]
    ) -> None:
        """`state`: the stream's last one. `once`: names that are the same in every copy."""
        self._once = once
        self._stream_id = lines[0].stream_id
        # What a copy's texts are joined from, as it is in the mould, and how it is made in others.
        self._table: list[bytes] = []
        self._places: dict[tuple[Make | None, object], int] = {}
        self._holes: list[tuple[int, Make, Any]] = []
        self._steps: list[tuple[int, Callable[[bytes], bytes], Parts]] = []
        self._computed: dict[bytes, int] = {}
        if isinstance(state, Grant):
            self._compute(state, facts)
        self._lines = [
            (
                line,
                self._joined(self._cut(line.body)),
                [(kind, self._joined(self._cut(key.encode()))) for kind, key in line.claims],
            )
            for line in lines
        ]
        self._rows = [
            (table.table, self._joined(self._cut_row(table, row))) for table, row in _rows(state)
        ]

    def stamp(self, copy: Copy) -> list[Line]:
        """The lines of this stream in a copy."""
        table = self._table.copy()

        def text(parts: Parts) -> bytes:
            return b"".join([table[place] for place in parts])

        for place, make, old in self._holes:
            table[place] = make(copy, old)
        for place, compute, parts in self._steps:
            table[place] = compute(text(parts))
        stream_id = copy.uuid(self._stream_id)
        rows = [(where, text(parts)) for where, parts in self._rows]
        lines = []
        for line, body, claims in self._lines:
            held = [(kind, text(key).decode()) for kind, key in claims]
            lines.append(Line(line.fact, stream_id, line.version, text(body), held, rows))
            rows = []
        return lines

    # ---- cutting ----

    def _cut(self, text: bytes) -> Iterator[Piece]:
        """What stays of a text, and the places of the names in it, in order."""
        end = 0
        for found in FOUND.finditer(text):
            place = self._place_of(found)
            if place is not None:
                yield text[end : found.start()]
                yield place
                end = found.end()
        yield text[end:]

    def _place_of(self, found: re.Match[bytes]) -> int | None:
        old = found[0]
        if old in self._computed:
            return self._computed[old]
        if found["moment"]:
            return self._place(_written_moment, parse_time(old.decode()))
        if found["name"] and old not in self._once:
            return self._place(_written, old)
        return None

    def _cut_row(self, table: InlineProjection, row: Row) -> Iterator[Piece]:
        # As COPY takes it: how many items, each behind its length (see ledger/packing.py).
        yield len(row).to_bytes(2, "big")
        for kind, value in zip(table.kinds, row, strict=True):
            item = kind.item(value)
            if isinstance(value, str):
                yield from self._cut(item)
            elif isinstance(value, datetime):
                yield from (item[:4], self._place(_packed_moment, value))
            elif isinstance(value, UUID) and str(value).encode() not in self._once:
                yield from (item[:4], self._place(_packed, value.bytes))
            elif isinstance(value, bytes):
                yield from (item[:4], self._computed[value])
            else:
                yield item

    def _joined(self, pieces: Iterable[Piece]) -> Parts:
        parts: list[int] = []
        same = b""
        for piece in pieces:
            if isinstance(piece, bytes):
                same += piece
                continue
            if same:
                parts.append(self._place(None, same))
            parts.append(piece)
            same = b""
        if same:
            parts.append(self._place(None, same))
        return tuple(parts)

    def _place(self, make: Make | None, old: Any) -> int:
        """Where in the table this is; made in every copy, or by None: the same in all."""
        place = self._places.setdefault((make, old), len(self._table))
        if place == len(self._table):
            self._table.append(old if make is None else make(MOULD, old))
            if make is not None:
                self._holes.append((place, make, old))
        return place

    # ---- computing ----

    def _step(self, compute: Callable[[bytes], bytes], pieces: Iterable[Piece]) -> int:
        """The place of what is computed from a text in every copy; known by what it is here."""
        parts, place = self._joined(pieces), len(self._table)
        old = compute(b"".join([self._table[part] for part in parts]))
        self._table.append(old)
        self._steps.append((place, compute, parts))
        self._computed[old] = place
        return place

    def _compute(self, grant: Grant, facts: Sequence[Fact]) -> None:
        def digest(copy: Copy, number: int) -> bytes:
            terms: Any = facts[number]
            return terms_digest(
                copy.uuid(grant.peer_id),
                copy.text(grant.subject_user_id),
                terms.scope,
                copy.moment(terms.not_before),
                copy.moment(terms.expires_at),
            ).encode()

        for number, terms in enumerate(facts):
            if isinstance(terms, GrantProposed | GrantAmended | GrantNarrowed):
                self._computed[terms.terms_digest.encode()] = self._place(digest, number)
        for _, value in order_extensions(str(grant.id), grant.subject_user_id):
            self._step(base64.b64encode, self._cut(value))
        for issuance in grant.issuances.values():
            self._compute_issued(grant, issuance)

    def _compute_issued(self, grant: Grant, issuance: Issuance) -> None:
        order, der = issuance.authorization, issuance.certificate
        point, tail = forms.point_of(order.csr), order.csr[-forms.TAIL :]
        values: dict[bytes, Iterable[Piece]] = {
            value: (self._place(_packed, value),) for value in (point, tail)
        }
        csr = (self._step(bytes, _cut_at(order.csr, values)),)
        self._step(base64.b64encode, csr)
        self._step(_digest, csr)
        self._step(_digest, (forms.BEFORE_POINT, *values[point]))
        if der is None:
            return
        identifier = self._step(forms.key_identifier, values[point])
        values[self._table[identifier]] = (identifier,)
        for value in (bytes.fromhex(order.serial), der[-forms.TAIL :]):
            values[value] = (self._place(_packed, value),)
        for when in (order.not_before, order.not_after):
            values[forms.der_time(when)] = (self._place(_der_moment, when),)
        for name in (order.subject, str(grant.id), grant.subject_user_id):
            values[name.encode()] = tuple(self._cut(name.encode()))
        signed = forms.to_be_signed(der)
        tbs = self._step(bytes, _cut_at(der[signed], values))
        whole = (
            self._step(bytes, (der[: signed.start], tbs, *_cut_at(der[signed.stop :], values))),
        )
        self._step(_digest, (tbs,))
        self._step(_digest, whole)
        self._step(base64.b64encode, whole)


def _cut_at(octets: bytes, values: Mapping[bytes, Iterable[Piece]]) -> list[Piece]:
    """Cut out these values, wherever they are, and put in what stands for each."""
    pieces: list[Piece] = [octets]
    for value, instead in values.items():
        cut: list[Piece] = []
        for piece in pieces:
            if isinstance(piece, int):
                cut.append(piece)
                continue
            first, *others = piece.split(value)
            cut.append(first)
            for other in others:
                cut += (*instead, other)
        pieces = cut
    return pieces
