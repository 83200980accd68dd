"""The names in a made-up past, found by their shape, and how each copy of it exchanges them.

Ids, serials, accessors, digests, and the names of peers, users and requests are exchanged letter by
letter, so that nothing changes its length. What else stands in a text is nothing to it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from random import Random
from typing import Final
from uuid import UUID

_MOMENT: Final = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"
_NAME: Final = (
    rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{64}|[0-9a-f]{32}|[0-9a-z]{16}"
    rb"|(?<=user-)[0-9a-f]{5}"
)
# Whole words, of base64's alphabet too: what stands somewhere within octets is no name.
FOUND: Final = re.compile(
    rb"\b(?<![0-9A-Za-z+/=])(?:(?P<moment>" + _MOMENT + rb")|(?P<name>" + _NAME
    + rb")|[0-9A-Za-z+/=]{16,}+)(?![0-9A-Za-z+/=])"
)  # fmt: skip
# A UUID keeps its version and variant (RFC 9562 §4), a serial its first digit, below 8.
_EXCHANGED: Final = ("567", "89ab", "0123cdef", "ghijklmnopqrstuvwxyz")
_DIGITS: Final = b"0123456789abcdef"
# Of sixteen digits: one at least of the thirty that an id is free to have is among so many.
_APART: Final = 8


@dataclass(frozen=True)
class Copy:
    """By which names a copy lives, and how much earlier. Tables of `bytes.translate`: `letters` for
    names that are written and what is `kept` between them, `octets` for names in binary, which mean
    the same."""

    letters: bytes
    octets: bytes
    earlier: timedelta

    def text(self, old: str) -> str:
        """Exchange the names in a text."""
        return FOUND.sub(
            lambda found: found[0].translate(self.letters) if found["name"] else found[0],
            old.encode(),
        ).decode()

    def uuid(self, old: UUID) -> UUID:
        return UUID(bytes=old.bytes.translate(self.octets))

    @cached_property
    def microseconds(self) -> int:
        """How much earlier."""
        return self.earlier // timedelta(microseconds=1)

    def moment(self, old: datetime) -> datetime:
        return old - self.earlier


# Above ASCII there is room for what is kept.
_ASCII: Final = bytes(range(128))
_KEPT: Final = bytes(one | 128 for one in range(256))
MOULD: Final = Copy(_ASCII * 2, bytes(range(256)), timedelta(0))


def kept(text: bytes) -> bytes:
    """This text so that the `letters` of every copy make it of it, whatever names it has. ValueError:
    it is not ASCII."""
    if not text.isascii():
        raise ValueError("only ASCII can be kept between names")
    return text.translate(_KEPT)


def copies(dice: Random, earlier: Iterable[int]) -> list[Copy]:
    """As many copies, so many seconds earlier each, by names that no two have in common."""
    found = [MOULD]
    for seconds in earlier:
        another = _copy(dice, seconds)
        while not all(_apart(another, one) for one in found):
            another = _copy(dice, seconds)
        found.append(another)
    return found[1:]


def _copy(dice: Random, seconds: int) -> Copy:
    letters = {"4": "4"}
    for group in _EXCHANGED:
        letters.update(zip(group, dice.sample(group, len(group)), strict=True))
    octets = [int(letters[f"{one >> 4:x}"] + letters[f"{one & 15:x}"], 16) for one in range(256)]
    old, new = "".join(letters).encode(), "".join(letters.values()).encode()
    table = bytes.maketrans(old, new)[:128] + _ASCII
    return Copy(table, bytes(octets), timedelta(seconds=seconds))


def _apart(one: Copy, other: Copy) -> bool:
    """Whether most digits differ: else an id that lacks those that do would be the same in both."""
    pairs = zip(_DIGITS.translate(one.letters), _DIGITS.translate(other.letters), strict=True)
    return sum(a != b for a, b in pairs) >= _APART


def names_in(body: bytes) -> set[bytes]:
    return {found[0] for found in FOUND.finditer(body) if found["name"]}
