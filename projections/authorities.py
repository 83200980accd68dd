"""The table `federation_authorities`: one row per signing authority, its only writer and its SQL."""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from psycopg import Connection

from ledger.appends import InlineProjection
from ledger.authorities import Authority
from ledger.canonical import canonical_json
from ledger.lookups import Lookup


@dataclass(frozen=True, slots=True)
class AuthorityRow:
    """A signing authority. `chain`: DER, the issuing certificate first; `not_after`: its end."""

    id: UUID
    version: int
    kind: str
    chain: tuple[bytes, ...]
    not_after: datetime
    adopted_at: datetime
    retired_at: datetime | None


def rows(authority: Authority) -> Iterable[tuple[object, ...]]:
    """The authority's one row, in the order of `PROJECTION.columns`."""
    chain = [base64.b64encode(link).decode() for link in authority.chain]
    return (
        (
            authority.id,
            authority.version,
            authority.kind,
            canonical_json(chain).decode(),
            authority.not_after,
            authority.adopted_at,
            authority.retired_at,
        ),
    )


PROJECTION: Final = InlineProjection(
    table="federation_authorities",
    state=Authority,
    columns=(
        ("id", "uuid"),
        ("version", "bigint"),
        ("kind", "text"),
        ("chain", "jsonb"),
        ("not_after", "timestamptz"),
        ("adopted_at", "timestamptz"),
        ("retired_at", "timestamptz"),
    ),
    key=("id",),
    rows=rows,
)

_ALL: Final = Lookup("""
SELECT id, version, kind, chain, not_after, adopted_at, retired_at
FROM federation_authorities ORDER BY adopted_at, id
""")


def everything(connection: Connection[Any]) -> list[AuthorityRow]:
    """All authorities ever adopted, oldest first: a handful."""
    return [_read(*row) for row in _ALL.rows(connection)]


def _read(id_: UUID, version: int, kind: str, chain: list[str], *times: Any) -> AuthorityRow:
    return AuthorityRow(id_, version, kind, tuple(map(base64.b64decode, chain)), *times)
