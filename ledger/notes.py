"""Notes: things that happened to no stream in particular, one new stream each.

It holds no rule: a note is written by who saw it, and never changed.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from ledger.events import Event, Fact


@dataclass(frozen=True, slots=True)
class Note:
    """One note: what, when, and the network address it came from."""

    id: UUID
    version: int
    fact: Fact
    at: datetime
    source: str | None


def evolve(note: Note | None, event: Event) -> Note:
    """Return the note.

    Raises:
        ValueError: a second event, or a fact that is no note.
    """
    if note is not None or event.data.STREAM != "note":
        raise ValueError(f"a note's stream cannot hold {event.data.TOPIC} here")
    return Note(
        id=event.originator_id,
        version=event.originator_version,
        fact=event.data,
        at=event.at,
        source=event.actor.source,
    )
