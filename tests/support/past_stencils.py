"""Stamps copies of a stream: the same life under other names and at other times, byte for byte.

Stencils are made of streams that the rules and folds have made, cut event by event (`past_cutter`). A copy's certificates hold its own names and times, and their signatures are no more
right than those of the mould (`past_forms`).
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Final, NamedTuple

from ledger.appends import InlineProjection
from ledger.claims import claims_of
from ledger.events import Event, Fact
from ledger.packing import BYTEA, INT8, LENGTH, TEXT, UUIDS
from projections.registry import INLINE
from support.past_cutter import Cutter, Hole, Make, Other, Pieces, Step, gathered
from support.past_names import Copy

_TABLES: Final[dict[type, list[InlineProjection]]] = {}
for _table in INLINE:
    _TABLES.setdefault(_table.state, []).append(_table)
# How rows of `ledger_events` and `ledger_claims` begin (see past_press.py): the body comes next and
# what only its position decides, so many items; the position.
_HEAD: Final = (UUIDS, INT8, TEXT)
_AFTER_HEAD: Final = 4
_CLAIM: Final = (TEXT, TEXT, UUIDS)


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


class Cut(NamedTuple):
    """One event of the mould: of a line, what is the same in all copies and what is not. In `whole`,
    its row, the last `size` octets are its body."""

    fact: type[Fact]
    stream_id: bytes
    version: int
    size: int
    whole: Pieces
    claims: Sequence[Pieces]
    rows: Sequence[tuple[str, Pieces]]


class _Text(NamedTuple):
    """A text with gaps, and what fills them, of all values: it is `form % fill(values)`."""

    form: bytes
    fill: Callable[[Sequence[bytes]], Any]


class Stencil:
    """Some events of the mould, ready to be stamped."""

    def __init__(self, cuts: Sequence[Cut]) -> None:
        others = gathered(chain.from_iterable(map(_others, cuts)))
        alike: dict[Make, list[Hole]] = defaultdict(list)
        for one in others:
            if isinstance(one, Hole):
                alike[one.make].append(one)
        steps = [one for one in others if isinstance(one, Step)]
        order = enumerate(chain(*alike.values(), steps))
        places: dict[Other, int] = {one: place for place, one in order}
        self._makes = [(make, [one.old for one in holes]) for make, holes in alike.items()]
        self._steps = [(one.compute, *_laid(one.pieces, places)) for one in steps]
        self._lines = [
            (
                *one[:4],
                _laid(one.whole, places),
                [_laid(claim, places) for claim in one.claims],
                [(table, *_laid(row, places)) for table, row in one.rows],
            )
            for one in cuts
        ]

    def stamp(self, copy: Copy) -> Iterator[Line]:
        """What these events are in a copy."""
        values: list[bytes] = []
        for make, old in self._makes:
            values += make(copy, old)
        for compute, form, fill in self._steps:
            values.append(compute(form % fill(values)))
        for fact, stream_id, version, size, (form, fill), claims, rows in self._lines:
            event = form % fill(values)
            yield Line(
                fact,
                stream_id.translate(copy.letters).decode(),
                version,
                event[-size:],
                event,
                [form % fill(values) for form, fill in claims] if claims else (),
                [(table, form % fill(values)) for table, form, fill in rows] if rows else (),
            )


def _others(cut: Cut) -> Iterator[Other]:
    for text in (cut.whole, *cut.claims, *(row for _, row in cut.rows)):
        yield from text.others


def _laid(pieces: Pieces, places: Mapping[Other, int]) -> _Text:
    form = b"%b".join([octets.replace(b"%", b"%%") for octets in pieces.same])
    gaps = [places[one] for one in pieces.others]
    return _Text(form, itemgetter(*gaps) if gaps else _nothing)


def _nothing(values: Sequence[bytes]) -> tuple[bytes, ...]:
    return ()


def cuts(
    events: Sequence[Event], bodies: Sequence[bytes], state: object, cutter: Cutter
) -> Iterator[Cut]:
    """Cut a stream of these events with these bodies, of which `state` is the last."""
    cut = [cutter.text(body) for body in bodies]
    rows = _rows(state, cut, cutter)
    seen: set[tuple[str, str]] = set()
    for number, (event, body) in enumerate(zip(events, bodies, strict=True)):
        stream_id, fact = event.originator_id, type(event.data)
        head = (stream_id, event.originator_version, fact.TOPIC)
        whole = cutter.row(_HEAD, head, more=_AFTER_HEAD)
        whole.add(BYTEA.item(body)[:LENGTH])
        whole.extend(cut[number])
        new = [one for one in claims_of(event) if one not in seen]
        seen.update(new)
        claims = [cutter.row(_CLAIM, (*one, stream_id), more=1) for one in new]
        name = str(stream_id).encode()
        yield Cut(fact, name, event.originator_version, len(body), whole, claims, rows[number])


def _rows(
    state: object, bodies: Sequence[Pieces], cutter: Cutter
) -> dict[int, list[tuple[str, Pieces]]]:
    """The rows of a stream, by the number of the event that they are told with."""
    told: dict[int, list[tuple[str, Pieces]]] = defaultdict(list)
    computed = [_steps(body) for body in bodies]
    for table in _TABLES.get(type(state), ()):
        for row in table.rows(state):
            pieces = cutter.row(table.kinds, row)
            # The last that has anything to compute which the row needs as well; else the first.
            needed = _steps(pieces)
            last = (at for at, steps in enumerate(computed) if steps & needed)
            told[max(last, default=0)].append((table.table, pieces))
    return told


def _steps(pieces: Pieces) -> set[Step]:
    return {one for one in pieces.others if isinstance(one, Step)}
