"""What a handler is given and what it gives back. It knows no web framework and renders nothing."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Protocol, TypeAlias, TypeVar
from uuid import UUID

from pydantic import BaseModel

from api.export_places import Exports
from api.health import Unready
from api.metrics import Metrics
from api.operation import Operation
from api.reading import NOW, Moment, Snapshot
from api.readings import Readings
from api.tail import Tail
from api.throttle import Throttle
from api.wire import AsOf, PlannedEvent, Rehearsal
from ca.issuance import IssuanceCycle
from ca.publishing import RevocationLists
from ledger.application import Ledger
from ledger.bodies import stored_json
from ledger.events import Event
from ledger.store import Call, Recorded
from projections.search import Search

B = TypeVar("B", bound=BaseModel)
Clock: TypeAlias = Callable[[], datetime]


class Read(Protocol):
    """Opens a view of the tables: as they are, or as they were at a moment."""

    def __call__(self, moment: Moment = NOW) -> AbstractContextManager[Snapshot]: ...


JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Services:
    """The parts a handler may use; wiring chooses them. `read` opens one consistent view.

    unready: why requests cannot be served, None when they can.
    search: finds events by what is in them. tail: waits for the next.
    exports: what they are signed with, and room for them.
    pools: name → connections in use, connections open.
    reach: returns once the tables followed under a name hold everything up to a position;
        UnavailableError `catching-up` if that takes too long.
    """

    ledger: Ledger
    issuance: IssuanceCycle
    lists: RevocationLists
    read: Read
    clock: Clock
    version: str
    bad_credentials: Throttle
    enrollments: Throttle
    readings: Readings
    search: Search
    tail: Tail
    exports: Exports
    metrics: Metrics
    unready: Callable[[], Unready | None]
    pools: Callable[[], Mapping[str, tuple[int, int]]]
    reach: Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, authenticated, allowed and parsed.

    `call` says who asks and under which conditions; `path` holds the path's parameters, parsed.
    """

    operation: Operation
    services: Services
    call: Call
    source: str
    path: Mapping[str, Any]
    body: BaseModel | None
    query: BaseModel | None

    def body_as(self, kind: type[B]) -> B:
        """The body, which the row said is a `kind`."""
        return _as(kind, self.body)

    def query_as(self, kind: type[B]) -> B:
        """The query, which the row said is a `kind`."""
        return _as(kind, self.query)

    def id(self, name: str) -> UUID:
        """A UUID of the path."""
        value = self.path[name]
        if not isinstance(value, UUID):
            raise TypeError(f"{name} is no id")
        return value

    @property
    def peer_id(self) -> UUID | None:
        """The peer that asks with its certificate, and sees its own things only; None: anybody."""
        return UUID(self.call.actor.id) if self.call.actor.auth == "certificate" else None

    def may_see(self, peer_id: UUID | None) -> bool:
        """Whether what belongs to that peer may be shown to who asks. None: no peer is named."""
        return self.peer_id is None or peer_id in {None, self.peer_id}

    @property
    def moment(self) -> Moment:
        """Of when the answer is to be."""
        if not isinstance(self.query, AsOf):
            return NOW
        return Moment(self.query.as_of, self.query.as_of_position)

    def read(self, position: int | None = None) -> AbstractContextManager[Snapshot]:
        """Open a view of the moment asked for.

        `position`: where the first page found a past to stand; the others stand there too.
        """
        moment = self.moment
        if moment.past and position is not None:
            moment = replace(moment, position=position)
        return self.services.read(moment)

    def text(self, name: str) -> str:
        """A serial or an accessor of the path."""
        return str(self.path[name])


@dataclass(frozen=True, slots=True)
class Answer:
    """A success. Exactly one of `value`, `data` and `stream` holds what is sent, or neither for 204.

    value: a model; or for much at once what the model would be in JSON, of plain values, ids and moments.
    position: of the ledger, as known to this answer. following: the cursor of the next page.
    """

    value: BaseModel | Mapping[str, Any] | None = None
    data: bytes | None = None
    stream: Iterable[bytes] | None = None
    media: str = JSON
    status: int | None = None
    version: int | None = None
    position: int | None = None
    location: str | None = None
    following: str | None = None
    replayed: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)


Handler: TypeAlias = Callable[[Asked], Answer]


def _as(kind: type[B], value: BaseModel | None) -> B:
    if not isinstance(value, kind):
        raise TypeError(f"the row does not say {kind.__name__}")
    return value


def rehearsed(recorded: Recorded[Any]) -> Answer:
    """What a dry run answers: the events it would have appended."""
    return Answer(
        Rehearsal(events=[_planned(event) for event in recorded.events]),
        status=200,
        position=recorded.position,
    )


def _planned(event: Event) -> PlannedEvent:
    return PlannedEvent(
        topic=event.data.TOPIC,
        stream=event.originator_id,
        version=event.originator_version,
        data=stored_json(event.data),
    )
