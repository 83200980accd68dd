"""Compares the histories with the events they are made from, as far as they have come.

It folds nothing itself and changes nothing: `verify.py` hands it each event and complains.
"""

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import sql

from ledger.appends import InlineProjection
from ledger.audit import rows
from ledger.events import Event
from projections.comparing import comparable
from projections.history import HISTORY, NO_END, Histories, Story, history_of

_POSITION: Final = "SELECT position FROM projection_progress WHERE name = %s"
_ROWS: Final = sql.SQL("SELECT {columns} FROM {table}")

Complain = Callable[[str, str], object]


class HistoryAudit:
    """What the histories must hold, gathered event by event.

    Of each row it keeps a digest only: there are about as many as events.
    """

    def __init__(
        self, connection: psycopg.Connection[Any], inline: Sequence[InlineProjection]
    ) -> None:
        """`connection`: in the transaction in which everything is read."""
        self._histories = Histories(inline)
        found = connection.execute(_POSITION, [HISTORY]).fetchone()
        self._last = int(found[0]) if found else 0
        self._stories: dict[UUID, Story] = {}
        self._expected: dict[InlineProjection, dict[tuple[object, int], bytes]] = {
            table: {} for table in inline
        }
        self._ends: dict[InlineProjection, dict[tuple[object, int], int]] = {
            table: {} for table in inline
        }

    def tell(self, event: Event, position: int) -> None:
        """Take the event at this position into account; whatever a rule raises, it raises."""
        if position > self._last or not self._histories.shows(event.data.TOPIC):
            return
        story = self._stories.setdefault(event.originator_id, Story())
        for table, key, old, row in self._histories.tell(story, event, position):
            if old is not None:
                self._ends[table][str(key), old.position] = position
            self._expected[table][str(key), position] = _digest(comparable(table, row))

    def compare(self, connection: psycopg.Connection[Any], head: int, complain: Complain) -> None:
        """Hold what is stored against it. `head`: how many events there are."""
        if self._last > head:
            complain("projection_progress", f"says {self._last}, there are {head} events")
        for table, expected in self._expected.items():
            self._compare(connection, table, expected, complain)

    def _compare(
        self,
        connection: psycopg.Connection[Any],
        table: InlineProjection,
        expected: dict[tuple[object, int], bytes],
        complain: Complain,
    ) -> None:
        name, place = history_of(table), table.names.index(table.key[0])
        columns = [*table.names, "from_position", "to_position"]
        query = _ROWS.format(
            columns=sql.SQL(", ").join(map(sql.Identifier, columns)), table=sql.Identifier(name)
        )
        for *row, since, until in rows(connection, query.as_string(connection)):
            identity = (str(row[place]), since)
            where, wanted = f"{name} {identity[0]} from {since}", expected.pop(identity, None)
            if wanted is None:
                complain(where, "no event is behind it")
            elif wanted != _digest(comparable(table, row, stored=True)):
                complain(where, "differs from its events")
            elif until != self._ends[table].get(identity, NO_END):
                complain(where, "ends elsewhere than in its events")
        for key, since in expected:
            complain(f"{name} {key} from {since}", "is missing")


def _digest(values: tuple[object, ...]) -> bytes:
    return sha256(repr(values).encode()).digest()
