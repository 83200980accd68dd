"""The table `federation_peers`: one row per peer, its only writer and its SQL.

It decides nothing: commands fold the peer's stream.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from psycopg import Connection, sql

from ledger.appends import InlineProjection
from ledger.peers import Peer
from projections.selecting import rows_of


@dataclass(frozen=True)
class PeerRow:
    """A peer as last recorded."""

    id: UUID
    version: int
    name: str
    base_url: str
    state: str
    verification: str | None
    registered_at: datetime
    activated_at: datetime | None
    suspended_at: datetime | None
    revoked_at: datetime | None
    changed_at: datetime


def rows(peer: Peer) -> Iterable[tuple[object, ...]]:
    """The peer's one row, in the order of `PROJECTION.columns`."""
    return (
        (
            peer.id,
            peer.version,
            peer.name,
            peer.base_url,
            peer.state.value,
            peer.verification,
            peer.registered_at,
            peer.activated_at,
            peer.suspended_at,
            peer.revoked_at,
            peer.changed_at,
        ),
    )


PROJECTION: Final = InlineProjection(
    table="federation_peers",
    state=Peer,
    columns=(
        ("id", "uuid"),
        ("version", "bigint"),
        ("name", "text"),
        ("base_url", "text"),
        ("state", "peer_state"),
        ("verification", "text"),
        ("registered_at", "timestamptz"),
        ("activated_at", "timestamptz"),
        ("suspended_at", "timestamptz"),
        ("revoked_at", "timestamptz"),
        ("changed_at", "timestamptz"),
    ),
    key=("id",),
    rows=rows,
)

_SELECT: Final = sql.SQL("""
SELECT id, version, name, base_url, state::text, verification, registered_at, activated_at,
       suspended_at, revoked_at, changed_at
FROM federation_peers
""")
_BY_ID: Final = _SELECT + sql.SQL("WHERE id = %s")
_BY_IDS: Final = _SELECT + sql.SQL("WHERE id = ANY(%s)")
# Names are unique case-folded and ASCII (SPEC §2), so lower() folds as the claim does.
_BY_NAME: Final = _SELECT + sql.SQL("WHERE lower(name) = lower(%s)")
_PAGE: Final = sql.SQL("WHERE {conditions} ORDER BY lower(name) LIMIT %(limit)s")
_AFTER: Final = sql.SQL(
    "lower(name) > (SELECT lower(name) FROM federation_peers WHERE id = %(after)s)"
)


def by_id(connection: Connection[Any], peer_id: UUID) -> PeerRow | None:
    """The peer of this id, None if there is none."""
    with connection.cursor(row_factory=rows_of(PeerRow)) as cursor:
        return cursor.execute(_BY_ID, [peer_id]).fetchone()


def by_ids(connection: Connection[Any], ids: Sequence[UUID]) -> list[PeerRow]:
    """The peers of these ids, in no order."""
    with connection.cursor(row_factory=rows_of(PeerRow)) as cursor:
        return cursor.execute(_BY_IDS, [ids]).fetchall()


def by_name(connection: Connection[Any], name: str) -> PeerRow | None:
    """The peer of this name, upper and lower case alike."""
    with connection.cursor(row_factory=rows_of(PeerRow)) as cursor:
        return cursor.execute(_BY_NAME, [name]).fetchone()


def page(
    connection: Connection[Any],
    *,
    state: str | None = None,
    name: str | None = None,
    after: UUID | None = None,
    limit: int,
) -> list[PeerRow]:
    """Up to `limit` peers by name, from the one behind `after` (an id of the page before)."""
    conditions = [sql.SQL("true")]
    if state is not None:
        conditions.append(sql.SQL("state = %(state)s::peer_state"))
    if name is not None:
        conditions.append(sql.SQL("lower(name) = lower(%(name)s)"))
    if after is not None:
        conditions.append(_AFTER)
    query = _SELECT + _PAGE.format(conditions=sql.SQL(" AND ").join(conditions))
    values = {"state": state, "name": name, "after": after, "limit": limit}
    with connection.cursor(row_factory=rows_of(PeerRow)) as cursor:
        return cursor.execute(query, values).fetchall()
