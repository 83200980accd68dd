"""Alarms: what their operations do."""

from collections.abc import Mapping
from typing import Final

from api import alarms as wire
from api.cursors import place
from api.exchange import Answer, Asked, Handler
from api.handlers.views import command, page, sent, shown
from projections import alarms


def list_(asked: Asked) -> Answer:
    query = asked.query_as(wire.AlarmFilter)
    return page(
        asked,
        query,
        lambda snapshot, after: alarms.page(
            snapshot.connection,
            open_only=query.open,
            kind=query.kind,
            about=query.about,
            after=place(after),
            limit=query.limit + 1,
        ),
        key=lambda row: row.id,
        item=lambda row: sent(shown(wire.Alarm, row)),
    )


def acknowledge(asked: Asked) -> Answer:
    recorded = asked.services.ledger.acknowledge_alarm(asked.call, asked.id("alarm_id"))
    alarm = recorded.value
    return command(asked, recorded, lambda: shown(wire.Alarm, alarm), alarm.version)


HANDLERS: Final[Mapping[str, Handler]] = {
    "alarm.list": list_,
    "alarm.acknowledge": acknowledge,
}
