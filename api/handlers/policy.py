"""The policy: what its operations do."""

from collections.abc import Mapping
from typing import Final

from api import policy as wire
from api.exchange import Answer, Asked, Handler
from api.handlers.views import command, shown
from projections import policy


def show(asked: Asked) -> Answer:
    with asked.read() as snapshot:
        value = shown(wire.Policy, policy.current(snapshot.connection))
        return Answer(value, version=value.version, position=snapshot.position)


def change(asked: Asked) -> Answer:
    body = asked.body_as(wire.ChangePolicy)
    recorded = asked.services.ledger.change_policy(asked.call, **body.changes())
    return command(
        asked, recorded, lambda: shown(wire.Policy, recorded.value), recorded.value.version
    )


HANDLERS: Final[Mapping[str, Handler]] = {"policy.show": show, "policy.change": change}
