"""Stamps copies of a stream: the same life under other names and at other times, byte for byte.

Stencils are cut from a stream that the rules and folds have made, one for each of its events
(`past_cutter`). A copy's certificates hold its own names and times, and their signatures are no more
right than those of the mould (`past_forms`).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple

from ledger.appends import InlineProjection
from ledger.claims import claims_of
from ledger.events import Event, Fact
from ledger.packing import BYTEA, INT8, LENGTH, TEXT, UUIDS
from projections.registry import INLINE
from support.past_cutter import Cutter, Hole, Piece, Pieces, Step, written
from support.past_names import Copy, kept

_TABLES: Final[dict[type, list[InlineProjection]]] = {}
for _table in INLINE:
    _TABLES.setdefault(_table.state, []).append(_table)
# How rows of `ledger_events` and `ledger_claims` begin (see past_press.py): the body comes next and
# what only its position decides, so many items; the position.
_HEAD: Final = (UUIDS, INT8, TEXT)
_AFTER_HEAD: Final = 4
_CLAIM: Final = (TEXT, TEXT, UUIDS)
_PERCENT: Final = kept(b"%")
_GAP: Final = kept(b"%b")  # where a value is put in


class Line(NamedTuple):
    """One event, ready to be recorded. `event` and `claims`, new ones, are packed but for what their
    position decides; `rows` wholly, by table."""

    fact: type[Fact]
    stream_id: str
    version: int
    body: bytes
    event: bytes
    claims: Sequence[bytes]
    rows: Sequence[tuple[str, bytes]]


class Text(NamedTuple):
    """What is written in a text and kept between, and which of the values are put into its gaps."""

    letters: bytes
    values: Callable[[Sequence[bytes]], Any]


def _nothing(values: Sequence[bytes]) -> tuple[bytes, ...]:
    return ()


class Stencil:
    """One event of the mould, ready to be stamped."""

    def __init__(
        self,
        event: Event,
        whole: Pieces,
        size: int,
        claims: Iterable[Pieces],
        rows: Iterable[tuple[str, Pieces]],
    ) -> None:
        """`whole`: its row, in which the last `size` octets are its body."""
        self._fact, self._version = type(event.data), event.originator_version
        self._stream_id = str(event.originator_id).encode()
        # What is put into gaps: the same in all copies, made by each, or computed of what is made.
        self._values: list[bytes] = []
        self._holes: list[tuple[int, Callable[[Copy, Any], bytes], Any]] = []
        self._steps: list[tuple[int, Callable[[bytes], bytes], Text]] = []
        places: dict[Piece, int] = {}
        self._whole, self._size = self._laid(whole, places), size
        self._claims = [self._laid(claim, places) for claim in claims]
        self._rows = [(table, self._laid(row, places)) for table, row in rows]

    def stamp(self, copy: Copy) -> Line:
        """What this event is in a copy."""
        letters, values = copy.letters, self._values.copy()

        def text(one: Text) -> bytes:
            return one.letters.translate(letters) % one.values(values)

        for place, make, old in self._holes:
            values[place] = make(copy, old)
        for place, compute, source in self._steps:
            values[place] = compute(text(source))
        event = text(self._whole)
        return Line(
            self._fact,
            self._stream_id.translate(letters).decode(),
            self._version,
            event[-self._size :],
            event,
            [text(claim) for claim in self._claims],
            [(table, text(row)) for table, row in self._rows],
        )

    def _laid(self, pieces: Pieces, places: dict[Piece, int]) -> Text:
        letters, gaps = b"", []
        for piece in pieces:
            if isinstance(piece, Hole) and piece.make is written:
                letters += piece.old.replace(_PERCENT, 2 * _PERCENT)
            else:
                letters += _GAP
                gaps.append(self._place(piece, places))
        return Text(letters, itemgetter(*gaps) if gaps else _nothing)

    def _place(self, piece: Piece, places: dict[Piece, int]) -> int:
        """Where among the values this is."""
        if piece in places:
            return places[piece]
        source = self._laid(piece.pieces, places) if isinstance(piece, Step) else None
        place = places[piece] = len(self._values)
        self._values.append(piece if isinstance(piece, bytes) else b"")
        if isinstance(piece, Step) and source is not None:
            self._steps.append((place, piece.compute, source))
        elif isinstance(piece, Hole):
            self._holes.append((place, *piece))
        return place


def stencils(
    events: Sequence[Event], bodies: Sequence[bytes], state: object, cutter: Cutter
) -> Iterator[Stencil]:
    """Cut a stream of these events with these bodies, of which `state` is the last."""
    cut = [cutter.text(body) for body in bodies]
    rows = _rows(state, cut, cutter)
    seen: set[tuple[str, str]] = set()
    for number, (event, body) in enumerate(zip(events, bodies, strict=True)):
        stream_id = event.originator_id
        head = (stream_id, event.originator_version, event.data.TOPIC)
        packed = (*cutter.row(_HEAD, head, more=_AFTER_HEAD), BYTEA.item(body)[:LENGTH])
        new = [one for one in claims_of(event) if one not in seen]
        seen.update(new)
        claims = [cutter.row(_CLAIM, (*one, stream_id), more=1) for one in new]
        yield Stencil(event, (*packed, *cut[number]), len(body), claims, rows[number])


def _rows(
    state: object, bodies: Sequence[Pieces], cutter: Cutter
) -> dict[int, list[tuple[str, Pieces]]]:
    """The rows of a stream, by the number of the event that they are told with."""
    told: dict[int, list[tuple[str, Pieces]]] = defaultdict(list)
    computed = [set(_steps(body)) for body in bodies]
    for table in _TABLES.get(type(state), ()):
        for row in table.rows(state):
            pieces = cutter.row(table.kinds, row)
            # The last that has anything to compute which the row needs as well; else the first.
            needed = set(_steps(pieces))
            last = (at for at, steps in enumerate(computed) if steps & needed)
            told[max(last, default=0)].append((table.table, pieces))
    return told


def _steps(pieces: Pieces) -> Iterator[Step]:
    return (piece for piece in pieces if isinstance(piece, Step))
