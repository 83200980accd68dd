"""Liveness, readiness, health, metrics and the interface's own description."""

from collections.abc import Mapping
from datetime import timedelta
from http import HTTPStatus
from typing import Final

from api import health as wire
from api import metrics
from api.exchange import Answer, Asked, Handler
from api.openapi import document
from ledger.events import LEDGER_ID, POLICY_ID
from ledger.identity import Identity
from ledger.policy import DEFAULT, Policy
from projections import alarms, authorities, certificates

_SKEW: Final = timedelta(seconds=30)
_STUCK: Final = timedelta(minutes=5)
_AUTHORITY_ENDS_SOON: Final = timedelta(days=30)
_UNAVAILABLE: Final = {"Retry-After": "1"}
_Finding = tuple[wire.CheckStatus, str]


def live(asked: Asked) -> Answer:
    return Answer(wire.Alive())


def ready(asked: Asked) -> Answer:
    reason = asked.services.unready()
    if reason is None:
        return Answer(wire.Ready(status="ready"))
    value = wire.Ready(status="not-ready", reason=reason)
    return Answer(value, status=HTTPStatus.SERVICE_UNAVAILABLE, headers=_UNAVAILABLE)


def show(asked: Asked) -> Answer:
    ledger, at = asked.services.ledger, asked.services.clock()
    head = ledger.record.head()
    identity = ledger.load(Identity, LEDGER_ID)
    with asked.read() as snapshot:
        open_alarms = alarms.count_open(snapshot.connection)
        waiting = certificates.open_since(snapshot.connection, at)
        issuers = authorities.everything(snapshot.connection)
    stuck = [row for row in waiting if row.authorized_at <= at - _STUCK]
    policy = ledger.load(Policy, POLICY_ID) or DEFAULT
    found: dict[str, _Finding] = {
        "ledger:history": (
            "fail" if ledger.lost_history else "pass",
            ledger.lost_history or "whole",
        ),
        "ledger:alarms": ("warn" if open_alarms else "pass", f"{open_alarms} open"),
        "database:clock": (
            "pass" if abs(at - head.database_time) <= _SKEW else "fail",
            "compared with the database's",
        ),
        "authority:end": _end([row for row in issuers if not row.retired_at], asked),
        "authority:issuances": (
            "warn" if stuck else "pass",
            f"{len(stuck)} open for over 5 minutes",
        ),
        "policy:four-eyes": (
            ("pass", "on") if policy.four_eyes else ("warn", "switched off by policy")
        ),
    }
    status = _worst(found)
    value = wire.Health(
        status=status,
        releaseId=asked.services.version,
        serviceId=identity.origin if identity else None,
        position=head.size,
        last_recorded_at=head.last_recorded_at,
        open_alarms=open_alarms,
        open_issuances=len(waiting),
        checks={
            name: [wire.Check(status=one, output=text, time=at)]
            for name, (one, text) in found.items()
        },
    )
    failing = status == "fail"
    return Answer(
        value,
        media=wire.HEALTH_JSON,
        status=HTTPStatus.SERVICE_UNAVAILABLE if failing else None,
        headers=_UNAVAILABLE if failing else {},
        position=head.size,
    )


def measure(asked: Asked) -> Answer:
    services, at = asked.services, asked.services.clock()
    lists = [
        (one.authority_id, one.next_update, one.unlisted) for one in services.lists.currency(at)
    ]
    with services.read() as snapshot:
        connection = snapshot.connection
        ending = certificates.ending(connection, at, [*metrics.CERTIFICATE_SPANS.values()])
        standing = metrics.Standing(
            version=services.version,
            position=snapshot.position,
            open_alarms=alarms.count_open(connection),
            open_issuances=len(certificates.open_since(connection, at)),
            lost_history=services.ledger.lost_history is not None,
            certificates=dict(zip(metrics.CERTIFICATE_SPANS, ending, strict=True)),
            authorities=[
                (row.id, row.kind, row.not_after)
                for row in authorities.everything(connection)
                if not row.retired_at
            ],
            lists=lists,
            pools=services.pools(),
        )
    data = services.metrics.render(standing)
    return Answer(data=data, media=metrics.CONTENT_TYPE, position=standing.position)


def openapi(asked: Asked) -> Answer:
    return Answer(document(asked.services.version))


def _end(issuers: list[authorities.AuthorityRow], asked: Asked) -> _Finding:
    if not issuers:
        return "fail", "no authority: nothing can be issued"
    end = max(row.not_after for row in issuers)
    left = end - asked.services.clock()
    text = f"{end:%Y-%m-%d %H:%M} UTC"
    if left <= timedelta(0):
        return "fail", text
    return ("warn" if left < _AUTHORITY_ENDS_SOON else "pass"), text


def _worst(found: Mapping[str, _Finding]) -> wire.CheckStatus:
    statuses = {status for status, _ in found.values()}
    return "fail" if "fail" in statuses else "warn" if "warn" in statuses else "pass"


HANDLERS: Final[Mapping[str, Handler]] = {
    "health.live": live,
    "health.ready": ready,
    "health.show": show,
    "metrics.show": measure,
    "openapi.show": openapi,
}
