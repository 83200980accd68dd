"""Authorities of a place: what they keep open is closed when they are replaced, and at the end."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast
from uuid import UUID

from ca.signers import Adopted

FIRST, SECOND, UNKNOWN = (UUID(int=number) for number in (1, 2, 3))


class Held:
    """As much of an authority as is looked at here."""

    def __init__(self, id_: UUID) -> None:
        self.id = str(id_)
        self.closed = False

    def close(self) -> None:
        self.closed = True


@contextmanager
def nothing_to_read() -> Iterator[Any]:
    raise AssertionError("the table was asked")
    yield


def test_what_is_replaced_is_closed_and_all_of_it_at_the_end() -> None:
    opened: list[list[Held]] = []

    def look() -> list[Held]:
        opened.append([Held(FIRST), Held(SECOND)])
        return opened[-1]

    signers = Adopted(nothing_to_read, cast(Any, look))
    assert signers.find(FIRST) is cast(Any, opened[0][0])
    assert signers.find(UNKNOWN) is None  # which looks again
    assert [[one.closed for one in some] for some in opened] == [[True, True], [False, False]]
    signers.close()
    assert all(one.closed for one in opened[1])
