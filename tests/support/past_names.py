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
)
_USER: Final = rb"[0-9a-f]{5}"
SHORTEST: Final = len("user-00000")
"""Of texts with a name in them."""
# Whole words, of base64's alphabet too: what stands somewhere within octets is no name.
FOUND: Final = re.compile(
    rb"\b(?<![0-9A-Za-z+/=])(" + _MOMENT + rb"|" + _NAME + rb"|(?<=user-)" + _USER
    + rb"|[0-9A-Za-z+/=]{16,}+)(?![0-9A-Za-z+/=])"
)  # fmt: skip
"""Moments, names, and other words as long as names are."""
_NAMES: Final = re.compile(_NAME + rb"|" + _USER)
# A UUID keeps its version and variant (RFC 9562 §4), a serial its first digit, below 8.
_EXCHANGED: Final = ("567", "89ab", "0123cdef", "ghijklmnopqrstuvwxyz")
_DIGITS: Final = b"0123456789abcdef"
# Of sixteen digits: one at least of the thirty that an id is free to have is among so many.
_APART: Final = 8


def is_name(found: bytes) -> bool:
    return _NAMES.fullmatch(found) is not None


def is_moment(found: bytes) -> bool:
    return b":" in found


@dataclass(frozen=True)
class Copy:
    """By which names a copy lives, and how much earlier. Tables of `bytes.translate`: `letters` for
    names that are written, `octets` for names in binary, which mean the same."""

    letters: bytes
    octets: bytes
    earlier: timedelta

    def text(self, old: str) -> str:
        """Exchange the names in a text."""
        return FOUND.sub(
            lambda found: found[0].translate(self.letters) if is_name(found[0]) else found[0],
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


MOULD: Final = Copy(bytes(range(256)), bytes(range(256)), timedelta(0))


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
    return Copy(bytes.maketrans(old, new), bytes(octets), timedelta(seconds=seconds))


def _apart(one: Copy, other: Copy) -> bool:
    """Whether most digits differ: else an id that lacks those that do would be the same in both."""
    pairs = zip(_DIGITS.translate(one.letters), _DIGITS.translate(other.letters), strict=True)
    return sum(a != b for a, b in pairs) >= _APART


def names_in(body: bytes) -> set[bytes]:
    return set(filter(is_name, FOUND.findall(body)))
