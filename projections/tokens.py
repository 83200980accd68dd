"""The table `federation_enrollment_tokens`: one row per token, its only writer and its SQL.

It finds a token's grant; whether the token opens anything is decided from the grant's stream.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from psycopg import Connection, sql
from psycopg.rows import class_row

from ledger.appends import InlineProjection
from ledger.grant_state import Grant, Token
from ledger.lookups import Lookup


@dataclass(frozen=True, slots=True)
class TokenRow:
    """An enrollment token as last recorded; `expired` is no state here, but follows from the time.

    `token_sha256`: of the token's whole text. `key_digest`: the pin, if any.
    """

    accessor: str
    grant_id: UUID
    token_sha256: str
    state: str
    expires_at: datetime
    key_digest: str | None
    issued_at: datetime
    changed_at: datetime


def rows(grant: Grant) -> Iterable[tuple[object, ...]]:
    """One row per token of the grant, in the order of `PROJECTION.columns`."""
    return (_row(grant, token) for token in grant.tokens.values())


def _row(grant: Grant, token: Token) -> tuple[object, ...]:
    return (
        token.accessor,
        grant.id,
        token.token_sha256,
        token.state.value,
        token.expires_at,
        token.key_digest,
        token.issued_at,
        token.changed_at,
    )


PROJECTION: Final = InlineProjection(
    table="federation_enrollment_tokens",
    state=Grant,
    columns=(
        ("accessor", "text"),
        ("grant_id", "uuid"),
        ("token_sha256", "text"),
        ("state", "text"),
        ("expires_at", "timestamptz"),
        ("key_digest", "text"),
        ("issued_at", "timestamptz"),
        ("changed_at", "timestamptz"),
    ),
    key=("accessor",),
    rows=rows,
    part=lambda grant: grant.tokens,
    row=_row,
    stream="grant_id",
)

_TEXT: Final = """
SELECT accessor, grant_id, token_sha256, state, expires_at, key_digest, issued_at, changed_at
FROM federation_enrollment_tokens
"""
_SELECT: Final = sql.SQL(_TEXT)
_BY_ACCESSOR: Final = Lookup(_TEXT + "WHERE accessor = $1")
_OF_GRANT: Final = _SELECT + sql.SQL("WHERE grant_id = %s ORDER BY issued_at DESC, accessor")
_PAGE: Final = sql.SQL("WHERE {conditions} ORDER BY issued_at DESC, accessor DESC LIMIT %(limit)s")
_AFTER: Final = sql.SQL(
    "(issued_at, accessor) < ((SELECT issued_at FROM federation_enrollment_tokens "
    "WHERE accessor = %(after)s), %(after)s)"
)
# As `effective_state` says it of a row.
_STATES: Final = {
    "issued": sql.SQL("state = 'issued' AND expires_at > %(at)s"),
    "redeemed": sql.SQL("state = 'redeemed'"),
    "expired": sql.SQL("state = 'issued' AND expires_at <= %(at)s"),
    "cancelled": sql.SQL("state = 'cancelled'"),
    "locked": sql.SQL("state = 'locked'"),
}


def by_accessor(connection: Connection[Any], accessor: str) -> TokenRow | None:
    """The token of this accessor, None if there is none."""
    found = _BY_ACCESSOR.rows(connection, accessor.encode())
    return TokenRow(*found[0]) if found else None


def of_grant(connection: Connection[Any], grant_id: UUID) -> list[TokenRow]:
    """All tokens ever issued to a grant, newest first."""
    with connection.cursor(row_factory=class_row(TokenRow)) as cursor:
        return cursor.execute(_OF_GRANT, [grant_id]).fetchall()


def effective_state(row: TokenRow, at: datetime) -> str:
    """The token's state at `at`: one that nobody redeemed in time is `expired`."""
    return "expired" if row.state == "issued" and row.expires_at <= at else row.state


def page(
    connection: Connection[Any],
    grant_id: UUID,
    at: datetime,
    *,
    state: str | None = None,
    expires_before: datetime | None = None,
    after: str | None = None,
    limit: int,
) -> list[TokenRow]:
    """Up to `limit` tokens of a grant, newest first, from the one behind the accessor `after`.

    `state`: the effective one at `at`; KeyError for another word.
    """
    conditions = [sql.SQL("grant_id = %(grant_id)s")]
    if state is not None:
        conditions.append(_STATES[state])
    if expires_before is not None:
        conditions.append(sql.SQL("expires_at < %(expires_before)s"))
    if after is not None:
        conditions.append(_AFTER)
    query = _SELECT + _PAGE.format(conditions=sql.SQL(" AND ").join(conditions))
    values = {
        "grant_id": grant_id,
        "at": at,
        "expires_before": expires_before,
        "after": after,
        "limit": limit,
    }
    with connection.cursor(row_factory=class_row(TokenRow)) as cursor:
        return cursor.execute(query, values).fetchall()
