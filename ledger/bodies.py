"""Reads stored bodies: quickly what is written as we write it, exactly everything else.

The exact reader says what is accepted. The quick one leaves a body to a parser that takes other
spellings, too, and has proof that there was none: written again, it is the same bytes. Where it has no
such proof the exact one is asked. Both are made from what `ledger/events.py` says of a fact's fields.
It knows the present version of each topic only.
"""

from collections.abc import Callable
from datetime import datetime
from functools import cache, lru_cache, partial, reduce
from operator import attrgetter, or_
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Final,
    Generic,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)
from uuid import UUID

from msgspec import Meta, Raw, defstruct
from msgspec.json import Decoder, Encoder
from msgspec.structs import asdict
from pydantic import BaseModel, ConfigDict, TypeAdapter
from typing_extensions import TypedDict

from ledger.canonical import parse_time
from ledger.events import TOPICS, Actor, Digest, Event, Fact, Id, Oid, PeerName, Serial, Time
from ledger.frozen import model_of

F = TypeVar("F", bound=Fact)
M = TypeVar("M", bound=BaseModel)

Read = Callable[[UUID, int, bytes], Event]
"""(stream, version, body) → event. Raises ValueError, TypeError or RecursionError: it is none."""

_REMEMBERED: Final = 4096
"""How many actors, scopes and the like, of each kind, are remembered by their text: they recur, and
reading one costs."""
_DIGITS: Final = {Digest: 64, Serial: 32}
"""How many hexadecimal digits a text of these kinds has."""
_RECURRING: Final = (Oid, PeerName)
"""Texts of which there are few: each is held against its pattern once."""
_NATIVE: Final = (bool, NoneType, UUID, bytes)
_LIMITS: Final = ("pattern", "min_length", "max_length", "ge", "le")


class _Body(TypedDict, Generic[F]):
    """A stored body, as one validator reads it."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[misc]  # pydantic's way

    actor: Actor
    at: Time
    causation_id: Id | None
    correlation_id: str
    data: F
    id: Id
    reason: str | None


@cache
def exact_reader(topic: str) -> Read:
    """What decides whether a body is one of the topic's. KeyError: it is not in the registry."""
    kind: Any = TOPICS[topic]  # made when first needed: there are many, and each takes milliseconds
    fields_of = TypeAdapter(_Body[kind]).validator.validate_json

    def read(stream_id: UUID, version: int, body: bytes) -> Event:
        return Event(originator_id=stream_id, originator_version=version, **fields_of(body))

    return read


@cache
def body_reader(topic: str) -> Read:
    """What reads as `exact_reader` does, but sooner. KeyError: the topic is not in the registry."""
    data, fact_of = _stored(TOPICS[topic])
    decode, encode = Decoder(_body_of(data)).decode, Encoder().encode
    actor_of = _remembered(Actor)

    def read(stream_id: UUID, version: int, body: bytes) -> Event:
        try:
            stored = decode(body)
            if encode(stored) == body:
                return Event(
                    stream_id,
                    version,
                    stored.id,
                    parse_time(stored.at),
                    actor_of(bytes(stored.actor)),
                    stored.correlation_id,
                    stored.causation_id,
                    stored.reason,
                    fact_of(stored.data),
                )
        except (ValueError, TypeError, RecursionError):
            pass  # whether it is one after all is not for us to say
        return exact_reader(topic)(stream_id, version, body)

    return read


# ---- what a body is to the parser ---------------------------------------------------------------


def _body_of(data: Any) -> Any:
    """A body whose `data` is that. All members stand in the order in which they are stored."""
    members = [
        ("actor", Raw),
        ("at", str),
        ("causation_id", UUID | None),
        ("correlation_id", str),
        ("data", data),
        ("id", UUID),
        ("reason", str | None),
    ]
    return defstruct("Body", members, forbid_unknown_fields=True)


def _stored(kind: type[M]) -> tuple[Any, Callable[[Any], M]]:
    """How a model with all its fields is stored, and what makes it of that or raises ValueError."""
    hints = get_type_hints(kind, include_extras=True)
    fields = {name: _field(hints[name]) for name in sorted(kind.model_fields)}  # as they are stored
    stored = [(name, how) for name, (how, _) in fields.items()]
    makers = [(name, make) for name, (_, make) in fields.items() if make]
    check = _check({name: hints[name] for name in fields if hints[name] in _DIGITS})
    values_of, model = asdict, model_of(kind)

    def make(found: Any) -> M:
        if check is not None:
            check(found)
        values = values_of(found)
        for name, make_value in makers:
            values[name] = make_value(values[name])
        return model(values)

    return defstruct(kind.__name__, stored, forbid_unknown_fields=True), make


def _check(digits: dict[str, Any]) -> Callable[[Any], None] | None:
    """What raises ValueError unless these fields, of the right length, are as their patterns say.

    Looking at all of them at once takes as long as the parser takes for one pattern.
    """
    if not digits:
        return None
    of_all = attrgetter(*digits, *list(digits)[:1])  # of one alone it would be no tuple
    serials = [name for name, annotation in digits.items() if annotation == Serial]

    def check(found: Any) -> None:
        text = "".join(of_all(found))
        if bytes.fromhex(text).hex() != text:
            raise ValueError("digits are hexadecimal, in lower case")
        for name in serials:
            if not "4" <= getattr(found, name) < "8":
                raise ValueError("a serial begins with the bits 01")

    return check


def _field(annotation: Any) -> tuple[Any, Callable[[Any], object] | None]:
    """How a field is stored, and what makes its value of that; None: it is the value."""
    kind, _ = _parts(annotation)
    if kind is datetime:
        return str, parse_time
    if length := _DIGITS.get(annotation):
        return Annotated[str, Meta(min_length=length, max_length=length)], None
    if annotation in _RECURRING:
        return str, _remembered_text(annotation)
    if (native := _native(annotation)) is not None:
        return native, None
    read = _remembered(annotation)
    return Raw, lambda text: read(bytes(text))


def _native(annotation: Any) -> Any:
    """The type of what the parser makes of a value itself, with its limits; None: it cannot."""
    kind, limits = _parts(annotation)
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Literal or kind in _NATIVE:
        return kind
    if kind in (str, int):
        return Annotated[kind, Meta(**limits)]
    if origin not in (tuple, Union, UnionType):
        return None
    parts = [one if one is ... else _native(one) for one in inside]
    if None in parts:
        return None
    return tuple.__class_getitem__(tuple(parts)) if origin is tuple else reduce(or_, parts)


def _parts(annotation: Any) -> tuple[Any, dict[str, Any]]:
    """A type, and what limits its values."""
    if get_origin(annotation) is not Annotated:
        return annotation, {}
    kind, *more = get_args(annotation)
    limits = {
        name: value
        for each in more
        for one in getattr(each, "metadata", [each])  # a Field keeps its limits in there
        for name in _LIMITS
        if (value := getattr(one, name, None)) is not None
    }
    if "pattern" in limits:
        # To Python's patterns, which the parser takes, `$` is also before a last line feed.
        limits["pattern"] = rf"(?:{limits['pattern']})\Z"
    return kind, limits


@cache
def _remembered_text(annotation: Any) -> Callable[[str], str]:
    """What holds a text against its pattern, once each, in whichever topic it stands."""
    return lru_cache(_REMEMBERED)(partial(TypeAdapter(annotation).validate_python, strict=True))


@cache
def _remembered(annotation: Any) -> Callable[[bytes], Any]:
    """What reads a part, once for each text of it, in whichever topic it stands."""
    exact = partial(TypeAdapter(annotation).validator.validate_json, strict=True)
    models = _of_models(annotation)
    return lru_cache(_REMEMBERED)(_quickly(*models, exact) if models else exact)


def _of_models(annotation: Any) -> tuple[Any, Callable[[Any], object]] | None:
    """As `_stored` says of a model, of one or of a list of them; None: it is neither."""
    kind, _ = _parts(annotation)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return _stored(kind)
    inside = get_args(kind)
    if get_origin(kind) is tuple and inside[1:] == (...,) and (each := _of_models(inside[0])):
        stored, make = each
        return tuple.__class_getitem__((stored, ...)), lambda found: tuple(map(make, found))
    return None


def _quickly(
    stored: Any, make: Callable[[Any], object], exact: Callable[[bytes], object]
) -> Callable[[bytes], object]:
    """What reads a part as `exact` does, but sooner."""
    decode, encode = Decoder(stored).decode, Encoder().encode

    def read(text: bytes) -> object:
        try:
            found = decode(text)
            if encode(found) == text:
                return make(found)
        except (ValueError, TypeError, RecursionError):
            pass  # not for us to say, either
        return exact(text)

    return read
