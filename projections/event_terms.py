"""The table `event_terms`: where in the ledger each term stands; its only writer, its SQL.

It says where an event *may* be that answers a question: terms are kept as hashes, so whoever reads
the event compares (`projections/search.py`). Which terms an event has is `ledger/terms.py`'s.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import groupby
from struct import pack, unpack
from typing import Any, Final

from psycopg import Connection

from ledger.recorded import RecordedEvent

NAME: Final = "event-terms"
"""The name under which the table is followed."""
TABLE: Final = "event_terms"
BLOCK: Final = 2048
"""Positions in one row: as bits 256 bytes, a row that fits any page and is quickly combined."""

Places = Mapping[tuple[int, int], set[int]]
"""(hash of a term, block) → offsets in the block, from 0."""

_SHIFT: Final = BLOCK.bit_length() - 1
_BITS: Final = BLOCK // 8  # bytes of a row that has a bit for each position
_MOST_LISTED: Final = _BITS // 2 - 1  # as a list it is shorter, so the length tells them apart
_CHUNKS: Final = (8, 64, 512)  # blocks read at once: most pages are full after a few

_BEGUN: Final = """SELECT term, positions FROM event_terms
    WHERE block = %s AND term = ANY(%b::int8[])"""
_WRITE: Final = """INSERT INTO event_terms (term, block, positions)
    SELECT * FROM unnest(%b::int8[], %b::int4[], %b::bytea[])
    ON CONFLICT (term, block) DO UPDATE SET positions = excluded.positions"""
_BLOCKS: Final = """SELECT DISTINCT block FROM event_terms
    WHERE term = ANY(%b::int8[]) AND block >= %s AND block <= %s"""
_PLACES: Final = """SELECT block, term, positions FROM event_terms
    WHERE term = ANY(%b::int8[]) AND block = ANY(%b::int4[])"""


def write(connection: Connection[Any], events: Sequence[RecordedEvent]) -> None:
    """Add events that follow one another without a gap. Adding one again changes nothing.

    Nobody else may write meanwhile; the caller's transaction is not ended.
    """
    places = places_of(events)
    if not places:
        return
    # Only the first block can have rows already: the others begin with these events.
    first = min(block for _, block in places)
    begun = [term for term, block in places if block == first]
    with connection.cursor(binary=True) as cursor:
        if events[0].position - 1 & BLOCK - 1:
            for term, positions in cursor.execute(_BEGUN, [first, begun]):
                places[term, first].update(_offsets(positions))
        columns = ([*part] for part in zip(*places, strict=True))
        cursor.execute(_WRITE, [*columns, [_packed(offsets) for offsets in places.values()]])


def places_of(events: Iterable[RecordedEvent]) -> dict[tuple[int, int], set[int]]:
    """Where each term of these events stands: what the table holds, computed from the events."""
    places: dict[tuple[int, int], set[int]] = {}
    for event in events:
        block, offset = divmod(event.position - 1, BLOCK)
        for term in event.terms:
            key = (hash_of(term), block)
            offsets = places.get(key)
            if offsets is None:
                places[key] = {offset}
            else:
                offsets.add(offset)
    return places


def row(term: int, block: int, offsets: Iterable[int]) -> tuple[int, int, bytes]:
    """The row of one term and block."""
    return term, block, _packed(offsets)


def wrong_blocks(
    rows: Iterable[tuple[int, int, bytes]], events: Iterable[RecordedEvent]
) -> list[int]:
    """Return the blocks whose rows are not those that follow from the events, in any order.

    rows: all there are. events: those up to the table's position, in order. Holds no more than one
    block of them: rows are summed up per block, and the sums compared.
    """
    sums: dict[int, int] = {}
    for term, block, positions in rows:
        sums[block] = sums.get(block, 0) + _sum_of(term, positions)
    wrong = []
    for block, members in groupby(events, key=lambda event: (event.position - 1) // BLOCK):
        expected = sum(_sum_of(term, _packed(at)) for (term, _), at in places_of(members).items())
        if sums.pop(block, 0) != expected:
            wrong.append(block)
    return sorted([*wrong, *sums])


def _sum_of(term: int, positions: bytes) -> int:
    # A sum, not a chain: the rows come in any order. None is changed without another sum.
    content = term.to_bytes(8, signed=True) + positions
    return int.from_bytes(blake2b(content, digest_size=24).digest())


@lru_cache(maxsize=8192)
def hash_of(term: str) -> int:
    """The number a term is kept under: 64 bits, signed."""
    return int.from_bytes(blake2b(term.encode(), digest_size=8).digest(), signed=True)


def positions_of(
    connection: Connection[Any],
    groups: Sequence[Iterable[str]],
    first: int,
    last: int,
    *,
    newest_first: bool = False,
) -> Iterator[int]:
    """Yield the positions from first to last that have a term of each group, as they are ordered.

    The work is bounded by the blocks in which every group occurs: per term at most 500 rows of 300
    bytes a million positions, whatever the terms' frequencies, and however few events have them all.
    groups: at least one.
    """
    terms = [[hash_of(term) for term in group] for group in groups]
    wanted = _shared_blocks(connection, terms, first - 1 >> _SHIFT, last - 1 >> _SHIFT)
    blocks = sorted(wanted, reverse=newest_first)
    begin, number = 0, 0
    while begin < len(blocks):
        size = _CHUNKS[min(number, len(_CHUNKS) - 1)]
        chunk = blocks[begin : begin + size]
        found = _masks(connection, terms, chunk)
        for block in chunk:
            mask = found[block] & _between(first - 1 - block * BLOCK, last - 1 - block * BLOCK)
            yield from (block * BLOCK + offset + 1 for offset in _ones(mask, newest_first))
        begin, number = begin + size, number + 1


def _shared_blocks(
    connection: Connection[Any], groups: Sequence[Sequence[int]], first: int, last: int
) -> set[int]:
    """The blocks in which every group occurs."""
    shared: set[int] | None = None
    with connection.cursor(binary=True) as cursor:
        for terms in groups:
            rows = cursor.execute(_BLOCKS, [terms, first, last], prepare=True).fetchall()
            found = {block for (block,) in rows}
            shared = found if shared is None else shared & found
            if not shared:
                return set()
    return shared or set()


def _masks(
    connection: Connection[Any], groups: Sequence[Sequence[int]], blocks: Sequence[int]
) -> dict[int, int]:
    """For each block the positions, as bits, at which every group occurs."""
    every = [term for group in groups for term in group]
    masks: dict[tuple[int, int], int] = {}
    with connection.cursor(binary=True) as cursor:
        for block, term, positions in cursor.execute(_PLACES, [every, blocks], prepare=True):
            masks[block, term] = _mask(positions)
    return {block: _combined(masks, groups, block) for block in blocks}


def _combined(
    masks: Mapping[tuple[int, int], int], groups: Sequence[Sequence[int]], block: int
) -> int:
    combined = (1 << BLOCK) - 1
    for group in groups:
        of_group = 0
        for term in group:
            of_group |= masks.get((block, term), 0)
        combined &= of_group
    return combined


def _packed(offsets: Iterable[int]) -> bytes:
    ordered = sorted(offsets)
    if len(ordered) <= _MOST_LISTED:
        return pack(f"<{len(ordered)}H", *ordered)
    return sum(1 << offset for offset in ordered).to_bytes(_BITS, "little")


def _offsets(positions: bytes) -> Iterable[int]:
    if len(positions) < _BITS:
        return unpack(f"<{len(positions) // 2}H", positions)
    return _ones(int.from_bytes(positions, "little"), False)


def _mask(positions: bytes) -> int:
    if len(positions) == _BITS:
        return int.from_bytes(positions, "little")
    return sum(1 << offset for offset in _offsets(positions))


def _between(first: int, last: int) -> int:
    """Ones from first to last, inclusive, cut to a block."""
    first, last = max(0, first), min(BLOCK - 1, last)
    return (1 << last + 1) - (1 << first) if first <= last else 0


def _ones(mask: int, newest_first: bool) -> Iterator[int]:
    """The numbers of the bits that are set."""
    while mask:
        bit = mask.bit_length() - 1 if newest_first else (mask & -mask).bit_length() - 1
        mask ^= 1 << bit
        yield bit
