"""The table `federation_grants`: one row per grant, its only writer and its SQL.

A row keeps the *stored* status; what holds now also depends on the clock, the peer and the policy.
`EFFECTIVE_STATUS` is `ledger.grant_status.effective_status` once more, in SQL, because filters and
counts need it on many rows; a test holds the two equal. Commands decide from streams, not here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from psycopg import Connection, sql

from ledger.appends import InlineProjection
from ledger.canonical import canonical_json, format_time
from ledger.grant_state import Approval, Grant
from projections.selecting import rows_of


@dataclass(frozen=True)
class GrantRow:
    """A grant as last recorded. `status` is effective at the time asked for.

    `scope` is the canonical form; `approvals` are those of the present terms, lapsed ones
    included, as objects of `approver`, `at` and `lapses_at`.
    """

    id: UUID
    version: int
    peer_id: UUID
    peer_name: str
    subject_user_id: str
    status: str
    stored_status: str
    scope: Mapping[str, Any]
    sensitive: bool
    not_before: datetime
    expires_at: datetime
    terms_digest: str
    proposed_by: str
    proposed_at: datetime
    approvals: list[Mapping[str, str]]
    clone_suspected: bool
    activated_at: datetime | None
    ended_at: datetime | None
    changed_at: datetime


def rows(grant: Grant) -> Iterable[tuple[object, ...]]:
    """The grant's one row, in the order of `PROJECTION.columns`."""
    return (
        (
            grant.id,
            grant.version,
            grant.peer_id,
            grant.subject_user_id,
            grant.status.value,
            grant.scope.text,
            grant.sensitive,
            grant.not_before,
            grant.expires_at,
            grant.terms_digest,
            grant.proposed_by,
            grant.proposed_at,
            _approvals(grant.approvals) if grant.approvals else "[]",
            grant.clone_suspected,
            grant.activated_at,
            grant.ended_at,
            grant.changed_at,
        ),
    )


def _approvals(approvals: Iterable[Approval]) -> str:
    found = [
        {
            "approver": approval.approver,
            "at": format_time(approval.at),
            "lapses_at": format_time(approval.lapses_at),
        }
        for approval in approvals
    ]
    return canonical_json(found).decode()


PROJECTION: Final = InlineProjection(
    table="federation_grants",
    state=Grant,
    columns=(
        ("id", "uuid"),
        ("version", "bigint"),
        ("peer_id", "uuid"),
        ("subject_user_id", "text"),
        ("status", "grant_status"),
        ("scope", "jsonb"),
        ("sensitive", "boolean"),
        ("not_before", "timestamptz"),
        ("expires_at", "timestamptz"),
        ("terms_digest", "text"),
        ("proposed_by", "text"),
        ("proposed_at", "timestamptz"),
        ("approvals", "jsonb"),
        ("clone_suspected", "boolean"),
        ("activated_at", "timestamptz"),
        ("ended_at", "timestamptz"),
        ("changed_at", "timestamptz"),
    ),
    key=("id",),
    rows=rows,
)

_LACKING: Final = sql.SQL("""(g.sensitive
     AND (SELECT count(*) FROM jsonb_array_elements(g.approvals) a
          WHERE %(at)s < (a ->> 'lapses_at')::timestamptz)
         < greatest(1, coalesce((SELECT required_approvals FROM federation_policy), 1)))""")
EFFECTIVE_STATUS: Final = (
    sql.SQL("""
CASE
    WHEN g.status IN ('expired', 'revoked', 'rejected') THEN g.status
    WHEN p.revoked_at < g.expires_at THEN 'revoked'
    WHEN %(at)s >= g.expires_at THEN 'expired'
    WHEN g.status = 'suspended' OR p.state = 'suspended' THEN 'suspended'
    WHEN g.status = 'pending_enrollment' AND """)
    + _LACKING
    + sql.SQL(""" THEN 'pending_approval'
    ELSE g.status
END""")
)
"""The effective status of the grant `g` of the peer `p` at `%(at)s`; order as in the rule."""

_FROM: Final = sql.SQL("FROM federation_grants g JOIN federation_peers p ON p.id = g.peer_id ")
_SELECT: Final = (
    sql.SQL("""
SELECT g.id, g.version, g.peer_id, p.name AS peer_name, g.subject_user_id, """)
    + EFFECTIVE_STATUS
    + sql.SQL(""" AS status, g.status::text AS stored_status, g.scope, g.sensitive, g.not_before,
       g.expires_at, g.terms_digest, g.proposed_by, g.proposed_at, g.approvals, g.clone_suspected,
       g.activated_at, g.ended_at, g.changed_at
""")
    + _FROM
)
_BY_ID: Final = _SELECT + sql.SQL("WHERE g.id = %(id)s")
_IDS: Final = sql.SQL("SELECT g.id FROM federation_grants g WHERE {conditions} LIMIT %(limit)s")
_BY_IDS: Final = _SELECT + sql.SQL("WHERE g.id = ANY(%(ids)s)")
_PAGE: Final = sql.SQL("WHERE {conditions} ORDER BY g.proposed_at DESC, g.id DESC LIMIT %(limit)s")
# The row before the page is looked up first, so that the index alone finds the place.
_AFTER: Final = sql.SQL(
    "(g.proposed_at, g.id) < "
    "((SELECT proposed_at FROM federation_grants WHERE id = %(after)s), %(after)s)"
)
_MERGED: Final = sql.SQL(" ORDER BY proposed_at DESC, id DESC LIMIT %(limit)s")

# Where grants of a status are looked for. What waits and what a peer takes along is fetched first:
# it is little at any one moment, although very many have waited. The rest is walked in order.
_WALK: Final = sql.SQL("({query})")
_WAITING: Final = sql.SQL("""(WITH federation_grants AS MATERIALIZED (
    SELECT * FROM federation_grants
    WHERE status IN ('pending_approval', 'pending_enrollment', 'suspended')) {query})""")
_OF_PEERS: Final = """(WITH federation_grants AS MATERIALIZED (
    SELECT * FROM federation_grants
    WHERE status IN ('pending_approval', 'pending_enrollment', 'active', 'suspended')
      AND peer_id = ANY (ARRAY(SELECT id FROM federation_peers WHERE {of_peers}))
      AND {not_ended}) {{query}})"""
_OF_REVOKED: Final = sql.SQL(_OF_PEERS.format(of_peers="revoked_at IS NOT NULL", not_ended="true"))
_OF_SUSPENDED: Final = sql.SQL(
    _OF_PEERS.format(of_peers="state = 'suspended'", not_ended="expires_at > %(at)s")
)

_BY_CLOCK: Final = sql.SQL("(p.revoked_at < g.expires_at) IS NOT TRUE AND g.expires_at <= %(at)s")
_LIVES: Final = sql.SQL("(p.revoked_at < g.expires_at) IS NOT TRUE AND g.expires_at > %(at)s")
_FREE: Final = _LIVES + sql.SQL(" AND p.state <> 'suspended'")


# What the clock ended and nobody put on record yet is looked for only as far back as a whole page of
# what is on record goes; else all that ever was active would be walked for it.
_PAGE_OF_EXPIRED: Final = sql.SQL("""g.proposed_at >= coalesce((
    SELECT g.proposed_at FROM federation_grants g
    WHERE g.status = 'expired' AND {conditions}
    ORDER BY g.proposed_at DESC, g.id DESC LIMIT 1 OFFSET %(limit)s - 1), '-infinity')""")


def _stored(status: str, *more: sql.SQL | sql.Composed) -> tuple[sql.SQL | sql.Composed, ...]:
    return (sql.SQL("g.status = {}").format(sql.Literal(status)), *more)


_MEANING: Final[Mapping[str, Sequence[tuple[sql.SQL, tuple[sql.SQL | sql.Composed, ...]]]]] = {
    "rejected": [(_WALK, _stored("rejected"))],
    "revoked": [
        (_WALK, _stored("revoked")),
        (_OF_REVOKED, (sql.SQL("p.revoked_at < g.expires_at"),)),
    ],
    "expired": [
        (_WALK, _stored("expired")),
        (_WALK, _stored("active", _BY_CLOCK, _PAGE_OF_EXPIRED)),
        (_WAITING, (_BY_CLOCK,)),
    ],
    "suspended": [
        (_WAITING, _stored("suspended", _LIVES)),
        (_OF_SUSPENDED, (_LIVES, sql.SQL("g.status <> 'suspended'"))),
    ],
    "pending_approval": [
        (_WAITING, _stored("pending_approval", _FREE)),
        (_WAITING, _stored("pending_enrollment", _FREE, _LACKING)),
    ],
    "pending_enrollment": [
        (_WAITING, _stored("pending_enrollment", _FREE, sql.SQL("NOT ") + _LACKING))
    ],
    "active": [(_WALK, _stored("active", _FREE))],
}
"""Effective status → where it is looked for and what must hold: the expression above, solved for its
value. A test holds them equal."""

_COUNTS: Final = (
    sql.SQL("SELECT ")
    + EFFECTIVE_STATUS
    + sql.SQL("::text AS status, count(*) ")
    + _FROM
    + sql.SQL("GROUP BY 1")
)
_NOT_ENDED: Final = sql.SQL("g.status NOT IN ('expired', 'revoked', 'rejected')")
_LIVE_OF_PEER: Final = (
    sql.SQL("SELECT g.id FROM federation_grants g WHERE g.peer_id = %s AND ")
    + _NOT_ENDED
    + sql.SQL(" ORDER BY g.proposed_at, g.id")
)
_OF_REVOKED_PEERS: Final = (
    sql.SQL("SELECT DISTINCT g.peer_id ")
    + _FROM
    + sql.SQL("WHERE p.revoked_at < g.expires_at AND ")
    + _NOT_ENDED
)
_ENDED_BY_THE_CLOCK: Final = (
    sql.SQL("SELECT g.id ")
    + _FROM
    + sql.SQL("WHERE g.expires_at <= %s AND (p.revoked_at < g.expires_at) IS NOT TRUE AND ")
    + _NOT_ENDED
    + sql.SQL(" ORDER BY g.expires_at, g.id LIMIT %s")
)


def by_id(connection: Connection[Any], grant_id: UUID, at: datetime) -> GrantRow | None:
    """The grant of this id with its effective status at `at`, None if there is none."""
    with connection.cursor(row_factory=rows_of(GrantRow)) as cursor:
        return cursor.execute(_BY_ID, {"id": grant_id, "at": at}).fetchone()


def by_ids(connection: Connection[Any], ids: Sequence[UUID], at: datetime) -> list[GrantRow]:
    """The grants of these ids with their effective statuses at `at`, in no order."""
    with connection.cursor(row_factory=rows_of(GrantRow)) as cursor:
        return cursor.execute(_BY_IDS, {"ids": ids, "at": at}).fetchall()


_FILTERS: Final[Mapping[str, sql.SQL | sql.Composed]] = {
    "peer_id": sql.SQL("g.peer_id = %(peer_id)s"),
    "resource": sql.SQL("g.scope -> 'resources' ? %(resource)s"),
    "subject_user_id": sql.SQL("g.subject_user_id = %(subject_user_id)s"),
    # It ends after it was proposed: said, so that the walk through the index begins there.
    "expires_before": sql.SQL(
        "g.expires_at < %(expires_before)s AND g.proposed_at < %(expires_before)s"
    ),
    "sensitive": sql.SQL("g.sensitive = %(sensitive)s"),
    # An event is given its time before it is recorded; the minute is for clocks that disagree.
    "recorded_by": sql.SQL("g.proposed_at <= %(recorded_by)s + interval '1 minute'"),
    "after": _AFTER,
}


def page(
    connection: Connection[Any],
    at: datetime,
    *,
    status: str | None = None,
    peer_id: UUID | None = None,
    resource: str | None = None,
    subject_user_id: str | None = None,
    expires_before: datetime | None = None,
    sensitive: bool | None = None,
    recorded_by: datetime | None = None,
    after: UUID | None = None,
    limit: int,
) -> list[GrantRow]:
    """Up to `limit` grants, newest first, from the one behind `after` (an id of the page before).

    `status`: the effective one at `at`. `resource`: among the scope's resources. `recorded_by`:
    nothing proposed later is there; it only saves the database looking. Filters that are None do
    not filter.
    """
    chosen: Mapping[str, object] = {
        "peer_id": peer_id,
        "resource": resource,
        "subject_user_id": subject_user_id,
        "expires_before": expires_before,
        "sensitive": sensitive,
        "recorded_by": recorded_by,
        "after": after,
    }
    conditions = [_FILTERS[name] for name, value in chosen.items() if value is not None]
    query = _query(conditions) if status is None else _query_of_status(status, conditions)
    with connection.cursor(row_factory=rows_of(GrantRow)) as cursor:
        return cursor.execute(query, {**chosen, "at": at, "limit": limit}).fetchall()


def _query(conditions: Sequence[sql.Composable]) -> sql.Composed:
    joined = sql.SQL(" AND ").join(conditions) if conditions else sql.SQL("true")
    return _SELECT + _PAGE.format(conditions=joined)


def _query_of_status(status: str, conditions: Sequence[sql.Composable]) -> sql.Composed:
    """Each way to come to this status, in order, then merged.

    On the expression as a whole the database can use no index and guesses how rare it is.
    """
    joined = sql.SQL(" AND ").join(conditions) if conditions else sql.SQL("true")
    walks = [
        where.format(
            query=_query(
                [
                    each.format(conditions=joined) if each is _PAGE_OF_EXPIRED else each
                    for each in (*means, *conditions)
                ]
            )
        )
        for where, means in _MEANING[status]
    ]
    if len(walks) == 1:
        return walks[0]
    return sql.SQL(" UNION ALL ").join(walks) + _MERGED


def ids_of(
    connection: Connection[Any], peer_id: UUID | None, subject_user_id: str | None, most: int
) -> list[UUID] | None:
    """The grants of a peer or subject user (of both, if both are given); None if more than `most`."""
    owners = {"peer_id": peer_id, "subject_user_id": subject_user_id}
    conditions = [_FILTERS[name] for name, value in owners.items() if value is not None]
    query = _IDS.format(conditions=sql.SQL(" AND ").join(conditions))
    found = connection.execute(query, {**owners, "limit": most + 1}).fetchall()
    return [row[0] for row in found] if len(found) <= most else None


def count_by_status(connection: Connection[Any], at: datetime) -> dict[str, int]:
    """How many grants there are by effective status at `at`; a status of none is absent."""
    return dict(connection.execute(_COUNTS, {"at": at}).fetchall())


def live_of_peer(connection: Connection[Any], peer_id: UUID) -> list[UUID]:
    """The grants of a peer with no end on record, oldest first; the clock may have ended some."""
    return [row[0] for row in connection.execute(_LIVE_OF_PEER, [peer_id])]


def peers_with_unfinished_revocation(connection: Connection[Any]) -> list[UUID]:
    """The revoked peers some of whose grants still lack their `grant.revoked`."""
    return [row[0] for row in connection.execute(_OF_REVOKED_PEERS)]


def ended_by_the_clock(connection: Connection[Any], at: datetime, limit: int) -> list[UUID]:
    """Up to `limit` grants past their expiry at `at` with no end on record, oldest expiry first."""
    return [row[0] for row in connection.execute(_ENDED_BY_THE_CLOCK, [at, limit])]
