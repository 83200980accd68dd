"""The one form of bytes that are hashed, and how a moment becomes text.

It does not hash, sign or parse JSON, and it knows no event: it takes plain JSON values only. A body is
written by `ledger/bodies.py`, in this form, to which a test holds it.
"""

from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import orjson

MAX_INTEGER: Final = 2**53
"""The largest magnitude stored: beyond it, readers with IEEE doubles lose digits (RFC 7493 §2.2)."""

# Without PASSTHROUGH orjson would write dataclasses, datetimes and subclasses as it sees fit.
_OPTIONS: Final = (
    orjson.OPT_SORT_KEYS
    | orjson.OPT_PASSTHROUGH_SUBCLASS
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
)
_PLAIN: Final = frozenset({str, bool, type(None)})
_TIME_LENGTH: Final = 27


class CanonicalError(ValueError):
    """The value is outside the JSON subset the ledger stores. The text never echoes the value."""


def canonical_json(value: object) -> bytes:
    """Return the RFC 8785 (JCS) serialization of `value`, as UTF-8 without a newline.

    Accepts exactly: dict with ASCII `str` keys, list, tuple, str without lone surrogates, bool,
    int with |n| ≤ 2^53, None; nested at most 254 deep. Subclasses count as anything else.

    Raises:
        CanonicalError: anything else, floats included (their shortest form is a matter of taste
            between languages; the ledger stores none).
    """
    try:
        # orjson sorts keys by code point and JCS by UTF-16 unit: the same for ASCII keys, the
        # only ones let through below. Its escapes and integers are those of RFC 8785 §3.2.2.
        encoded = orjson.dumps(value, option=_OPTIONS)
    except (TypeError, RecursionError) as error:
        raise CanonicalError(_reason(error)) from None
    # After the encoder, because it has then refused cycles and excessive depth for us; needed,
    # because it would write floats, NaN (as null), enums and UUIDs without a word.
    _check(value, keys_are_ascii=encoded.isascii())
    return encoded


def _reason(error: Exception) -> str:
    text = str(error)
    if "surrogates" in text:
        return "a string holds a lone surrogate"
    if "ecursion" in text:
        return "nested too deeply"
    if "key" in text:
        return "an object key is not a string"
    if "Integer" in text:
        return "an integer is larger than 2^53"
    return "a value is of a type that is not stored"


def _check(value: object, *, keys_are_ascii: bool) -> None:
    """Refuse what the encoder lets through. Exact types: an enum that is also a str is not a str."""
    todo: list[Any] = [(value,)]
    while todo:
        item = todo.pop()
        kind = type(item)
        if kind is dict:
            if not keys_are_ascii and not "".join(item).isascii():
                raise CanonicalError("an object key is not ASCII")
            item = item.values()
        elif kind is not list and kind is not tuple:
            _check_integer(item)
            continue
        for member in item:
            if type(member) not in _PLAIN:
                todo.append(member)  # noqa: PERF401 - measured: a comprehension here costs 70 % more


def _check_integer(value: object) -> None:
    if type(value) is not int:
        raise CanonicalError("a value is of a type that is not stored")
    if not -MAX_INTEGER <= value <= MAX_INTEGER:
        raise CanonicalError("an integer is larger than 2^53")


def format_time(moment: datetime) -> str:
    """Return `moment` in UTC as the 27 characters `2026-11-23T15:07:08.123456Z` (RFC 3339).

    Raises:
        ValueError: `moment` has no time zone, or leaves the years 1..9999 when taken to UTC.
    """
    if moment.tzinfo is not UTC:
        if moment.utcoffset() is None:
            raise ValueError("a moment without a time zone cannot be stored")
        try:
            moment = moment.astimezone(UTC)
        except OverflowError:
            raise ValueError("the moment is outside the years 1 to 9999 in UTC") from None
    text = orjson.dumps(moment, option=orjson.OPT_UTC_Z)[1:-1].decode()
    # The encoder leaves six noughts out.
    return text if moment.microsecond else f"{text[:-1]}.000000Z"


def format_id(value: UUID) -> str:
    """Return a UUID in lower case with hyphens, as `str` does in four times the time."""
    return orjson.dumps(value)[1:-1].decode()


def parse_time(text: str) -> datetime:
    """Return the aware UTC moment written by `format_time`; accepts exactly its form.

    Raises:
        ValueError: any other form (another precision, an offset, lower case, a leap second).
    """
    # fromisoformat takes many forms of ISO 8601. With these characters at these places only one is left
    # of them, in which 24 is no hour.
    if (
        type(text) is str
        and len(text) == _TIME_LENGTH
        and text[4:20:3] == "--T::."
        and text[26] == "Z"
        and text[11:13] != "24"
    ):
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            pass  # a letter, no such day, minute or second
    raise ValueError("not a time of the form 2026-11-23T15:07:08.123456Z")
