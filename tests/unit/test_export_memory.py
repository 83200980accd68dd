"""An export holds a page of its events, however many there are."""

import tracemalloc
from dataclasses import replace
from threading import BoundedSemaphore
from types import SimpleNamespace
from typing import Any

from api.exports import ExportConditions
from api.handlers.exports import _Stream
from ledger.record import Filter
from ledger.recorded import RecordedEvent
from unit.test_exports import EVENTS, NOW, ORIGIN


class Ledger:
    """So many events, made when they are asked for, and what is asked of a ledger beside them."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.record = self

    def bounds(self, wanted: Filter) -> tuple[int, None]:
        return 1, None

    def page(self, wanted: Filter, *, after: int | None, limit: int) -> list[RecordedEvent]:
        first = (after or 0) + 1
        last = min(self.size, first + limit - 1)
        # Bodies of their own, as a database gives them.
        return [
            replace(EVENTS[0], position=number, body=bytes(bytearray(EVENTS[0].body)))
            for number in range(first, last + 1)
        ]

    def note(self, *_: object) -> Any:
        return SimpleNamespace(position=self.size + 1)


def peak(size: int) -> tuple[int, int]:
    """How many bytes an export of so many events has, and how many were held at most."""
    ledger = Ledger(size)
    services = SimpleNamespace(
        ledger=ledger,
        search=ledger,
        clock=lambda: NOW,
        readings=None,
        exports=SimpleNamespace(
            places=BoundedSemaphore(1), key=SimpleNamespace(sign=lambda text, _: text)
        ),
    )
    services.exports.places.acquire()
    asked: Any = SimpleNamespace(services=services, call=None, operation=None)
    head: Any = SimpleNamespace(size=size, root=bytes(32))
    identity: Any = SimpleNamespace(origin=ORIGIN)
    stream = _Stream(asked, ExportConditions(), identity, head)
    tracemalloc.start()
    try:
        sent = sum(map(len, stream))
        stream.close()
        return sent, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_what_is_held_does_not_grow_with_what_is_sent() -> None:
    peak(300)  # what is loaded with the first use is held ever after
    few, held_by_few = peak(300)
    many, held_by_many = peak(3000)
    assert many > few * 9
    assert held_by_many < held_by_few * 1.5
