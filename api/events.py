"""The ledger's events over HTTP: wire models and rows."""

from typing import Annotated, Any, Final, Literal

from pydantic import Field, StringConstraints

from api.operation import READERS, Operation
from api.wire import Id, Page, Position, Query, Time, Truth, Wire


class Event(Wire):
    """One recorded event. `body` is the stored object, with `data` under it."""

    position: int
    recorded_at: Time
    stream_type: str
    stream: Id
    version: int
    topic: str
    body: dict[str, Any]
    leaf: Annotated[str, Field(description="SHA-256 of the entry as a leaf (RFC 6962), hex")]


class Events(Wire):
    """One page of events, by position."""

    items: list[Event]
    next: str | None


class EventFilter(Page):
    """Which events to list."""

    stream: Id | None = None
    topic: Annotated[
        str | None, StringConstraints(pattern=r"^[a-z-]{1,40}\.[a-z-]{1,40}\.v[0-9]{1,3}$")
    ] = None
    after: Annotated[Position | None, Field(description="Only positions above this.")] = None
    before: Annotated[Position | None, Field(description="Only positions below this.")] = None
    since: Annotated[Time | None, Field(description="Recorded at this time or later.")] = None
    until: Annotated[Time | None, Field(description="Recorded before this time.")] = None
    actor: Annotated[
        str | None, StringConstraints(min_length=1, max_length=100), Field(description="Its id.")
    ] = None
    about: Annotated[
        str | None,
        StringConstraints(min_length=1, max_length=200),
        Field(description="Any id, serial, digest or accessor that the event names."),
    ] = None
    newest_first: Truth = False


class EventFormat(Query):
    """`entry` and `body` give the exact bytes that are hashed."""

    format: Literal["json", "entry", "body"] = "json"


ROWS: Final = (
    Operation(
        name="event.list",
        method="GET",
        path="/v1/events",
        summary="List events",
        roles=READERS,
        query=EventFilter,
        out=Events,
    ),
    Operation(
        name="event.show",
        method="GET",
        path="/v1/events/{position}",
        summary="Show an event",
        description=(
            "`format=entry` gives the seven lines whose hash is the leaf, `format=body` the bytes "
            "whose digest stands in them."
        ),
        roles=READERS,
        query=EventFormat,
        out=Event,
        media=("application/json", "text/plain", "application/octet-stream"),
    ),
)
