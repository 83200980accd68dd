"""Liveness, readiness, health and metrics over HTTP: wire models and rows.

Health is application/health+json as in draft-inadarei-api-health-check-06, with members of our own.
"""

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field

from api.operation import READERS, Operation
from api.wire import Time, Wire

HEALTH_JSON: Final = "application/health+json"

CheckStatus: TypeAlias = Literal["pass", "warn", "fail"]
Unready: TypeAlias = Literal["lost-history", "schema", "projections-version", "storage-unavailable"]
"""Why requests cannot be served: history was lost, another release's schema or tables, no database."""


class Alive(Wire):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Ready(Wire):
    """Whether requests can be served; no more than the kind of reason, since anybody may ask."""

    status: Literal["ready", "not-ready"]
    reason: Unready | None = None


class Check(Wire):
    """One thing that was looked at."""

    status: CheckStatus
    output: Annotated[str, Field(description="What was found, for people.")]
    time: Time


class Health(Wire):
    """What an operator wants to know at a glance."""

    status: CheckStatus
    version: Annotated[str, Field(description="Of this interface.")] = "1"
    releaseId: Annotated[str, Field(description="The program's version.")]  # noqa: N815 - the draft's
    serviceId: Annotated[str | None, Field(description="The ledger's origin.")]  # noqa: N815 - the draft's
    position: int
    last_recorded_at: Time | None
    open_alarms: int
    open_issuances: Annotated[int, Field(description="Authorized, not yet closed.")]
    checks: dict[str, list[Check]]


ROWS: Final = (
    Operation(
        name="health.live",
        method="GET",
        path="/livez",
        summary="Whether the process answers; it asks no database",
        access="public",
        out=Alive,
    ),
    Operation(
        name="health.ready",
        method="GET",
        path="/readyz",
        summary="Whether requests can be served (503 with the reason if not)",
        access="public",
        out=Ready,
        also=(503,),
    ),
    Operation(
        name="health.show",
        method="GET",
        path="/health",
        summary="Health in detail (503 when a check fails)",
        roles=READERS | {"operator"},
        out=Health,
        media=(HEALTH_JSON,),
        also=(503,),
    ),
    Operation(
        name="metrics.show",
        method="GET",
        path="/metrics",
        summary="Counters and gauges for Prometheus",
        roles=READERS | {"operator"},
        media=("text/plain",),
    ),
    Operation(
        name="openapi.show",
        method="GET",
        path="/openapi.json",
        summary="This interface as an OpenAPI 3.1 document",
        access="public",
    ),
)
