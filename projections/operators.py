"""The tables `federation_operators` and `federation_credentials`, their only writer and their SQL.

They find who a bearer token belongs to; whether it may do a thing is decided from the operator's
stream (`ledger/operators.py`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from psycopg import Connection, sql
from psycopg.rows import class_row

from ledger.appends import InlineProjection
from ledger.canonical import canonical_json
from ledger.lookups import Lookup
from ledger.operators import Operator
from ledger.packing import TEXT


@dataclass(frozen=True, slots=True)
class OperatorRow:
    """An operator as last recorded. `kind`: person or machine. `roles`: sorted."""

    id: UUID
    version: int
    kind: str
    roles: list[str]
    enabled: bool
    registered_at: datetime
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class CredentialRow:
    """A bearer token of an operator. `token_sha256`: of the token's whole text."""

    accessor: str
    operator_id: UUID
    token_sha256: str
    expires_at: datetime
    issued_at: datetime
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class CredentialOfOperator:
    """What the door needs to know about a bearer token: it and its operator, read at once."""

    accessor: str
    operator_id: UUID
    token_sha256: str
    expires_at: datetime
    issued_at: datetime
    revoked_at: datetime | None
    kind: str
    roles: list[str]
    enabled: bool

    def live(self, at: datetime) -> bool:
        """Whether the credential opens anything at `at`."""
        return self.enabled and self.revoked_at is None and at < self.expires_at


def rows(operator: Operator) -> Iterable[tuple[object, ...]]:
    """The operator's one row, in the order of `PROJECTION.columns`."""
    return (
        (
            operator.id,
            operator.version,
            operator.kind,
            canonical_json(sorted(operator.roles)).decode(),
            operator.enabled,
            operator.registered_at,
            operator.changed_at,
        ),
    )


def credential_rows(operator: Operator) -> Iterable[tuple[object, ...]]:
    """One row per credential of the operator, in the order of `CREDENTIALS.columns`."""
    return (
        (
            credential.accessor,
            operator.id,
            credential.token_sha256,
            credential.expires_at,
            credential.issued_at,
            credential.revoked_at,
        )
        for credential in operator.credentials.values()
    )


PROJECTION: Final = InlineProjection(
    table="federation_operators",
    state=Operator,
    columns=(
        ("id", "uuid"),
        ("version", "bigint"),
        ("kind", "text"),
        ("roles", "jsonb"),
        ("enabled", "boolean"),
        ("registered_at", "timestamptz"),
        ("changed_at", "timestamptz"),
    ),
    key=("id",),
    rows=rows,
)
CREDENTIALS: Final = InlineProjection(
    table="federation_credentials",
    state=Operator,
    columns=(
        ("accessor", "text"),
        ("operator_id", "uuid"),
        ("token_sha256", "text"),
        ("expires_at", "timestamptz"),
        ("issued_at", "timestamptz"),
        ("revoked_at", "timestamptz"),
    ),
    key=("accessor",),
    rows=credential_rows,
    stream="operator_id",
)

_SELECT: Final = sql.SQL("""
SELECT id, version, kind, roles, enabled, registered_at, changed_at FROM federation_operators
""")
_BY_ID: Final = _SELECT + sql.SQL("WHERE id = %s")
_ENABLED_WITH_ROLE: Final = _SELECT + sql.SQL("WHERE enabled AND roles ? %s ORDER BY id")
_PAGE: Final = sql.SQL("WHERE {conditions} ORDER BY registered_at, id LIMIT %(limit)s")
_AFTER: Final = sql.SQL(
    "(registered_at, id) > "
    "((SELECT registered_at FROM federation_operators WHERE id = %(after)s), %(after)s)"
)
# Were the array's length known to the planner, it would plan anew for each: three times the work.
_CREDENTIALS: Final = Lookup("""
SELECT c.accessor, c.operator_id, c.token_sha256, c.expires_at, c.issued_at, c.revoked_at,
       o.kind, o.roles, o.enabled
FROM federation_credentials c JOIN federation_operators o ON o.id = c.operator_id
WHERE c.accessor = ANY((SELECT $1::text[])::text[])
""")
_SELECT_CREDENTIALS: Final = sql.SQL("""
SELECT accessor, operator_id, token_sha256, expires_at, issued_at, revoked_at
FROM federation_credentials
""")
_CREDENTIAL_PAGE: Final = sql.SQL(
    "WHERE {conditions} ORDER BY issued_at DESC, accessor DESC LIMIT %(limit)s"
)
_CREDENTIAL_AFTER: Final = sql.SQL(
    "(issued_at, accessor) < ((SELECT issued_at FROM federation_credentials "
    "WHERE accessor = %(after)s), %(after)s)"
)
_CREDENTIAL_LIVE: Final = sql.SQL(
    "revoked_at IS NULL AND expires_at > %(live_at)s AND "
    "(SELECT enabled FROM federation_operators WHERE id = %(operator_id)s)"
)


def by_id(connection: Connection[Any], operator_id: UUID) -> OperatorRow | None:
    """The operator of this id, None if there is none."""
    with connection.cursor(row_factory=class_row(OperatorRow)) as cursor:
        return cursor.execute(_BY_ID, [operator_id]).fetchone()


def enabled_with_role(connection: Connection[Any], role: str) -> list[OperatorRow]:
    """All enabled operators that hold `role`."""
    with connection.cursor(row_factory=class_row(OperatorRow)) as cursor:
        return cursor.execute(_ENABLED_WITH_ROLE, [role]).fetchall()


def page(
    connection: Connection[Any],
    *,
    role: str | None = None,
    enabled: bool | None = None,
    kind: str | None = None,
    after: UUID | None = None,
    limit: int,
) -> list[OperatorRow]:
    """Up to `limit` operators, oldest first, from the one behind `after` (of the page before)."""
    conditions = [sql.SQL("true")]
    if role is not None:
        conditions.append(sql.SQL("roles ? %(role)s"))
    if enabled is not None:
        conditions.append(sql.SQL("enabled = %(enabled)s"))
    if kind is not None:
        conditions.append(sql.SQL("kind = %(kind)s"))
    if after is not None:
        conditions.append(_AFTER)
    query = _SELECT + _PAGE.format(conditions=sql.SQL(" AND ").join(conditions))
    values = {"role": role, "enabled": enabled, "kind": kind, "after": after, "limit": limit}
    with connection.cursor(row_factory=class_row(OperatorRow)) as cursor:
        return cursor.execute(query, values).fetchall()


def credential(connection: Connection[Any], accessor: str) -> CredentialOfOperator | None:
    """The credential of this accessor with its operator, None if there is none."""
    return credentials(connection, [accessor]).get(accessor)


def credentials(
    connection: Connection[Any], accessors: Sequence[str]
) -> dict[str, CredentialOfOperator]:
    """Of these accessors, at least one, those that exist: each with its credential and operator."""
    wanted = TEXT.array([TEXT.item(accessor) for accessor in accessors])
    found = _CREDENTIALS.rows(connection, wanted)
    return {row[0]: CredentialOfOperator(*row) for row in found}


def credentials_of(connection: Connection[Any], operator_id: UUID) -> list[CredentialRow]:
    """All credentials ever issued to an operator, newest first."""
    return credential_page(connection, operator_id, limit=None)


def credential_page(
    connection: Connection[Any],
    operator_id: UUID,
    *,
    live_at: datetime | None = None,
    expires_before: datetime | None = None,
    after: str | None = None,
    limit: int | None,
) -> list[CredentialRow]:
    """Up to `limit` credentials of an operator, newest first, from the one behind `after`.

    `live_at`: only those that open anything then. `after`: an accessor of the page before.
    """
    conditions = [sql.SQL("operator_id = %(operator_id)s")]
    if live_at is not None:
        conditions.append(_CREDENTIAL_LIVE)
    if expires_before is not None:
        conditions.append(sql.SQL("expires_at < %(expires_before)s"))
    if after is not None:
        conditions.append(_CREDENTIAL_AFTER)
    query = _SELECT_CREDENTIALS + _CREDENTIAL_PAGE.format(
        conditions=sql.SQL(" AND ").join(conditions)
    )
    values = {
        "operator_id": operator_id,
        "live_at": live_at,
        "expires_before": expires_before,
        "after": after,
        "limit": limit,
    }
    with connection.cursor(row_factory=class_row(CredentialRow)) as cursor:
        return cursor.execute(query, values).fetchall()
