"""The story of any id: what it is, how it stands now, and all that happened to it."""

from collections.abc import Mapping
from heapq import merge
from itertools import groupby, islice
from typing import Final

from api import cursors
from api.exchange import Answer, Asked, Handler
from api.handlers import resolving
from api.handlers.events import after_of, sent
from api.wire import Page
from ledger.errors import NotFoundError
from ledger.record import Filter
from ledger.recorded import RecordedEvent
from ledger.terms import Question


def show(asked: Asked) -> Answer:
    query, name = asked.query_as(Page), asked.text("id")
    of = f"{asked.operation.name} {name}"
    place = cursors.read(of, query)
    after = after_of(place[1]) if place else None
    with asked.services.read() as snapshot:
        found = resolving.resolve(snapshot, asked.services.search, name)
        position = snapshot.position
    items = _story(asked, found.questions, position, after, query.limit + 1)
    if not found.things and not items and after is None:
        raise NotFoundError("nothing has this id, and no event names it")
    following = None
    if len(items) > query.limit:
        items = items[: query.limit]
        first = place[0] if place else position
        following = cursors.write(of, query, first, str(items[-1].position))
    asked.services.readings.note(asked.call, asked.operation.name, query, len(items), about=name)
    things = found.things or (resolving.without_state(name, items),)
    value = {
        "id": name,
        "things": [thing.model_dump(mode="json") for thing in things],
        "items": [sent(one) for one in items],
        "next": following,
    }
    return Answer(value, position=position, following=following)


def _story(
    asked: Asked, questions: tuple[Question, ...], last: int, after: int | None, limit: int
) -> list[RecordedEvent]:
    """The next events that answer any of the questions, each once."""
    pages = (
        asked.services.search.page(Filter(question, last=last), after=after, limit=limit)
        for question in questions
    )
    ordered = merge(*pages, key=lambda one: one.position)
    every = (next(same) for _, same in groupby(ordered, key=lambda one: one.position))
    return list(islice(every, limit))


HANDLERS: Final[Mapping[str, Handler]] = {"about.show": show}
