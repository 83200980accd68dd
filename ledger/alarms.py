"""Alarms: raised by whoever notices, open until somebody acknowledges them with a reason.

It does not write the ERROR line or move the counter; wiring does, after the append.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from ledger.errors import InvalidError, RefusedError
from ledger.events import AlarmAcknowledged, AlarmRaised, Event, Fact
from ledger.operators import require_reason

_KIND: Final = re.compile(r"[a-z0-9-]{1,64}", re.ASCII)
_TEXT_LENGTH: Final = 2000


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm. `about`: the ids of what it concerns. `raised_by`: the actor's id."""

    id: UUID
    version: int
    kind: str
    about: tuple[str, ...]
    detail: str
    raised_at: datetime
    raised_by: str
    acknowledged_at: datetime | None = None
    acknowledged_by: str | None = None
    acknowledged_because: str | None = None

    @property
    def open(self) -> bool:
        """Whether nobody has acknowledged it yet."""
        return self.acknowledged_at is None


def evolve(alarm: Alarm | None, event: Event) -> Alarm:
    """Return the alarm after one more event of its stream.

    Raises:
        ValueError: the stream does not start with the alarm, or holds a foreign fact.
    """
    match event.data:
        case AlarmRaised(kind=kind, about=about, detail=detail):
            return Alarm(
                id=event.originator_id,
                version=event.originator_version,
                kind=kind,
                about=about,
                detail=detail,
                raised_at=event.at,
                raised_by=event.actor.id,
            )
        case AlarmAcknowledged() if alarm is not None:
            return replace(
                alarm,
                version=event.originator_version,
                acknowledged_at=event.at,
                acknowledged_by=event.actor.id,
                acknowledged_because=event.reason,
            )
    raise ValueError(f"an alarm's stream cannot hold {event.data.TOPIC} here")


def raise_alarm(kind: str, about: Sequence[str], detail: str) -> tuple[Fact, ...]:
    """Raise an alarm. `kind`: lower-case hyphen words. `detail` is cut at 2000 characters, so that
    a long story never keeps an alarm from being raised.

    Raises:
        InvalidError: alarm-kind.
    """
    if not _KIND.fullmatch(kind):
        raise InvalidError(
            "an alarm's kind is 1 to 64 lower-case letters, digits and hyphens", code="alarm-kind"
        )
    ids = tuple(one for one in about if one)
    return (AlarmRaised(kind=kind, about=ids, detail=(detail or kind)[:_TEXT_LENGTH]),)


def acknowledge(alarm: Alarm, reason: str | None) -> tuple[Fact, ...]:
    """Close an alarm; the reason says what was found or done.

    Raises:
        InvalidError: reason-required, reason-too-long.
        RefusedError: alarm-acknowledged.
    """
    require_reason(reason, "acknowledge an alarm")
    if not alarm.open:
        raise RefusedError(
            "the alarm was acknowledged before; read who did, and why, in its history",
            code="alarm-acknowledged",
        )
    return (AlarmAcknowledged(),)
