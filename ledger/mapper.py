"""Between an event and the bytes that are stored and hashed. It decides nothing and writes nothing.

The body is the canonical JSON of exactly seven keys:
`actor, at, causation_id, correlation_id, data, id, reason`. Only topics of the closed registry are
read: a name in a row never becomes an import.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from uuid import UUID

import orjson
from eventsourcing.domain import DomainEventProtocol
from eventsourcing.persistence import (
    JSONTranscoder,
    Mapper,
    MapperDeserialisationError,
    StoredEvent,
)

from ledger.bodies import body_reader, written
from ledger.canonical import canonical_json
from ledger.errors import InvalidError
from ledger.events import Event
from ledger.frozen import made_of

MAX_BODY: Final = 60 * 1024
"""Bytes. An entry bundle of 256 such bodies still fits a 16 MiB message."""

Upcast = Callable[[dict[str, Any]], dict[str, Any]]
UPCASTS: Final[Mapping[str, tuple[str, Upcast]]] = {}
"""Old topic → (the topic it is read as, how its `data` becomes that topic's). Applied repeatedly, on
reading only; the stored bytes stay what they were. The old topic's class stays in the registry: its
stream type is part of every entry of it."""

# An escaped NUL, that is one whose backslash is not itself escaped.
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


class StoredEventError(MapperDeserialisationError):
    """A stored event is not one this ledger can have written."""


class EventMapper(Mapper[UUID]):
    """The library's mapper for our events: canonical out, validated in."""

    def __init__(self, upcasts: Mapping[str, tuple[str, Upcast]] = UPCASTS) -> None:
        super().__init__(JSONTranscoder())
        self._upcasts = upcasts

    def to_stored_event(self, domain_event: DomainEventProtocol[UUID]) -> StoredEvent:
        """Return the event with its body as bytes.

        Raises:
            InvalidError: a value cannot be stored (code `invalid`), or the body is larger than
                60 KiB (code `too-large`).
        """
        if not isinstance(domain_event, Event):
            raise TypeError(f"not an event of this ledger: {type(domain_event).__name__}")
        return made_of(
            StoredEvent,
            originator_id=domain_event.originator_id,
            originator_version=domain_event.originator_version,
            topic=domain_event.data.TOPIC,
            state=body_of(domain_event),
        )

    def to_domain_event(self, stored_event: StoredEvent) -> Event:
        """Return the event of a stored row, upcast and validated.

        Raises:
            StoredEventError: unknown topic, not our JSON, another shape.
        """
        if isinstance(stored_event.originator_id, str):
            raise StoredEventError("a stream's id is a UUID")
        return read_event(
            stored_event.originator_id,
            stored_event.originator_version,
            stored_event.topic,
            stored_event.state,
            self._upcasts,
        )


def read_event(
    stream_id: UUID,
    version: int,
    topic: str,
    body: bytes,
    upcasts: Mapping[str, tuple[str, Upcast]] = UPCASTS,
) -> Event:
    """Return the event of stored values, upcast and validated.

    Raises:
        StoredEventError: unknown topic, not our JSON, another shape.
    """
    try:
        if topic in upcasts:
            topic, body = _upcast(topic, body, upcasts)
        return body_reader(topic)(stream_id, version, body)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoredEventError(
            f"version {version} of stream {stream_id} cannot be read: {_reason(error)}"
        ) from error


def _upcast(
    topic: str, body: bytes, upcasts: Mapping[str, tuple[str, Upcast]]
) -> tuple[str, bytes]:
    """The topic a body is read as, and the body with that topic's data."""
    parts = orjson.loads(body)
    if canonical_json(parts) != body:
        raise ValueError("it is not written as we write it")
    while topic in upcasts:
        topic, upcast = upcasts[topic]
        parts["data"] = upcast(parts["data"])
    return topic, canonical_json(parts)


def body_of(event: Event) -> bytes:
    """Return the stored bytes of an event, RFC 8785 JSON: those that `read_event` makes it of.

    Raises:
        InvalidError: a value cannot be stored (code `invalid`), or the body is larger than
            60 KiB (code `too-large`).
    """
    try:
        body = written(event)
        if len(body) <= MAX_BODY:
            # Making a fact has checked nothing: what could not be read again is never stored.
            body_reader(event.data.TOPIC)(event.originator_id, event.originator_version, body)
    except (ValueError, TypeError, RecursionError):
        # Nothing of the cause: it may name a value.
        raise InvalidError("this cannot be stored: a value is not of its type or form") from None
    if len(body) > MAX_BODY:
        raise InvalidError("an event has at most 60 KiB", code="too-large")
    # No database text and no jsonb can hold it: refused here, the tables can always be folded.
    if b"\\u0000" in body and _NUL.search(body):
        raise InvalidError("this cannot be stored: a text holds a NUL")
    return body


def _reason(error: Exception) -> str:
    # Never the value: a body may hold what must not reach a log line.
    return "unknown topic" if isinstance(error, KeyError) else type(error).__name__
