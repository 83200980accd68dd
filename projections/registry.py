"""The list of all current-state tables, and the only one. It holds no SQL."""

from typing import Final

from ledger.appends import InlineProjection
from projections import (
    alarms,
    authorities,
    certificates,
    grants,
    operators,
    peers,
    policy,
    rejections,
    tokens,
)

INLINE: Final[tuple[InlineProjection, ...]] = (
    alarms.PROJECTION,
    authorities.PROJECTION,
    certificates.PROJECTION,
    grants.PROJECTION,
    operators.PROJECTION,
    operators.CREDENTIALS,
    peers.PROJECTION,
    policy.PROJECTION,
    rejections.PROJECTION,
    tokens.PROJECTION,
)
"""Every table whose rows travel with the append that changes them."""
