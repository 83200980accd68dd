"""Tells a past: what happened in its mould, and the same in every copy, in order of time.

It decides nothing and writes nothing. People, rules and authorities are the mould's own and exist once.
"""

from collections.abc import Iterator
from heapq import merge
from typing import Final
from uuid import UUID

from ledger.events import Event
from support.past_book import Book, only_once
from support.past_names import Copy, copies, names_in
from support.past_press import Told
from support.past_stencils import Stencil, original
from support.past_world import EARLIEST

_SECONDS: Final = int(EARLIEST.total_seconds())


class Mould:
    """What the rules and folds have made, and its copies."""

    def __init__(self, book: Book) -> None:
        self._appends = book.appends
        self._copied = [one for one in book.appends if not only_once(one.events[0].data)]
        streams: dict[UUID, list[Event]] = {}
        for append in book.appends:
            streams.setdefault(append.events[0].originator_id, []).extend(append.events)
        self.lines = {id_: original(each, book.states[id_]) for id_, each in streams.items()}
        once = frozenset(
            name
            for id_, events in streams.items()
            if only_once(events[0].data)
            for line in self.lines[id_]
            for name in (str(id_).encode(), *names_in(line.body))
        )
        self.copies = copies(book.dice, book.dice.sample(range(1, _SECONDS), book.copies - 1))
        self.stencils = {
            id_: Stencil(self.lines[id_], [one.data for one in events], book.states[id_], once)
            for id_, events in streams.items()
            if self.copies and not only_once(events[0].data)
        }

    def told(self) -> Iterator[Told]:
        """Every append of the mould and of every copy."""
        copied = (self._copy(number, copy) for number, copy in enumerate(self.copies, 1))
        return merge(self._own(), *copied)

    def _own(self) -> Iterator[Told]:
        coming = {id_: iter(lines) for id_, lines in self.lines.items()}
        for at, events in self._appends:
            yield Told(at, 0, [next(coming[one.originator_id]) for one in events])

    def _copy(self, number: int, copy: Copy) -> Iterator[Told]:
        coming = {}
        for at, events in self._copied:
            id_ = events[0].originator_id
            if id_ not in coming:
                coming[id_] = iter(self.stencils[id_].stamp(copy))
            yield Told(copy.moment(at), number, [next(coming[id_]) for _ in events])
