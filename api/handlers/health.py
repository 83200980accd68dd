"""Liveness, readiness, health and the interface's own description."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from api import health as wire
from api.exchange import Answer, Asked, Handler
from api.openapi import document
from ledger.events import LEDGER_ID, POLICY_ID
from ledger.identity import Identity
from ledger.policy import DEFAULT, Policy
from projections import alarms, certificates

_SKEW: Final = timedelta(seconds=30)
_STUCK: Final = timedelta(minutes=5)


def live(asked: Asked) -> Answer:
    return Answer(wire.Alive())


def ready(asked: Asked) -> Answer:
    if asked.services.ready():
        return Answer(wire.Ready(status="ready"))
    return Answer(wire.Ready(status="not-ready"), status=503, headers={"Retry-After": "1"})


def show(asked: Asked) -> Answer:
    ledger, at = asked.services.ledger, asked.services.clock()
    head = ledger.record.head()
    identity = ledger.load(Identity, LEDGER_ID)
    with asked.services.read() as snapshot:
        open_alarms = alarms.count_open(snapshot.connection)
        waiting = certificates.open_since(snapshot.connection, at)
    stuck = [row for row in waiting if row.authorized_at <= at - _STUCK]
    policy = ledger.load(Policy, POLICY_ID) or DEFAULT
    checks = [
        _check("history", "fail" if ledger.lost_history else "ok", ledger.lost_history or "whole"),
        _check(
            "clock",
            "ok" if abs(at - head.database_time) <= _SKEW else "fail",
            "compared with the database's",
        ),
        _check("alarms", "warn" if open_alarms else "ok", f"{open_alarms} open"),
        _check("issuances", "warn" if stuck else "ok", f"{len(stuck)} open for over 5 minutes"),
        _check(
            "four-eyes",
            "ok" if policy.four_eyes else "warn",
            "on" if policy.four_eyes else "switched off by policy",
        ),
    ]
    value = wire.Health(
        status=_worst(checks),
        version=asked.services.version,
        origin=identity.origin if identity else None,
        position=head.size,
        last_recorded_at=head.last_recorded_at,
        open_alarms=open_alarms,
        open_issuances=len(waiting),
        checks=checks,
    )
    return Answer(value, position=head.size)


def openapi(asked: Asked) -> Answer:
    return Answer(document(asked.services.version))


def _check(id_: str, status: wire.CheckStatus, detail: str) -> wire.Check:
    return wire.Check(id=id_, status=status, detail=detail)


def _worst(checks: list[wire.Check]) -> wire.CheckStatus:
    found = {check.status for check in checks}
    return "fail" if "fail" in found else "warn" if "warn" in found else "ok"


HANDLERS: Final[Mapping[str, Handler]] = {
    "health.live": live,
    "health.ready": ready,
    "health.show": show,
    "openapi.show": openapi,
}
