"""What the tables should hold, told stream by stream: as it is now, and as it was from when to when.

Rebuilding copies these rows in, verifying holds them against those that are there: both ask here, so
neither knows how a row comes about. It reads and writes no table.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

from ledger.appends import InlineProjection
from ledger.streams import StoredStream
from projections.history import NO_END, Histories, Story, history_of
from projections.replay import FoldError, Row, Tables, fold, unfoldable


def columns_of(tables: Sequence[InlineProjection]) -> list[str]:
    """What is written into these tables, as text: a program that says something else writes others."""
    return [f"{table.table} {table.columns} {table.key}" for table in tables]


class Told(NamedTuple):
    """What one stream leads to. `events`: how many it has."""

    events: int
    rows: list[tuple[InlineProjection, Row]]


class Source(Protocol):
    """The rows of some tables. `name`: of them together; `tables`: in order of their names.

    `followed`: the name of their progress, if they are filled after the commit.
    """

    name: str
    tables: tuple[InlineProjection, ...]
    followed: str | None

    def rows(self, stream: StoredStream) -> Told:
        """Every row that a stream leads to. Raises FoldError."""
        ...


class Present:
    """The current-state tables: a row is what the whole stream folds to."""

    name: str = "present"
    followed: str | None = None

    def __init__(self, inline: Sequence[InlineProjection]) -> None:
        self._tables = Tables(inline)
        self.tables = self._tables.all

    def rows(self, stream: StoredStream) -> Told:
        """Every row of the stream's state. Raises FoldError."""
        folded = fold(stream.events())
        return Told(folded.events, list(self._tables.rows(folded))) if folded else Told(0, [])


class Past:
    """The histories of these tables: every row a stream ever led to, with the positions it held at."""

    name: str = "history"

    def __init__(self, inline: Sequence[InlineProjection], followed: str) -> None:
        """`followed`: the name of their progress."""
        self.followed: str | None = followed
        self._histories = Histories(inline)
        self._table_of = {table: _history_table(table) for table in inline}
        self.tables = tuple(sorted(self._table_of.values(), key=lambda table: table.table))

    def rows(self, stream: StoredStream) -> Told:
        """Every row the stream's events led to, one after the other. Raises FoldError."""
        found: list[tuple[InlineProjection, Row]] = []
        story, number = Story(), 0
        try:
            for position, event in stream.placed_events():
                for table, _key, old, _row in self._histories.tell(story, event, position):
                    if old is not None:
                        found.append((self._table_of[table], (*old.row, old.position, position)))
                number += 1
        except (ValueError, KeyError, TypeError) as error:
            raise unfoldable(number, error) from error
        for table, held in story.rows.items():
            into = self._table_of[table]
            found += ((into, (*since.row, since.position, NO_END)) for since in held.values())
        return Told(number, found)


def _history_table(table: InlineProjection) -> InlineProjection:
    return replace(
        table,
        table=history_of(table),
        columns=(*table.columns, ("from_position", "bigint"), ("to_position", "bigint")),
        key=(*table.key, "from_position"),
        rows=_no_rows,
    )


def _no_rows(state: object) -> Sequence[Row]:
    raise TypeError("a history is not a function of one state")


__all__ = ["FoldError", "Past", "Present", "Source", "Told", "columns_of"]
