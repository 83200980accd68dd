"""Checks the whole ledger: the record recomputed, every table compared with a fresh fold.

It changes nothing and repairs nothing. Everything is read in one transaction, so that appends may go
on meanwhile.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from ledger.appends import InlineProjection
from ledger.audit import Audit, Violation, rows, since
from ledger.database import conninfo
from ledger.events import Event
from ledger.folds import FOLDS
from ledger.reading import Fold
from projections import event_terms, words
from projections.comparing import comparable, row_name
from projections.history import history_of
from projections.holding import hold
from projections.registry import INLINE
from projections.verify_history import HistoryAudit


@dataclass(frozen=True, slots=True)
class Report:
    """What was found. `size` and `root` (32 bytes) are recomputed, not read.

    `recorded`: how many of the violations are of the record itself; they come first.
    """

    size: int
    root: bytes
    violations: tuple[Violation, ...]
    recorded: int

    @property
    def ok(self) -> bool:
        return not self.violations

    def __str__(self) -> str:
        found = "\n".join(f"{where}: {what}" for where, what in self.violations)
        return found or f"{self.size} events and all that follows from them are right"


def check_ledger(
    dsn: str,
    *,
    folds: Mapping[type, Fold] = FOLDS,
    inline: Sequence[InlineProjection] = INLINE,
) -> Report:
    """Check everything that can be recomputed, from position 1. Reads all bodies.

    Raises:
        psycopg.Error: the database cannot be read.
    """
    with psycopg.connect(conninfo(dsn)) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        connection.execute("SET LOCAL timezone = 'UTC'")
        hold(connection, _tables(inline))
        audit = Audit()
        states = _States(folds, audit)
        past = HistoryAudit(connection, inline)
        for event in audit.events(connection):
            if states.fold(event):
                past.tell(event, audit.frontier.size)
        audit.finish(connection)
        recorded = len(audit.violations)
        for table in inline:
            _compare(connection, table, states.of(table.state), audit)
        past.compare(connection, audit.frontier.size, audit.complain)
        words.compare(connection, audit.violations.append)
    return _report(audit, recorded)


def _report(audit: Audit, recorded: int) -> Report:
    found = tuple(audit.violations)
    return Report(audit.frontier.size, audit.frontier.root(), found, recorded)


def _tables(inline: Sequence[InlineProjection]) -> list[str]:
    return [
        event_terms.TABLE,
        *(name for table in inline for name in (table.table, history_of(table))),
    ]


def check_newest(dsn: str, newest: int) -> Report:
    """Check the record's newest events, at least so many: entries, leaves, tree, head and claims.

    What lies before them is taken on trust, and no table is compared: `check_ledger` does.

    Raises:
        psycopg.Error: the database cannot be read.
    """
    with psycopg.connect(conninfo(dsn)) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        connection.execute("SET LOCAL timezone = 'UTC'")
        audit = Audit(since=since(connection, newest))
        for _ in audit.events(connection):
            pass
        audit.finish(connection)
    return _report(audit, len(audit.violations))


class _States:
    """Every stream's state, folded as the events come."""

    def __init__(self, folds: Mapping[type, Fold], audit: Audit) -> None:
        self._folds = {fold.stream_type: (kind, fold) for kind, fold in folds.items()}
        self._states: dict[type, dict[UUID, Any]] = {kind: {} for kind in folds}
        self._audit = audit

    def fold(self, event: Event) -> bool:
        """Whether it could be folded; if not, that is a violation."""
        kind, fold = self._folds[event.data.STREAM]
        states, stream_id = self._states[kind], event.originator_id
        try:
            states[stream_id] = fold.evolve(states.get(stream_id), event)
        except Exception as error:  # noqa: BLE001 - whatever a rule says to a history it never made
            self._audit.complain(
                f"stream {stream_id} version {event.originator_version}",
                f"does not fold: {type(error).__name__}",
            )
            return False
        return True

    def of(self, kind: type) -> Sequence[Any]:
        return list(self._states.get(kind, {}).values())


def _compare(
    connection: psycopg.Connection[Any],
    table: InlineProjection,
    states: Sequence[Any],
    audit: Audit,
) -> None:
    key = [table.names.index(name) for name in table.key]
    expected: dict[tuple[object, ...], tuple[object, ...]] = {}
    for state in states:
        for row in table.rows(state):
            values = comparable(table, row)
            expected[tuple(values[index] for index in key)] = values
    query = sql.SQL("SELECT {} FROM {}").format(
        sql.SQL(", ").join(map(sql.Identifier, table.names)), sql.Identifier(table.table)
    )
    for row in rows(connection, query.as_string(connection)):
        values = comparable(table, row, stored=True)
        name = tuple(values[index] for index in key)
        wanted = expected.pop(name, None)
        if wanted != values:
            what = "no event is behind it" if wanted is None else "differs from its events"
            audit.complain(row_name(table, values), what)
    for values in expected.values():
        audit.complain(row_name(table, values), "is missing")
