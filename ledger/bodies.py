"""Reads stored bodies: quickly what is written as we write it, exactly everything else.

The exact reader says what is accepted. The quick one leaves a body to a parser that takes other
spellings, too, and has proof that there was none: written again, it is the same bytes. Where it has no
such proof the exact one is asked. Both are made from what `ledger/events.py` says of a fact's fields.
It knows the present version of each topic only.
"""

from collections.abc import Callable
from datetime import datetime
from functools import cache, lru_cache, partial, reduce
from operator import or_
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
from pydantic import ConfigDict, TypeAdapter
from typing_extensions import TypedDict

from ledger.canonical import parse_time
from ledger.events import TOPICS, Actor, Event, Fact, Id, Time
from ledger.frozen import made_of, model_of

F = TypeVar("F", bound=Fact)

Read = Callable[[UUID, int, bytes], Event]
"""(stream, version, body) → event. Raises ValueError, TypeError or RecursionError: it is none."""

_REMEMBERED: Final = 4096
"""How many actors, scopes and the like, of each kind, are remembered by their text: they recur, and
reading one costs."""
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
        fields = fields_of(body)
        return made_of(Event, originator_id=stream_id, originator_version=version, **fields)

    return read


@cache
def body_reader(topic: str) -> Read:
    """What reads as `exact_reader` does, but sooner. KeyError: the topic is not in the registry."""
    kind = TOPICS[topic]
    hints = get_type_hints(kind, include_extras=True)
    fields = {name: _field(hints[name]) for name in sorted(kind.model_fields)}  # as they are stored
    data = [(name, stored) for name, (stored, _) in fields.items()]
    makers = [(name, make) for name, (_, make) in fields.items() if make]
    decode, encode = Decoder(_body_of(data)).decode, Encoder().encode
    actor_of, values_of, fact_of = _remembered(Actor), asdict, model_of(kind)

    def read(stream_id: UUID, version: int, body: bytes) -> Event:
        try:
            stored = decode(body)
            if encode(stored) == body:
                values = values_of(stored.data)
                for name, make in makers:
                    values[name] = make(values[name])
                return made_of(
                    Event,
                    originator_id=stream_id,
                    originator_version=version,
                    id=stored.id,
                    at=parse_time(stored.at),
                    actor=actor_of(bytes(stored.actor)),
                    correlation_id=stored.correlation_id,
                    causation_id=stored.causation_id,
                    reason=stored.reason,
                    data=fact_of(values),
                )
        except (ValueError, TypeError, RecursionError):
            pass  # whether it is one after all is not for us to say
        return exact_reader(topic)(stream_id, version, body)

    return read


# ---- what a body is to the parser ---------------------------------------------------------------


def _body_of(data: list[tuple[str, Any]]) -> Any:
    """A body whose `data` has these fields. All members stand in the order in which they are stored."""
    members = [
        ("actor", Raw),
        ("at", str),
        ("causation_id", UUID | None),
        ("correlation_id", str),
        ("data", defstruct("Data", data, forbid_unknown_fields=True)),
        ("id", UUID),
        ("reason", str | None),
    ]
    return defstruct("Body", members, forbid_unknown_fields=True)


def _field(annotation: Any) -> tuple[Any, Callable[[Any], object] | None]:
    """How a field is stored, and what makes its value of that; None: it is the value."""
    kind, _ = _parts(annotation)
    if kind is datetime:
        return str, parse_time
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
        for one in more
        for name in _LIMITS
        if (value := getattr(one, name, None)) is not None
    }
    if "pattern" in limits:
        # To Python's patterns, which the parser takes, `$` is also before a last line feed.
        limits["pattern"] = rf"(?:{limits['pattern']})\Z"
    return kind, limits


@cache
def _remembered(annotation: Any) -> Callable[[bytes], Any]:
    """What reads a part exactly, once for each text of it, in whichever topic it stands."""
    read = TypeAdapter(annotation).validator.validate_json
    return lru_cache(_REMEMBERED)(partial(read, strict=True))
