"""Alarms over HTTP: wire models and rows."""

from typing import Annotated, Final

from pydantic import Field, StringConstraints

from api.operation import READERS, Operation
from api.wire import Id, Listed, PastPage, Reasoned, Time, Truth, Wire


class Alarm(Wire):
    """An alarm; open until acknowledged. `about` lists the ids it concerns."""

    id: Id
    version: int
    kind: str
    about: Listed[str]
    detail: str
    raised_at: Time
    raised_by: str
    acknowledged_at: Time | None
    acknowledged_by: str | None
    acknowledged_because: str | None


class Alarms(Wire):
    """One page of alarms, newest first."""

    items: list[Alarm]
    next: str | None


class AlarmFilter(PastPage):
    """Which alarms to list."""

    open: Annotated[Truth, Field(description="Only those nobody has acknowledged.")] = False
    kind: Annotated[str | None, StringConstraints(pattern=r"^[a-z0-9-]{1,64}$")] = None
    about: Annotated[
        str | None,
        StringConstraints(min_length=1, max_length=200),
        Field(description="Any id, serial or accessor it concerns."),
    ] = None


ROWS: Final = (
    Operation(
        name="alarm.list",
        method="GET",
        path="/v1/alarms",
        summary="List alarms",
        roles=READERS | {"operator"},
        query=AlarmFilter,
        out=Alarms,
    ),
    Operation(
        name="alarm.acknowledge",
        method="POST",
        path="/v1/alarms/{alarm_id}/acknowledge",
        summary="Acknowledge an alarm",
        roles=frozenset({"operator"}),
        command=True,
        versioned=True,
        body=Reasoned,
        problems=("alarm-acknowledged", "reason-required"),
        out=Alarm,
        example={"reason": "The peer restored a backup; its key was replaced."},
    ),
)
