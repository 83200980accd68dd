"""Reads a request's JSON so that no two readers could understand it differently.

It knows no operation and no model. Refused: duplicate keys, NUL and lone surrogates in text, NaN
and infinities, nesting deeper than 32, a body above 256 KiB, bytes that are not UTF-8. RFC 8259
leaves each of these to the reader; an audit trail must not depend on whose reader it was.
"""

import json
import math
import re
from typing import Any, Final

from api.problems import MalformedError

MAX_BODY: Final = 256 * 1024
"""Largest body read, in bytes."""
MAX_DEPTH: Final = 32

_TOKENS: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)


def decode(data: bytes) -> object:
    """Return the JSON value in `data`.

    Raises:
        MalformedError: it is no JSON, or is ambiguous in one of the ways above. The text never
            repeats what was sent.
    """
    _check_depth(data)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedError("the body is not UTF-8") from None
    try:
        value: object = json.loads(
            text, object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_finite
        )
    except MalformedError:
        raise
    except json.JSONDecodeError as error:
        raise MalformedError(f"the body is not JSON, from character {error.pos} on") from None
    except (ValueError, RecursionError):
        # An integer of thousands of digits; depth is refused before.
        raise MalformedError("the body holds a number nobody can read") from None
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, list):
        _check_list(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise MalformedError("an object in the body has the same key twice")
    for key, value in pairs:
        _check_text(key)
        if isinstance(value, str):
            _check_text(value)
        elif isinstance(value, list):
            _check_list(value)
    return found


def _check_list(values: list[Any]) -> None:
    # Objects inside were checked when they were closed.
    for value in values:
        if isinstance(value, str):
            _check_text(value)
        elif isinstance(value, list):
            _check_list(value)


def _check_text(text: str) -> None:
    if "\0" in text:
        raise MalformedError("a text in the body holds NUL")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise MalformedError("a text in the body holds a lone surrogate") from None


def _no_constant(_name: str) -> float:
    raise MalformedError("the body holds NaN or an infinity")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise MalformedError("the body holds a number too large to keep")
    return number


def _check_depth(data: bytes) -> None:
    """Refuse deep nesting before the parser recurses. Brackets inside strings do not count."""
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return  # nearly every body
    depth = 0
    for token in _TOKENS.finditer(data):
        if token[0] in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise MalformedError(f"the body is nested deeper than {MAX_DEPTH}")
        elif token[0] in b"]}":
            depth -= 1
