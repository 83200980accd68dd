"""The ledger's events: what their operations do."""

from collections.abc import Mapping
from typing import Final

import orjson

from api import cursors
from api import events as wire
from api.exchange import Answer, Asked, Handler
from api.wire import parse_position
from ledger.errors import InvalidError
from ledger.record import Filter, RecordedEvent

_TEXT: Final = "text/plain; charset=utf-8"
_BYTES: Final = "application/octet-stream"


def list_(asked: Asked) -> Answer:
    query = asked.query_as(wire.EventFilter)
    place = cursors.read(asked.operation.name, query)
    record = asked.services.ledger.record
    position = record.head().size
    # Newest first, the pages stay what they were when the first one was read.
    last = place[0] if place else position
    below = position if query.before is None else query.before - 1
    found = record.page(
        Filter(
            stream_id=query.stream,
            topics=() if query.topic is None else (query.topic,),
            first=(query.after or 0) + 1,
            last=min(below, last if query.newest_first else position),
            since=query.since,
            until=query.until,
            actor_id=query.actor,
            mentions=query.about,
        ),
        after=_after(place[1]) if place else None,
        newest_first=query.newest_first,
        limit=query.limit + 1,
    )
    following = None
    if len(found) > query.limit:
        found = found[: query.limit]
        following = cursors.write(asked.operation.name, query, last, str(found[-1].position))
    asked.services.readings.note(asked.call, asked.operation.name, query, len(found))
    value = wire.Events(items=[_shown(one) for one in found], next=following)
    return Answer(value, position=position, following=following)


def show(asked: Asked) -> Answer:
    query = asked.query_as(wire.EventFormat)
    record = asked.services.ledger.record
    one = record.at(int(asked.text("position")))
    position = record.head().size
    asked.services.readings.note(asked.call, asked.operation.name, query, 1)
    if query.format == "entry":
        return Answer(data=one.entry, media=_TEXT, position=position)
    if query.format == "body":
        # The stored bytes, whatever they are: this is evidence, not an interpretation of it.
        return Answer(data=one.body, media=_BYTES, position=position)
    return Answer(_shown(one), position=position)


def _after(text: str) -> int:
    try:
        return parse_position(text)
    except ValueError:
        raise InvalidError("the cursor does not belong to this list", code="cursor") from None


def _shown(one: RecordedEvent) -> wire.Event:
    return wire.Event(
        position=one.position,
        recorded_at=one.recorded_at,
        stream_type=one.stream_type,
        stream=one.stream_id,
        version=one.version,
        topic=one.topic,
        body=orjson.loads(one.body),
        leaf=one.leaf.hex(),
    )


HANDLERS: Final[Mapping[str, Handler]] = {"event.list": list_, "event.show": show}
