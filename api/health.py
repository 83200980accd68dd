"""Liveness, readiness and health over HTTP: wire models and rows."""

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field

from api.operation import READERS, Operation
from api.wire import Time, Wire

CheckStatus: TypeAlias = Literal["ok", "warn", "fail"]


class Alive(Wire):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Ready(Wire):
    """Whether requests can be served; no details, since anybody may ask."""

    status: Literal["ready", "not-ready"]


class Check(Wire):
    """One thing that was looked at."""

    id: str
    status: CheckStatus
    detail: str


class Health(Wire):
    """What an operator wants to know at a glance."""

    status: CheckStatus
    version: str
    origin: str | None
    position: int
    last_recorded_at: Time | None
    open_alarms: int
    open_issuances: Annotated[int, Field(description="Authorized, not yet closed.")]
    checks: list[Check]


ROWS: Final = (
    Operation(
        name="health.live",
        method="GET",
        path="/livez",
        summary="Whether the process answers",
        access="public",
        out=Alive,
    ),
    Operation(
        name="health.ready",
        method="GET",
        path="/readyz",
        summary="Whether requests can be served (503 if not)",
        access="public",
        out=Ready,
    ),
    Operation(
        name="health.show",
        method="GET",
        path="/health",
        summary="Health in detail",
        roles=READERS | {"operator"},
        out=Health,
    ),
    Operation(
        name="openapi.show",
        method="GET",
        path="/openapi.json",
        summary="This interface as an OpenAPI 3.1 document",
        access="public",
    ),
)
