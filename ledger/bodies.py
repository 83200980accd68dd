"""Between an event and its stored body, both ways: a body is read only if it is what we write.

The parser makes a fact's fields natively, and knows types, members and limits; that there was no other
spelling of anything is proved by writing the event again: the same bytes. What a text must look like
is for `ledger/events.py` to say. It knows the present version of each topic only, and stores nothing.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, lru_cache
from operator import attrgetter
from typing import Any, Final, Generic, TypeVar, get_args, get_origin, get_type_hints
from uuid import UUID

import orjson
from msgspec import Raw, Struct, defstruct
from msgspec.json import Decoder, Encoder
from msgspec.structs import asdict, fields

from ledger.canonical import format_time
from ledger.events import (
    TOPICS,
    Actor,
    Digest,
    Event,
    Fact,
    Form,
    Oid,
    PeerName,
    Serial,
)
from ledger.scope import Scope, scope_from_stored

F = TypeVar("F", bound=Fact)

Read = Callable[[UUID, int, bytes], Event]
"""(stream, version, body) → event. Raises ValueError, KeyError, TypeError or RecursionError: it is none."""
Check = Callable[[Any], object]
"""Raises ValueError: a text is not of its form."""

_REMEMBERED: Final = 4096
"""How many scopes, and texts of each form, are remembered: they recur, and reading one costs."""
_DIGITS: Final = {Digest: 64, Serial: 32}
"""How many hexadecimal digits a text of these kinds has."""
_RECURRING: Final = (Oid, PeerName)
"""Texts of which there are few: each is held against its pattern once."""
_LEFT_OUT: Final = (b'.000000Z"', b'Z"')
"""What ends a time of a whole second: as it is stored, and as the parser's encoder writes it."""
_NOUGHTS: Final = len(_LEFT_OUT[0]) - len(_LEFT_OUT[1])


class _Body(Struct, Generic[F], frozen=True, forbid_unknown_fields=True):
    """A stored body, as the parser sees it."""

    actor: Actor
    at: datetime
    causation_id: UUID | None
    correlation_id: str
    data: F
    id: UUID
    reason: str | None


def written(event: Event) -> bytes:
    """Return the body of an event, RFC 8785 JSON if the event is one that can be read.

    Raises:
        ValueError, TypeError: a value has no place in JSON.
    """
    # The parser's encoder writes text and integers as RFC 8785 §3.2.2 says, which a test holds it to.
    return _encode(
        {
            "actor": event.actor,
            "at": format_time(event.at),
            "causation_id": event.causation_id,
            "correlation_id": event.correlation_id,
            "data": _members(event.data),
            "id": event.id,
            "reason": event.reason,
        }
    )


def stored_json(fact: Fact) -> Any:
    """What is stored of a fact, as a JSON object."""
    return orjson.loads(_encode(_members(fact)))


def _members(fact: Fact) -> dict[str, Any]:
    return {
        name: value if (write := _WRITTEN.get(type(value))) is None else write(value)
        for name, value in asdict(fact).items()
    }


_encode: Final = Encoder(order="sorted").encode
_WRITTEN: Final[Mapping[type, Callable[[Any], object]]] = {
    datetime: format_time,  # with its noughts
    Scope: lambda scope: Raw(scope.text.encode()),
}


@cache
def body_reader(topic: str) -> Read:
    """What reads the bodies of a topic. KeyError: it is not in the registry."""
    kind = TOPICS[topic]  # made when first needed: there are many, and each takes a moment
    parsed, fact_of = _parsed(kind)
    decode = Decoder(parsed).decode
    check, times_of = _check(kind), _times_of(kind)

    def read(stream_id: UUID, version: int, body: bytes) -> Event:
        found = decode(body)
        fact = found.data if fact_of is None else fact_of(found.data)
        if check is not None:
            check(fact)
        event = Event(
            stream_id,
            version,
            found.id,
            found.at,
            found.actor,
            found.correlation_id,
            found.causation_id,
            found.reason,
            fact,
        )
        if not _same(_encode(found), body, times_of(found)) and written(event) != body:
            raise ValueError("it is not written as we write it")
        return event

    return read


# ---- the proof that a body was written by us ------------------------------------------------------


def _same(encoded: bytes, body: bytes, times: Sequence[datetime]) -> bool:
    """Whether the parser's encoder has written the body, but for six noughts of each whole second.

    As many are missing as there are such times; a text that ends like one would make the two differ:
    so none of them can stand anywhere else. False may be wrong: our own writing decides then.
    """
    whole = 0
    for each in times:
        if each.tzinfo is not UTC:
            return False
        if not each.microsecond:
            whole += 1
    if not whole:
        return encoded == body
    return len(body) - len(encoded) == whole * _NOUGHTS and body.replace(*_LEFT_OUT) == encoded


def _times_of(kind: type[Fact]) -> Callable[[Any], Sequence[datetime]]:
    """What finds all times in a body of this fact: each is a member of its own, and never null."""
    names = [f"data.{name}" for name, hint in get_type_hints(kind).items() if hint is datetime]
    if not names:
        return lambda body: (body.at,)
    return attrgetter("at", *names)


# ---- what the parser does not know -----------------------------------------------------------------


def _parsed(kind: type[F]) -> tuple[Any, Callable[[Any], F] | None]:
    """What the parser makes of a body, and what makes a fact of its data; None: they are it."""
    hints = get_type_hints(kind, include_extras=True)
    scopes = [name for name, hint in hints.items() if hint is Scope]
    if not scopes:
        return _Body[kind], None  # type: ignore[valid-type]  # known when it runs
    members = [
        (each.name, Raw if each.name in scopes else hints[each.name]) for each in fields(kind)
    ]

    def fact_of(found: Any) -> F:
        values = asdict(found)
        for name in scopes:
            values[name] = _scope(bytes(values[name]))
        return kind(**values)

    data = defstruct(kind.__name__, members, forbid_unknown_fields=True)
    return _Body[data], fact_of  # type: ignore[valid-type]  # as above


@lru_cache(_REMEMBERED)
def _scope(text: bytes) -> Scope:
    """The scope of this text, read once: every event of a grant's terms shows it."""
    try:
        scope = scope_from_stored(orjson.loads(text))
    except KeyError as error:
        raise ValueError("a scope lacks a member") from error
    if scope.text.encode() != text:
        raise ValueError("a scope is stored in its canonical form")
    return scope


def _check(kind: type[Struct]) -> Check | None:
    """What raises ValueError if a text in an object is not of its form; None: any text will do."""
    hints = get_type_hints(kind, include_extras=True)
    digits = {name: hint for name, hint in hints.items() if hint in _DIGITS}
    check_digits = _check_digits(digits) if digits else None
    texts = [
        (name, matches)
        for name, hint in hints.items()
        if name not in digits and (matches := _matches(hint))
    ]
    parts = [(name, each) for name, hint in hints.items() if (each := _check_of_parts(hint))]
    if not (digits or texts or parts):
        return None

    def check(found: object) -> None:
        if check_digits is not None:
            check_digits(found)
        for name, matches in texts:
            text = getattr(found, name)
            if text is not None and not matches(text):
                raise ValueError("a text is not of its form")
        for name, check_part in parts:
            for part in getattr(found, name):
                check_part(part)

    return check


def _check_digits(digits: Mapping[str, Any]) -> Check:
    """What looks at the digits of all at once, which takes less than one pattern for each."""
    lengths = [_DIGITS[hint] for hint in digits.values()]
    serials = [number for number, hint in enumerate(digits.values()) if hint == Serial]
    values_of = attrgetter(*digits, *list(digits)[:1])  # of one alone it would be no tuple

    def check(found: object) -> None:
        *values, _ = values_of(found)
        text = "".join(values)
        if list(map(len, values)) != lengths or bytes.fromhex(text).hex() != text:
            raise ValueError("it has so many hexadecimal digits, in lower case")
        for number in serials:
            if not "4" <= values[number] < "8":
                raise ValueError("a serial begins with the bits 01")

    return check


def _matches(hint: Any) -> Callable[[str], object] | None:
    """What tells whether a text is of its form, null or not; None: any text is, or it is no text."""
    forms = [one for one in getattr(hint, "__metadata__", ()) if isinstance(one, Form)]
    if not forms:
        inside = get_args(hint) if type(None) in get_args(hint) else ()
        return next((found for one in inside if (found := _matches(one))), None)
    # Of the whole: `$` alone is also before a last line feed.
    matches = re.compile(forms[0].pattern).fullmatch
    return lru_cache(_REMEMBERED)(matches) if hint in _RECURRING else matches


def _check_of_parts(hint: Any) -> Check | None:
    """What checks each part of a list of objects; None: it is no such list, or any text will do."""
    part = get_args(hint)[0] if get_origin(hint) is tuple else None
    return _check(part) if isinstance(part, type) and issubclass(part, Struct) else None
