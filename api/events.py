"""The ledger's events over HTTP: wire models and rows."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from api.operation import READERS, Operation
from api.wire import COMBINATION, Id, Name, Page, Position, Query, Time, Truth, Wire, digits

LONGEST_WAIT: Final = 15
"""Seconds. Shorter than what a connection may be idle, and than a service takes to end."""

_TOPIC: Final = r"[a-z-]{1,40}\.[a-z-]{1,40}\.v[0-9]{1,3}"

Beginning = Annotated[int, Field(ge=0, le=2**53), BeforeValidator(digits)]
"""A position, or 0: before all of them."""


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


class Conditions(Query):
    """Which events; every condition given must hold."""

    stream: Id | None = None
    topic: Annotated[
        str | None,
        StringConstraints(pattern=rf"^{_TOPIC}(,{_TOPIC}){{0,19}}$"),
        Field(description="One of these topics, separated by commas."),
    ] = None
    after: Annotated[
        Beginning | None, Field(description="Only positions above this; 0: from the first on.")
    ] = None
    before: Annotated[Position | None, Field(description="Only positions below this.")] = None
    since: Annotated[Time | None, Field(description="Recorded at this time or later.")] = None
    until: Annotated[Time | None, Field(description="Recorded before this time.")] = None
    actor: Annotated[
        str | None, StringConstraints(min_length=1, max_length=100), Field(description="Its id.")
    ] = None
    correlation: Annotated[
        str | None,
        StringConstraints(min_length=1, max_length=100),
        Field(description="The id of the request, or of what took several."),
    ] = None
    about: Annotated[
        Name | None,
        Field(
            description="Any id, serial, digest, accessor, user id or address that the event names."
        ),
    ] = None
    words: Annotated[
        str | None,
        StringConstraints(min_length=1, max_length=200, pattern=r"\w"),
        Field(description="Words that all stand in the reason, whatever their case and accents."),
    ] = None

    @model_validator(mode="after")
    def _goes_forward(self) -> Self:
        if self.since is not None and self.until is not None and self.since > self.until:
            raise PydanticCustomError(COMBINATION, "since must not lie behind until")
        return self


class EventFilter(Conditions, Page):
    """Which events to list."""

    newest_first: Truth = False
    wait: Annotated[
        int,
        Field(
            ge=0,
            le=LONGEST_WAIT,
            description="Seconds to wait for an event while there is none; oldest first only.",
        ),
        BeforeValidator(digits),
    ] = 0

    @model_validator(mode="after")
    def _waits_for_the_next(self) -> "EventFilter":
        if self.wait and self.newest_first:
            raise PydanticCustomError(COMBINATION, "wait does not go with newest_first")
        return self


class EventFormat(Query):
    """`entry` and `body` give the exact bytes that are hashed."""

    format: Literal["json", "entry", "body"] = "json"


ROWS: Final = (
    Operation(
        name="event.list",
        method="GET",
        path="/v1/events",
        summary="List events",
        description=(
            "Any combination of conditions takes milliseconds, on any page. With `wait` an empty page "
            "is held back until there is something for it or the time is over; go on with `after`: the "
            "last position shown, or the answer's `Ledger-Position` if there is no `next`. Records "
            "that somebody read events do not end a wait. Only a few calls may wait at once."
        ),
        roles=READERS,
        query=EventFilter,
        out=Events,
        problems=("occupied", "unknown-topic"),
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
