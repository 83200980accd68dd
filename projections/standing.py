"""How the tables stand: what each is right at, and how far a rebuild of them is. It changes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from psycopg import Connection

from ledger.head import read_head
from projections import event_terms, progress, words
from projections.beside import schema_for
from projections.progress import Progress
from projections.sources import Source

_PROGRESS: Final = "SELECT position FROM projection_progress WHERE name = %s"
_ROWS: Final = "SELECT greatest(reltuples, 0)::int8 FROM pg_class WHERE oid = %s::regclass"


@dataclass(frozen=True, slots=True)
class Standing:
    """One table. `source`: present, history or words; `position`: it holds everything up to there.

    `rows`: about how many, as the server's statistics have it. `rebuild`: of its source, if one has
    begun.
    """

    table: str
    source: str
    position: int
    rows: int
    rebuild: Progress | None


def standings(connection: Connection[Any], sources: Sequence[Source]) -> list[Standing]:
    """Every table of `sources` and the index of words, as a snapshot shows it."""
    size = read_head(connection).size
    found: list[Standing] = []
    for source in sources:
        position = size if source.followed is None else _one(connection, _PROGRESS, source.followed)
        rebuild = progress.read(connection, schema_for(source.name))
        found += (
            Standing(
                table.table, source.name, position, _one(connection, _ROWS, table.table), rebuild
            )
            for table in source.tables
        )
    position = _one(connection, _PROGRESS, event_terms.NAME)
    rows = _one(connection, _ROWS, event_terms.TABLE)
    return [*found, Standing(event_terms.TABLE, words.SOURCE, position, rows, None)]


def release_of(connection: Connection[Any]) -> int:
    """Of which release's shape the present tables are."""
    return read_head(connection).release


def _one(connection: Connection[Any], query: str, *values: object) -> int:
    row = connection.execute(query.encode(), values).fetchone()
    return int(row[0]) if row else 0
