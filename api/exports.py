"""Taking events out of the ledger, whole and signed: the wire model and its row."""

from typing import Annotated, Final, Literal

from pydantic import Field

from api.events import Conditions
from api.operation import READERS, Operation


class ExportConditions(Conditions):
    """Which events, and how they are written."""

    format: Annotated[
        Literal["jsonl", "csv"], Field(description="JSON Lines, or CSV with a header.")
    ] = "jsonl"


ROWS: Final = (
    Operation(
        name="event.export",
        method="GET",
        path="/v1/export",
        summary="Export events",
        description=(
            "One line per event with everything its entry is made of and the body's exact bytes, "
            "streamed. The last line is the manifest: filter, positions, count and SHA-256, and the "
            "ledger's size and root, signed with its log key as a C2SP note. An export without that "
            "line was cut off. Recorded as `export.made`, or as a reading when it was cut off."
        ),
        roles=READERS,
        query=ExportConditions,
        media=("application/jsonl", "text/csv"),
        problems=("occupied", "log-key-unusable", "lost-history", "unknown-topic"),
    ),
)
