"""The table `federation_certificates`: one row per serial ever authorized, its only writer, its SQL.

It knows a certificate's *own* state; that a grant or peer takes its certificates along is decided
from their streams (`ledger/certificates.py`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any, Final
from uuid import UUID

from psycopg import Connection, sql

from ledger.appends import InlineProjection
from ledger.grant_state import Grant, Issuance, IssuanceState
from projections import grants
from projections.selecting import rows_of


@dataclass(frozen=True)
class CertificateRow:
    """One serial: what was authorized and what became of it.

    `state`: authorized (open), issued, failed, abandoned. `certificate` is DER and there only if
    it was issued as authorized. `revoked_at` and its companions are the certificate's own
    revocation; a failed or abandoned serial counts as revoked without one.
    """

    serial: str
    grant_id: UUID
    issuance_id: UUID
    state: str
    kind: str
    generation: int
    accessor: str | None
    predecessor: str | None
    authority_id: UUID
    key_digest: str
    csr_sha256: str
    not_before: datetime
    not_after: datetime
    certificate: bytes | None
    certificate_sha256: str | None
    tbs_sha256: str | None
    authorized_at: datetime
    closed_at: datetime | None
    failure: str | None
    mis_issued: bool
    revoked_at: datetime | None
    revocation_reason: str | None
    revocation_detail: str | None
    authority_told: str | None


def rows(grant: Grant) -> Iterable[tuple[object, ...]]:
    """One row per issuance of the grant, in the order of `PROJECTION.columns`."""
    return (_row(grant, issuance) for issuance in grant.issuances.values())


def _row(grant: Grant, issuance: Issuance) -> tuple[object, ...]:
    order, revocation = issuance.authorization, issuance.revocation
    # What came back wrong stays in its event: no reader of this table can hand it out by mistake.
    issued = issuance.state is IssuanceState.ISSUED
    return (
        order.serial,
        grant.id,
        order.issuance_id,
        issuance.state.value,
        order.kind,
        order.generation,
        order.accessor,
        order.predecessor,
        order.authority_id,
        order.key_digest,
        order.csr_sha256,
        order.not_before,
        order.not_after,
        issuance.certificate if issued else None,
        issuance.certificate_sha256,
        issuance.tbs_sha256,
        issuance.authorized_at,
        issuance.closed_at,
        issuance.failure,
        issuance.mis_issued,
        revocation and revocation.at,
        revocation and revocation.reason,
        revocation and revocation.detail,
        issuance.authority_told,
    )


PROJECTION: Final = InlineProjection(
    table="federation_certificates",
    state=Grant,
    columns=(
        ("serial", "text"),
        ("grant_id", "uuid"),
        ("issuance_id", "uuid"),
        ("state", "text"),
        ("kind", "text"),
        ("generation", "integer"),
        ("accessor", "text"),
        ("predecessor", "text"),
        ("authority_id", "uuid"),
        ("key_digest", "text"),
        ("csr_sha256", "text"),
        ("not_before", "timestamptz"),
        ("not_after", "timestamptz"),
        ("certificate", "bytea"),
        ("certificate_sha256", "text"),
        ("tbs_sha256", "text"),
        ("authorized_at", "timestamptz"),
        ("closed_at", "timestamptz"),
        ("failure", "text"),
        ("mis_issued", "boolean"),
        ("revoked_at", "timestamptz"),
        ("revocation_reason", "text"),
        ("revocation_detail", "text"),
        ("authority_told", "text"),
    ),
    key=("serial",),
    rows=rows,
    part=lambda grant: grant.issuances,
    row=_row,
    stream="grant_id",
)

_COLUMNS: Final = sql.SQL("""
SELECT c.serial, c.grant_id, c.issuance_id, c.state, c.kind, c.generation, c.accessor,
       c.predecessor, c.authority_id, c.key_digest, c.csr_sha256, c.not_before, c.not_after,
       c.certificate, c.certificate_sha256, c.tbs_sha256, c.authorized_at, c.closed_at, c.failure,
       c.mis_issued, c.revoked_at, c.revocation_reason, c.revocation_detail, c.authority_told
""")
_SELECT: Final = _COLUMNS + sql.SQL("FROM federation_certificates c ")
_BY_SERIAL: Final = _SELECT + sql.SQL("WHERE c.serial = %s")
_BY_SERIALS: Final = _SELECT + sql.SQL("WHERE c.serial = ANY(%s)")
_BY_TBS: Final = _SELECT + sql.SQL("WHERE c.tbs_sha256 = %s")
_BY_KEY: Final = _SELECT + sql.SQL("WHERE c.key_digest = %s ORDER BY c.authorized_at, c.serial")
_OPEN: Final = _SELECT + sql.SQL(
    "WHERE c.state = 'authorized' AND c.authorized_at <= %s ORDER BY c.authorized_at, c.serial"
)
_UNTOLD: Final = _SELECT + sql.SQL("""
JOIN federation_authorities a ON a.id = c.authority_id
WHERE a.kind <> 'local' AND c.not_after > %s
  AND (c.revocation_reason <> 'certificateHold' OR c.state IN ('failed', 'abandoned'))
  AND (c.authority_told IS NULL OR c.authority_told = 'failed')
ORDER BY c.authority_told NULLS FIRST, c.not_after, c.serial LIMIT %s
""")
_OPEN_WITH: Final = sql.SQL("""
SELECT count(*) FROM federation_certificates WHERE state = 'authorized' AND authority_id = %s
""")
_LAST_END: Final = sql.SQL("""
SELECT max(not_after) FROM federation_certificates WHERE authority_id = %s
""")
_LIVING: Final = sql.SQL("""
SELECT DISTINCT c.grant_id, g.peer_id
FROM federation_certificates c JOIN federation_grants g ON g.id = c.grant_id
WHERE c.authority_id = %s AND c.not_after >= %s
""")
_ENDS: Final = sql.SQL("""
SELECT width_bucket(not_after, %s::timestamptz[]), count(*) FROM federation_certificates
WHERE state = 'issued' AND revoked_at IS NULL AND not_after > %s GROUP BY 1
""")
_PAGE: Final = sql.SQL(
    "WHERE {conditions} ORDER BY c.authorized_at DESC, c.serial DESC LIMIT %(limit)s"
)
_AFTER: Final = sql.SQL(
    "(c.authorized_at, c.serial) < ((SELECT authorized_at FROM federation_certificates "
    "WHERE serial = %(after)s), %(after)s)"
)
# What people call the state of a certificate, from what the table knows.
_OPEN_ONE: Final = sql.SQL("c.state = 'authorized'")
_STATES: Final = {
    "authorized": _OPEN_ONE,
    "issued": sql.SQL("c.state = 'issued' AND c.revoked_at IS NULL"),
    "revoked": sql.SQL("c.revoked_at IS NOT NULL"),
    "failed": sql.SQL("c.state = 'failed'"),
    "abandoned": sql.SQL("c.state = 'abandoned'"),
}
# As it was at a position, a grant is the first one found: the others are of before, and not looked at.
_GRANT: Final = sql.SQL(
    "JOIN LATERAL (SELECT * FROM federation_grants WHERE id = c.grant_id LIMIT 1) g ON true "
)
_FILTERS: Final[Mapping[str, sql.SQL]] = {
    "grant_id": sql.SQL("c.grant_id = %(grant_id)s"),
    "grant_ids": sql.SQL("c.grant_id = ANY(%(grant_ids)s)"),
    "peer_id": sql.SQL("g.peer_id = %(peer_id)s"),
    "subject_user_id": sql.SQL("g.subject_user_id = %(subject_user_id)s"),
    "resource": sql.SQL("g.scope -> 'resources' ? %(resource)s"),
    "sensitive": sql.SQL("g.sensitive = %(sensitive)s"),
    "key_digest": sql.SQL("c.key_digest = %(key_digest)s"),
    # It ends after it was authorized: said, so that the walk through the index begins there.
    "expires_before": sql.SQL(
        "c.not_after < %(expires_before)s AND c.authorized_at < %(expires_before)s"
    ),
    # An event is given its time before it is recorded; the minute is for clocks that disagree.
    "recorded_by": sql.SQL("c.authorized_at <= %(recorded_by)s + interval '1 minute'"),
    "after": _AFTER,
}
_REVOCABLE: Final = sql.SQL(
    "c.state IN ('authorized', 'issued') AND (c.not_after >= %(at)s OR %(compromised)s) AND "
    "(c.revoked_at IS NULL OR c.revocation_reason = 'certificateHold' "
    "OR (%(compromised)s AND c.revocation_reason <> 'keyCompromise'))"
)
_REVOCABLE_PAGE: Final = sql.SQL("""
SELECT c.grant_id, c.serial
FROM federation_certificates c JOIN federation_grants g ON g.id = c.grant_id
WHERE {conditions} ORDER BY c.authorized_at, c.serial LIMIT %(limit)s
""")
# What few have is fetched first: the walk in order, which the planner would rather take for what it
# knows of the past, looked at every certificate there ever was.
_OF_FEW: Final = sql.SQL("""
WITH few AS MATERIALIZED (SELECT c.* FROM federation_certificates c WHERE {few})
{columns} FROM few c {rest}""")
_FEW: Final = ("grant_ids", "key_digest")
_MOST_GRANTS: Final = 2000
"""Of a peer or subject user, to look for their certificates grant by grant; in those of more the walk
finds a page soon."""
STATES: Final = tuple(_STATES)
"""The values of `page(state=)`."""


def by_serial(connection: Connection[Any], serial: str) -> CertificateRow | None:
    """The certificate of a serial (32 lower-case hex), None if we never authorized it."""
    with connection.cursor(row_factory=rows_of(CertificateRow)) as cursor:
        return cursor.execute(_BY_SERIAL, [serial]).fetchone()


def by_serials(connection: Connection[Any], serials: Sequence[str]) -> list[CertificateRow]:
    """The certificates of these serials, in no order."""
    with connection.cursor(row_factory=rows_of(CertificateRow)) as cursor:
        return cursor.execute(_BY_SERIALS, [serials]).fetchall()


def by_tbs_sha256(connection: Connection[Any], digest: str) -> CertificateRow | None:
    """The certificate whose TBSCertificate has this SHA-256 (hex): the only way to know one."""
    with connection.cursor(row_factory=rows_of(CertificateRow)) as cursor:
        return cursor.execute(_BY_TBS, [digest]).fetchone()


def by_key_digest(connection: Connection[Any], digest: str) -> list[CertificateRow]:
    """All serials authorized for a public key, oldest first."""
    with connection.cursor(row_factory=rows_of(CertificateRow)) as cursor:
        return cursor.execute(_BY_KEY, [digest]).fetchall()


def open_since(connection: Connection[Any], moment: datetime) -> list[CertificateRow]:
    """The issuances authorized at or before `moment` that nobody has closed, oldest first."""
    with connection.cursor(row_factory=rows_of(CertificateRow)) as cursor:
        return cursor.execute(_OPEN, [moment]).fetchall()


def untold(connection: Connection[Any], at: datetime, limit: int) -> list[CertificateRow]:
    """Revoked serials not ended at `at` of which their authority, one elsewhere, has not been told.

    Those it refused to hear of come last. Failed and abandoned ones count as revoked; a hold does
    not.
    """
    with connection.cursor(row_factory=rows_of(CertificateRow)) as cursor:
        return cursor.execute(_UNTOLD, [at, limit]).fetchall()


def open_with(connection: Connection[Any], authority_id: UUID) -> int:
    """How many issuances authorized for this authority nobody has closed."""
    row = connection.execute(_OPEN_WITH, [authority_id]).fetchone()
    return int(row[0]) if row else 0


def last_end(connection: Connection[Any], authority_id: UUID) -> datetime | None:
    """When the last certificate ever ordered from this authority ends; None if there was none."""
    row = connection.execute(_LAST_END, [authority_id]).fetchone()
    return row[0] if row else None


def grants_with_living(
    connection: Connection[Any], authority_id: UUID, at: datetime
) -> list[tuple[UUID, UUID]]:
    """Grant and peer of every certificate ordered from an authority that has not ended at `at`."""
    return connection.execute(_LIVING, [authority_id, at]).fetchall()


def ending(connection: Connection[Any], at: datetime, spans: Sequence[timedelta]) -> list[int]:
    """How many certificates valid at `at` end within each of the ascending `spans` from then."""
    rows = connection.execute(_ENDS, [[at + span for span in spans], at]).fetchall()
    counts: dict[int, int] = dict(rows)
    return list(accumulate(counts.get(number, 0) for number in range(len(spans))))


def revocable(
    connection: Connection[Any],
    at: datetime,
    *,
    compromised: bool,
    limit: int,
    **of: object,
) -> list[tuple[UUID, str]]:
    """Grant and serial of up to `limit` certificates to which a revocation at `at` adds something.

    `of`: any of grant_id, peer_id, subject_user_id, key_digest; all given must hold. Those in
    flight are among them; with `compromised` also those that have ended, or were revoked for
    another reason, since it is the key that must never come back.
    """
    conditions = [_REVOCABLE, *(_FILTERS[name] for name in of)]
    query = _REVOCABLE_PAGE.format(conditions=sql.SQL(" AND ").join(conditions))
    values = {"at": at, "compromised": compromised, "limit": limit}
    return connection.execute(query, {**of, **values}).fetchall()


def page(
    connection: Connection[Any],
    *,
    grant_id: UUID | None = None,
    peer_id: UUID | None = None,
    subject_user_id: str | None = None,
    resource: str | None = None,
    sensitive: bool | None = None,
    key_digest: str | None = None,
    state: str | None = None,
    expires_before: datetime | None = None,
    recorded_by: datetime | None = None,
    after: str | None = None,
    limit: int,
) -> list[CertificateRow]:
    """Up to `limit` certificates, newest first, from the one behind the serial `after`.

    `state`: one of `STATES`; KeyError for another. `expires_before`: notAfter below it.
    `resource`, `sensitive`: of the grant's present scope. `recorded_by`: nothing authorized later
    is there; it only saves the database looking. Filters that are None do not filter.
    """
    owned = peer_id is not None or subject_user_id is not None
    grant_ids = grants.ids_of(connection, peer_id, subject_user_id, _MOST_GRANTS) if owned else None
    of_grant: Mapping[str, object] = {
        "peer_id": peer_id if grant_ids is None else None,
        "subject_user_id": subject_user_id if grant_ids is None else None,
        "resource": resource,
        "sensitive": sensitive,
    }
    own: Mapping[str, object] = {
        "grant_id": grant_id,
        "grant_ids": grant_ids,
        "key_digest": key_digest,
        "expires_before": expires_before,
        "recorded_by": recorded_by,
        "after": after,
    }
    chosen = [name for name, value in {**of_grant, **own}.items() if value is not None]
    conditions = [_STATES[state]] if state is not None else [sql.SQL("true")]
    conditions += [_FILTERS[name] for name in chosen]
    few = [_FILTERS[name] for name in _FEW if name in chosen]
    few += [_OPEN_ONE] if state == "authorized" else []
    rest = _PAGE.format(conditions=sql.SQL(" AND ").join(conditions))
    if of_grant.keys() & set(chosen):
        rest = _GRANT + rest
    query = _SELECT + rest
    if few:
        query = _OF_FEW.format(few=sql.SQL(" AND ").join(few), columns=_COLUMNS, rest=rest)
    with connection.cursor(row_factory=rows_of(CertificateRow)) as cursor:
        return cursor.execute(query, {**of_grant, **own, "limit": limit}).fetchall()
