"""The ledger's events: what their operations do."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from api import cursors
from api import events as wire
from api.exchange import Answer, Asked, Handler
from api.problems import Issue
from api.wire import parse_name, parse_position
from ledger.errors import InvalidError
from ledger.events import TOPICS
from ledger.record import Filter
from ledger.recorded import RecordedEvent
from ledger.terms import Question

_TEXT: Final = "text/plain; charset=utf-8"
_BYTES: Final = "application/octet-stream"
_READ: Final = "audit.read.v1"
_BREATH: Final = 0.05  # seconds between two looks of one waiting call: a busy ledger costs no more


def list_(asked: Asked) -> Answer:
    query = asked.query_as(wire.EventFilter)
    place = cursors.read(asked.operation.name, query)
    after = after_of(place[1]) if place else None
    if query.wait:
        with asked.services.tail.place():
            found, position = _awaited(asked, query, after)
    else:
        position = asked.services.ledger.record.head().size
        # Newest first, the pages stay what they were when the first one was read.
        last = place[0] if place and query.newest_first else position
        found = _page(asked, query, last, after)
    following = None
    if len(found) > query.limit:
        found = found[: query.limit]
        first = place[0] if place else position
        following = cursors.write(asked.operation.name, query, first, str(found[-1].position))
    asked.services.readings.note(asked.call, asked.operation.name, query, len(found))
    value = {"items": [sent(one) for one in found], "next": following}
    return Answer(value, position=position, following=following)


def _page(
    asked: Asked, query: wire.EventFilter, last: int, after: int | None
) -> list[RecordedEvent]:
    wanted = filter_of(query)
    last = last if wanted.last is None else min(last, wanted.last)
    return asked.services.search.page(
        replace(wanted, last=last),
        after=after,
        newest_first=query.newest_first,
        limit=query.limit + 1,
    )


def _awaited(
    asked: Asked, query: wire.EventFilter, after: int | None
) -> tuple[list[RecordedEvent], int]:
    """The page once there is something for it, or the time is over; and the position looked up to."""
    record, tail = asked.services.ledger.record, asked.services.tail
    end = time.monotonic() + query.wait
    while True:
        position = record.head().size
        found = _page(asked, query, position, after)
        # That somebody reads wakes nobody: else two who wait would wake each other.
        news = [one for one in found if one.topic != _READ or query.topic is not None]
        left = end - time.monotonic()
        if news or left <= 0 or not tail.beyond(position, left):
            return found, position
        if not found:
            after = position
        time.sleep(min(_BREATH, max(0.0, left)))


def filter_of(query: wire.Conditions) -> Filter:
    """The conditions of a query, without its pages."""
    return Filter(
        Question(
            streams=() if query.stream is None else (query.stream,),
            topics=() if query.topic is None else _topics(query.topic),
            actor_id=query.actor,
            correlation_id=query.correlation,
            mentions=() if query.about is None else (_name(query.about),),
            words=query.words,
        ),
        first=(query.after or 0) + 1,
        last=None if query.before is None else query.before - 1,
        since=query.since,
        until=query.until,
    )


def _topics(text: str) -> tuple[str, ...]:
    """Topics that there are: one misspelled would find nothing, which reads as nothing happened."""
    topics = tuple(text.split(","))
    if not TOPICS.keys() >= set(topics):
        issue = Issue("must be topics that there are, as grant.revoked.v1", parameter="topic")
        raise InvalidError("the query is not valid", code="unknown-topic", issues=(issue,))
    return topics


def _name(text: str) -> str:
    try:
        return parse_name(text)
    except ValueError:
        issue = Issue("must be an id; a token is none", parameter="about")
        raise InvalidError("the query is not valid", issues=(issue,)) from None


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
    return Answer(sent(one), position=position)


def after_of(text: str) -> int:
    """The position in a cursor's last key. Raises InvalidError."""
    try:
        return parse_position(text)
    except ValueError:
        raise InvalidError("the cursor does not belong to this list", code="cursor") from None


def sent(one: RecordedEvent) -> Mapping[str, Any]:
    """An event as it is sent: what `wire.Event` would be in JSON, which a test holds equal."""
    return {
        "position": one.position,
        "recorded_at": one.recorded_at,
        "stream_type": one.stream_type,
        "stream": one.stream_id,
        "version": one.version,
        "topic": one.topic,
        "body": one.parts,
        "leaf": one.leaf.hex(),
    }


HANDLERS: Final[Mapping[str, Handler]] = {"event.list": list_, "event.show": show}
