"""How the tables stand, over HTTP: wire models and the row."""

from typing import Annotated, Final, Literal

from pydantic import Field

from api.operation import READERS, Operation
from api.wire import Time, Wire


class Rebuild(Wire):
    """A rebuild that has begun."""

    phase: Literal["copying", "indexing", "catching-up", "swapped"]
    share: Annotated[float, Field(description="Of the copying, 0 to 1.")]
    events: Annotated[int, Field(description="Copied so far.")]
    started_at: Time
    changed_at: Annotated[
        Time, Field(description="Its last step; long ago, and it was interrupted.")
    ]


class Projection(Wire):
    """One table made from the events."""

    table: str
    source: Annotated[
        Literal["present", "history", "words"],
        Field(description="`present` is written with the append, `history` and `words` after it."),
    ]
    position: Annotated[int, Field(description="It holds everything up to there.")]
    rows: Annotated[int, Field(description="About how many.")]
    rebuild: Rebuild | None


class Projections(Wire):
    """Every table there is."""

    release: Annotated[int, Field(description="Of the tables' shape, as the head has it.")]
    items: list[Projection]


ROWS: Final = (
    Operation(
        name="projection.list",
        method="GET",
        path="/v1/projections",
        summary="List the tables made from the events, and how they stand",
        roles=READERS | {"operator"},
        out=Projections,
    ),
)
