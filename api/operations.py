"""The operation table: everything the HTTP side can do, one row each.

It runs nothing. The command line reads it too, so importing it must stay cheap: no web, database
or cryptography library behind it (a test holds that).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from api import (
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
from api.operation import Operation

OPERATIONS: Final[tuple[Operation, ...]] = (
    *health.ROWS,
    *peers.ROWS,
    *grants.ROWS,
    *scopes.ROWS,
    *enrollments.ROWS,
    *certificates.ROWS,
    *events.ROWS,
    *about.ROWS,
    *diff.ROWS,
    *exports.ROWS,
    *operators.ROWS,
    *policy.ROWS,
    *projections.ROWS,
    *alarms.ROWS,
)

BY_NAME: Final[Mapping[str, Operation]] = MappingProxyType({row.name: row for row in OPERATIONS})
"""`BY_NAME["grant.approve"].url(grant_id=…)` gives the path to call."""
