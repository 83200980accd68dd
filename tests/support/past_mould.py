"""Tells a past: what happened in its mould, and the same in every copy, in order of time.

It decides nothing and writes nothing. People, rules and authorities are the mould's own and exist once.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from heapq import merge
from itertools import chain, islice
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
from support.past_stencils import Cut, Stencil, cuts
from support.past_world import EARLIEST

_SECONDS: Final = int(EARLIEST.total_seconds())
_TOGETHER: Final = 32  # appends that are stamped at once


class _Sheet(NamedTuple):
    """Some appends of the mould in order: when each is, where among all, and how many events it has."""

    appends: Sequence[tuple[datetime, int, int]]
    stencil: Stencil


class Mould:
    """What the rules and folds have made, and its copies."""

    def __init__(self, book: Book, forms: Forms) -> None:
        self.copies = copies(book.dice, book.dice.sample(range(1, _SECONDS), book.copies - 1))
        streams = dict(self.cut(book, forms))
        self._once = list(_sheets(book, streams, once=True))
        self._copied = list(_sheets(book, streams, once=False))

    def cut(self, book: Book, forms: Forms) -> Iterator[tuple[UUID, list[Cut]]]:
        """Every stream of the mould, event by event."""
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
            yield id_, list(cuts(events, bodies, state, cutter))

    def told(self) -> Iterator[Told]:
        """Every append of the mould and of every copy."""
        each = enumerate([MOULD, *self.copies])
        return merge(_told(self._once, 0, MOULD), *(_told(self._copied, *copy) for copy in each))


def _sheets(book: Book, streams: Mapping[UUID, Iterable[Cut]], *, once: bool) -> Iterator[_Sheet]:
    coming = {id_: iter(cuts) for id_, cuts in streams.items()}
    chosen = (
        (place, append)
        for place, append in enumerate(book.appends)
        if only_once(append.events[0].data) is once
    )
    while some := list(islice(chosen, _TOGETHER)):
        appends = [(append.at, place, len(append.events)) for place, append in some]
        events = chain.from_iterable(append.events for _, append in some)
        yield _Sheet(appends, Stencil([next(coming[one.originator_id]) for one in events]))


def _told(sheets: Iterable[_Sheet], number: int, copy: Copy) -> Iterator[Told]:
    for appends, stencil in sheets:
        lines = stencil.stamp(copy)
        for at, place, events in appends:
            yield Told(copy.moment(at), number, place, list(islice(lines, events)))
