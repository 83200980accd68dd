"""Retires authorities that a later one has taken the place of, once nothing is open with them.

Until then they finish what was begun with them. Retiring takes no certificate back: what an
authority issued stays good to its own end, and its chain stays on record.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from psycopg import Connection

from ca.signers import Signers
from ledger.application import Ledger
from ledger.reading import Call
from projections import authorities, certificates
from projections.authorities import AuthorityRow


@dataclass(slots=True)
class Retirement:
    """What became of the superseded ones. `waiting`: id → how many issuances are open with it."""

    retired: list[UUID] = field(default_factory=list)
    waiting: dict[UUID, int] = field(default_factory=dict)


def retire_superseded(
    ledger: Ledger,
    signers: Signers,
    read: Callable[[], AbstractContextManager[Connection[Any]]],
    call: Callable[[], Call],
) -> Retirement:
    """Retire every superseded authority that no open issuance names; it may be repeated.

    An order that is just being authorized with the old one when it is retired is either decided
    anew, with the new one, or finished by the old one, whose key is still here.

    Raises:
        UnavailableError: authority-unavailable: the successor's key is not here, so the old one is
            still needed.
    """
    done = Retirement()
    with read() as connection:
        rows = superseded(authorities.everything(connection), signers.current)
        for row in rows:
            waiting = certificates.open_with(connection, row.id)
            if waiting:
                done.waiting[row.id] = waiting
    for row in rows:
        if row.id not in done.waiting:
            ledger.retire_authority(call(), row.id)
            done.retired.append(row.id)
    return done


def superseded(rows: list[AuthorityRow], current: Callable[[], UUID]) -> list[AuthorityRow]:
    """Those not retired that were adopted before the current one, of its kind. `rows`: by adoption."""
    if len([row for row in rows if row.retired_at is None]) < 2:
        return []  # nothing to compare, and nobody need look for keys
    newest = current()
    before: list[AuthorityRow] = []
    for row in rows:
        if row.id == newest:
            return [old for old in before if old.kind == row.kind and old.retired_at is None]
        before.append(row)
    return []
