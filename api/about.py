"""What an id is, how it stands, and its story: wire models and row."""

from typing import Annotated, Any, Final

from pydantic import Field

from api.events import Event
from api.operation import READERS, Operation
from api.wire import Page, Wire


class Thing(Wire):
    """Something that the id names, as it stands now."""

    kind: Annotated[
        str,
        Field(
            description="peer, grant, certificate, key, enrollment-token, credential, operator, "
            "subject-user, authority, alarm, policy, ledger; or request, event, address, other: "
            "what has no state but its events."
        ),
    ]
    id: str
    status: str | None
    facts: dict[str, Any]


class About(Wire):
    """What the id is, and one page of its story: oldest event first, across streams."""

    id: Annotated[str, Field(description="As the ledger writes it.")]
    things: list[Thing]
    items: list[Event]
    next: str | None


ROWS: Final = (
    Operation(
        name="about.show",
        method="GET",
        path="/v1/about/{id}",
        summary="Tell the story of any id",
        description=(
            "A peer (its name, too), grant, operator, alarm or authority; a certificate's serial "
            "(colons, upper case, 0x and decimal are understood), its SHA-256 fingerprint, its key's "
            "digest; a token's accessor; a subject user; a request's or an event's id; a network "
            "address. The story has every event that names it or was caused by it, and those of its "
            "grant and peer that gave it its worth or changed it. A whole token is never an id: it would be "
            "in every log on the way."
        ),
        roles=READERS,
        query=Page,
        out=About,
    ),
)
