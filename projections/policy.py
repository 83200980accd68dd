"""The table `federation_policy`: the policy in force, its only writer and its SQL.

No row means that nothing was ever changed: the defaults of `ledger/policy.py` hold.
"""

from collections.abc import Iterable
from typing import Any, Final

from psycopg import Connection, sql
from psycopg.rows import class_row

from ledger.appends import InlineProjection
from ledger.policy import DEFAULT, Policy


def rows(policy: Policy) -> Iterable[tuple[object, ...]]:
    """The policy's one row, in the order of `PROJECTION.columns`."""
    return (
        (
            policy.id,
            policy.version,
            policy.four_eyes,
            policy.required_approvals,
            policy.approval_days,
            policy.max_grant_days,
            policy.certificate_ttl,
            policy.token_ttl,
            policy.changed_at,
        ),
    )


PROJECTION: Final = InlineProjection(
    table="federation_policy",
    state=Policy,
    columns=(
        ("id", "uuid"),
        ("version", "bigint"),
        ("four_eyes", "boolean"),
        ("required_approvals", "integer"),
        ("approval_days", "integer"),
        ("max_grant_days", "integer"),
        ("certificate_ttl", "integer"),
        ("token_ttl", "integer"),
        ("changed_at", "timestamptz"),
    ),
    key=("id",),
    rows=rows,
)

_CURRENT: Final = sql.SQL("""
SELECT id, version, four_eyes, required_approvals, approval_days, max_grant_days, certificate_ttl,
       token_ttl, changed_at
FROM federation_policy
""")


def current(connection: Connection[Any]) -> Policy:
    """The policy in force, the defaults if it was never changed."""
    with connection.cursor(row_factory=class_row(Policy)) as cursor:
        return cursor.execute(_CURRENT).fetchone() or DEFAULT
