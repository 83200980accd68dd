"""What may differ between two moments: ids in order, a page at a time, and the events behind each.

It reads histories and never says how a thing differs: who reads both rows does. An id may turn out
to be unchanged; no id that changed is missing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from psycopg import Connection, sql

MOST_EVENTS: Final = 100
"""Events named for one thing, the newest."""


@dataclass(frozen=True, slots=True)
class Span:
    """From one moment to a later one: what was recorded behind `first` up to `last`."""

    first: int
    first_at: datetime
    last: int
    last_at: datetime


class Cause(NamedTuple):
    """An event that changed a thing."""

    position: int
    topic: str


_NEXT: Final = sql.SQL("""SELECT key::text FROM ({of}) AS found (key)
    WHERE %(after)s::{kind} IS NULL OR key > %(after)s::{kind}
    GROUP BY key ORDER BY key LIMIT %(limit)s""")
# What the clock alone has ended has no event, and a peer takes its grants along without one.
_OF: Final[Mapping[str, tuple[str, sql.SQL]]] = {
    "certificate": (
        "text",
        sql.SQL("""SELECT serial FROM federation_certificates_history
            WHERE from_position > %(first)s AND from_position <= %(last)s
            UNION ALL
            SELECT serial FROM public.federation_certificates
            WHERE not_after >= %(first_at)s AND not_after < %(last_at)s"""),
    ),
    "grant": (
        "uuid",
        sql.SQL("""SELECT id FROM federation_grants_history
            WHERE from_position > %(first)s AND from_position <= %(last)s
            UNION ALL
            SELECT g.id FROM public.federation_grants g WHERE g.peer_id IN (
                SELECT e.stream_id FROM ledger_events e
                WHERE e.topic IN ('peer.suspended.v1', 'peer.resumed.v1', 'peer.revoked.v1')
                  AND e.position > %(first)s AND e.position <= %(last)s)
            UNION ALL
            SELECT id FROM federation_grants
            WHERE status IN ('pending_approval', 'pending_enrollment', 'active', 'suspended')
              AND (expires_at > %(first_at)s AND expires_at <= %(last_at)s
                   OR sensitive AND status = 'pending_enrollment')"""),
    ),
    "peer": (
        "uuid",
        sql.SQL("""SELECT id FROM federation_peers_history
            WHERE from_position > %(first)s AND from_position <= %(last)s"""),
    ),
}
KINDS: Final = tuple(_OF)
"""What is compared, in the order in which it is told."""

_CAUSES: Final = sql.SQL("""SELECT h.{key}::text, e.position, e.topic
    FROM {history} h JOIN ledger_events e ON e.position = h.from_position
    WHERE h.{key} = ANY(%(keys)s::{kind}[])
      AND h.from_position > %(first)s AND h.from_position <= %(last)s""")
_HISTORIES: Final[Mapping[str, tuple[str, str]]] = {
    "certificate": ("federation_certificates_history", "serial"),
    "grant": ("federation_grants_history", "id"),
    "peer": ("federation_peers_history", "id"),
}
_CAUSES_OF_PEERS: Final = sql.SQL("""SELECT g.id::text, e.position, e.topic
    FROM public.federation_grants g JOIN ledger_events e ON e.stream_id = g.peer_id
    WHERE g.id = ANY(%(keys)s::uuid[]) AND e.position > %(first)s AND e.position <= %(last)s
      AND e.topic IN ('peer.suspended.v1', 'peer.resumed.v1', 'peer.revoked.v1')""")


def candidates(
    connection: Connection[Any], kind: str, span: Span, after: str | None, limit: int
) -> list[str]:
    """Up to `limit` ids of `kind` (one of `KINDS`) that may differ, in order, behind `after`.

    In a transaction that reads the later moment (`as_of.go_back`).
    """
    type_, of = _OF[kind]
    query = _NEXT.format(of=of, kind=sql.SQL(type_))
    values = {
        "first": span.first,
        "first_at": span.first_at,
        "last": span.last,
        "last_at": span.last_at,
        "after": after,
        "limit": limit,
    }
    return [row[0] for row in connection.execute(query, values)]


def causes(
    connection: Connection[Any], kind: str, span: Span, keys: Sequence[str]
) -> dict[str, list[Cause]]:
    """The events in between that changed each of these, in order; of a grant its peer's too."""
    values = {"keys": list(keys), "first": span.first, "last": span.last}
    found: dict[str, list[Cause]] = {key: [] for key in keys}
    history, name = _HISTORIES[kind]
    own = _CAUSES.format(
        history=sql.Identifier(history), key=sql.Identifier(name), kind=sql.SQL(_OF[kind][0])
    )
    queries: list[sql.SQL | sql.Composed] = [own, _CAUSES_OF_PEERS] if kind == "grant" else [own]
    for query in queries:
        for key, position, topic in connection.execute(query, values):
            found[key].append(Cause(position, topic))
    return {key: sorted(some)[-MOST_EVENTS:] for key, some in found.items()}
