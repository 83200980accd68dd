"""Every handler by the name of its row; the only list."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from api.exchange import Handler
from api.handlers import (
    about,
    alarms,
    certificates,
    diff,
    enrollments,
    events,
    exports,
    grants,
    health,
    operators,
    peers,
    policy,
    projections,
    scopes,
)

HANDLERS: Final[Mapping[str, Handler]] = MappingProxyType(
    {
        **health.HANDLERS,
        **peers.HANDLERS,
        **grants.HANDLERS,
        **scopes.HANDLERS,
        **enrollments.HANDLERS,
        **certificates.HANDLERS,
        **events.HANDLERS,
        **about.HANDLERS,
        **diff.HANDLERS,
        **exports.HANDLERS,
        **operators.HANDLERS,
        **policy.HANDLERS,
        **projections.HANDLERS,
        **alarms.HANDLERS,
    }
)
