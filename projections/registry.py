"""The list of all tables made from events, and the only one. It holds no SQL."""

from typing import Final

from ledger.appends import InlineProjection
from projections import (
    alarms,
    authorities,
    certificates,
    event_terms,
    grants,
    operators,
    peers,
    policy,
    rejections,
    tokens,
)
from projections.follower import Followed
from projections.history import HISTORY, Histories, HistoryWriter
from projections.sources import Past, Present, Source

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

FOLLOWED: Final[tuple[Followed, ...]] = (
    Followed(HISTORY, lambda: HistoryWriter(Histories(INLINE))),
    Followed(event_terms.NAME, lambda: event_terms.write),
)
"""Everything that is filled after the commit, in the order in which it is."""

SOURCES: Final[tuple[Source, ...]] = (Present(INLINE), Past(INLINE, HISTORY))
"""What all those tables should hold."""

RELEASE: Final = 1
"""Of these tables' shape and content, as the head row has it. A release that changes what any of them
holds counts on: its services write nothing before `fedledger migrate` has rebuilt them, and those of the
release before write nothing after it. See docs/how-to/change-a-projection.md."""
