"""Which state a stream folds to: the only list of state classes, their stream types and folds.

It holds no rule; the store and every projection fold through it.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from ledger import alarms, authorities, grant_state, identity, notes, operators, peers, policy
from ledger.reading import Fold

FOLDS: Final[Mapping[type, Fold]] = MappingProxyType(
    {
        peers.Peer: Fold("peer", peers.evolve, remembered=True),
        grant_state.Grant: Fold("grant", grant_state.evolve),
        operators.Operator: Fold("operator", operators.evolve, remembered=True),
        policy.Policy: Fold("policy", policy.evolve, remembered=True),
        identity.Identity: Fold("ledger", identity.evolve),
        authorities.Authority: Fold("authority", authorities.evolve, remembered=True),
        alarms.Alarm: Fold("alarm", alarms.evolve),
        notes.Note: Fold("note", notes.evolve),
    }
)
