"""Finds events by what is in them, at once and without gaps: by the index, and behind it by reading.

The index of words follows the ledger a moment later; events that it does not know yet are read
themselves, so an answer never lags behind. It is a shorter way to the answers of
`ledger.record.Record.page`, and gives no others: every event found is compared with the question.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from psycopg import Connection

from ledger.record import MAX_PAGE, Filter, Question, Record
from ledger.recorded import RecordedEvent
from projections import event_terms
from projections.follower import progress
from projections.registry import RELEASE


@dataclass(frozen=True, slots=True)
class Search:
    """`read` opens one consistent view of the tables."""

    record: Record
    read: Callable[[], AbstractContextManager[Connection[Any]]]

    def page(
        self,
        wanted: Filter,
        *,
        after: int | None = None,
        newest_first: bool = False,
        limit: int = 100,
    ) -> list[RecordedEvent]:
        """Return what `Record.page` does.

        Raises:
            UnavailableError, psycopg.Error: the database cannot be asked.
        """
        if _is_served_directly(wanted.question):
            return self.record.page(wanted, after=after, newest_first=newest_first, limit=limit)
        within = self._within(wanted, after, newest_first)
        limit = min(limit, MAX_PAGE)
        with self.read() as connection:
            known = progress(connection, event_terms.NAME, RELEASE)
            old = replace(within, last=min(within.last or 0, known))
            new = replace(within, first=max(within.first, known + 1))
            parts = [
                lambda count: self._look_up(connection, old, count, newest_first),
                lambda count: self._read(new, count, newest_first),
            ]
            found: list[RecordedEvent] = []
            for part in reversed(parts) if newest_first else parts:
                found += part(limit - len(found))
            return found

    def _within(self, wanted: Filter, after: int | None, newest_first: bool) -> Filter:
        """The filter with every bound as a position."""
        first, last = self.record.bounds(wanted)
        last = self.record.head().size if last is None else last
        if after is not None:
            first, last = (first, min(last, after - 1)) if newest_first else (after + 1, last)
        return Filter(wanted.question, max(first, wanted.first), last)

    def _look_up(
        self, connection: Connection[Any], wanted: Filter, limit: int, newest_first: bool
    ) -> list[RecordedEvent]:
        first, last = wanted.first, wanted.last or 0
        groups = wanted.question.groups()
        if limit <= 0 or first > last:
            return []
        places = event_terms.positions_of(
            connection, groups, first, last, newest_first=newest_first
        )
        found: list[RecordedEvent] = []
        while len(found) < limit and (some := list(islice(places, limit - len(found)))):
            rows = self.record.these(some)
            found += (one for one in rows[:: -1 if newest_first else 1] if one.answers(groups))
        return found

    def _read(self, wanted: Filter, limit: int, newest_first: bool) -> list[RecordedEvent]:
        if limit <= 0 or wanted.first > (wanted.last or 0):
            return []
        return self.record.page(wanted, newest_first=newest_first, limit=limit)


def _is_served_directly(question: Question) -> bool:
    """Whether an index of the record itself has the events in order: by position, or by topic."""
    return len(question.topics) <= 1 and question == Question(
        topics=question.topics, asked_too=question.asked_too
    )
