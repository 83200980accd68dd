"""Tells a past: what happened in its mould, and the same in every copy, in order of time.

It decides nothing and writes nothing. People, rules and authorities are the mould's own and exist once.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from heapq import merge
from typing import Final, NamedTuple
from uuid import UUID

from ledger.events import Event
from ledger.grant_state import Grant
from ledger.mapper import body_of
from support.past_book import Book, only_once
from support.past_cutter import Cutter
from support.past_forms import Forms
from support.past_names import MOULD, Copy, copies, names_in
from support.past_press import Told
from support.past_stencils import Stencil, stencils
from support.past_world import EARLIEST

_SECONDS: Final = int(EARLIEST.total_seconds())


class _Append(NamedTuple):
    """An append of the mould."""

    at: datetime
    stencils: Sequence[Stencil]


class Mould:
    """What the rules and folds have made, and its copies."""

    def __init__(self, book: Book, forms: Forms) -> None:
        self.copies = copies(book.dice, book.dice.sample(range(1, _SECONDS), book.copies - 1))
        self.stencils = dict(self._cut(book, forms))
        coming = {id_: iter(each) for id_, each in self.stencils.items()}
        self._appends = [
            _Append(one.at, [next(coming[event.originator_id]) for event in one.events])
            for one in book.appends
        ]
        self._copied = [
            stencilled
            for stencilled, one in zip(self._appends, book.appends, strict=True)
            if not only_once(one.events[0].data)
        ]

    def _cut(self, book: Book, forms: Forms) -> Iterator[tuple[UUID, list[Stencil]]]:
        streams: dict[UUID, list[Event]] = defaultdict(list)
        for append in book.appends:
            streams[append.events[0].originator_id] += append.events
        once: set[bytes] = set()
        # First those whose names are the same in every copy.
        for id_, events in sorted(streams.items(), key=lambda one: not only_once(one[1][0].data)):
            state, bodies = book.states[id_], [body_of(event) for event in events]
            cutter = Cutter(once, copied=bool(self.copies) and not only_once(events[0].data))
            if not cutter.copied:
                once.update([str(id_).encode()], *map(names_in, bodies))
            elif isinstance(state, Grant):
                cutter.compute(state, [event.data for event in events], forms.form)
            yield id_, list(stencils(events, bodies, state, cutter))

    def told(self) -> Iterator[Told]:
        """Every append of the mould and of every copy."""
        copied = (_told(self._copied, number, copy) for number, copy in enumerate(self.copies, 1))
        return merge(_told(self._appends, 0, MOULD), *copied)


def _told(appends: Iterable[_Append], number: int, copy: Copy) -> Iterator[Told]:
    for at, each in appends:
        yield Told(copy.moment(at), number, [one.stamp(copy) for one in each])
