"""The text of bearer tokens: how one is minted, recognised and compared.

It does not store tokens, know when they end, or decide what their holder may do. Grammar:
`fle_` (enrollment) or `flo_` (operator), a 16-character accessor that may appear in logs and URLs,
`_`, 32 random bytes in base62 (43 digits) and the CRC-32 of everything before in base62 (6 digits).
The CRC lets secret scanners and typing errors be told from guesses; it protects nothing.
"""

import hashlib
import hmac
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ACCESSOR_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_ACCESSOR_LENGTH: Final = 16
_SECRET_BYTES: Final = 32
_SECRET_LENGTH: Final = 43  # 62^43 is just above 2^256
_CHECKSUM_LENGTH: Final = 6  # 62^6 is above 2^32
_TOKEN: Final = re.compile(r"(fl[eo])_([0-9a-z]{16})_[0-9A-Za-z]{49}", re.ASCII)


class BearerKind(StrEnum):
    """What a token is for; the value is its prefix."""

    ENROLLMENT = "fle"
    OPERATOR = "flo"


@dataclass(frozen=True, slots=True)
class Bearer:
    """A token just minted: the only moment its text exists on our side.

    `text` is the secret, kept out of the repr; `accessor` names the token in logs and records;
    `digest` is the SHA-256 of the text, 64 lower-case hex, all that is ever stored.
    """

    text: str = field(repr=False)
    accessor: str
    digest: str


@dataclass(frozen=True, slots=True)
class Parsed:
    """A well-formed token as presented: its kind, accessor and digest, without the secret."""

    kind: BearerKind
    accessor: str
    digest: str


def mint(kind: BearerKind, randomness: Callable[[int], bytes]) -> Bearer:
    """Mint a token from `randomness(n)`, which must return n unpredictable bytes.

    Raises:
        ValueError: `randomness` returned another number of bytes than asked for.
    """
    # 128 random bits onto 36^16 names: a bias of 2^-45, and the accessor is no secret.
    name = _draw(randomness, _ACCESSOR_LENGTH) % len(_ACCESSOR_DIGITS) ** _ACCESSOR_LENGTH
    accessor = _digits(name, _ACCESSOR_DIGITS, _ACCESSOR_LENGTH)
    secret = _digits(_draw(randomness, _SECRET_BYTES), _DIGITS, _SECRET_LENGTH)
    body = f"{kind.value}_{accessor}_{secret}"
    text = body + _checksum(body)
    return Bearer(text=text, accessor=accessor, digest=_digest(text))


def parse(text: object) -> Parsed | None:
    """Return what `text` names, or None if it is not a token we could have minted. Never raises."""
    match = _TOKEN.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    body, checksum = match[0][:-_CHECKSUM_LENGTH], match[0][-_CHECKSUM_LENGTH:]
    if checksum != _checksum(body):
        return None
    return Parsed(kind=BearerKind(match[1]), accessor=match[2], digest=_digest(match[0]))


def same_digest(presented: str, stored: str) -> bool:
    """Compare two hex digests in time that does not depend on where they differ."""
    return hmac.compare_digest(presented.encode(), stored.encode())


def _draw(randomness: Callable[[int], bytes], count: int) -> int:
    drawn = randomness(count)
    if len(drawn) != count:
        # A short secret looks like any other token: this must stop, not pass.
        raise ValueError("the source of randomness returned another number of bytes")
    return int.from_bytes(drawn, "big")


def _digits(number: int, alphabet: str, length: int) -> str:
    """Write `number` in the alphabet's base, zero-padded to `length` digits."""
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(alphabet))
        digits.append(alphabet[digit])
    return "".join(reversed(digits))


def _checksum(body: str) -> str:
    return _digits(zlib.crc32(body.encode("ascii")), _DIGITS, _CHECKSUM_LENGTH)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("ascii")).hexdigest()
