"""Folds history into the rows it leads to, and tells the digest of that state. Pure.

Events go in, rows come out: there is nothing here to ask a database, an authority, a clock, a network
or a file with, and an import contract keeps it so. Whoever replays reads the events and puts the rows
somewhere; the same events give the same bytes on every machine.
"""

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, Final, NamedTuple
from uuid import UUID

import orjson

from ledger.appends import InlineProjection
from ledger.canonical import canonical_json, format_time
from ledger.events import Event
from ledger.folds import FOLDS

_KINDS: Final = {fold.stream_type: (kind, fold.evolve) for kind, fold in FOLDS.items()}

Row = tuple[object, ...]


class Folded(NamedTuple):
    """What a stream's events lead to. `kind`: the state's class; `events`: how many they were."""

    kind: type
    state: Any
    events: int


class FoldError(ValueError):
    """A stream that no command made: its events do not follow from one another."""


def fold(events: Iterable[Event]) -> Folded | None:
    """Fold one stream's events, in order, to its state; None when there are none.

    Raises:
        FoldError: one of them cannot be read, or does not follow from those before it.
    """
    rest = iter(events)
    number = 0
    try:
        first = next(rest, None)
        if first is None:
            return None
        kind, evolve = _KINDS[first.data.STREAM]
        state = evolve(None, first)
        number = 1
        for event in rest:
            state = evolve(state, event)
            number += 1
    except (ValueError, KeyError, TypeError) as error:
        raise unfoldable(number, error) from error
    return Folded(kind, state, number)


def unfoldable(number: int, error: Exception) -> FoldError:
    """The error of a stream whose event behind version `number` does not follow from the others."""
    return FoldError(f"it does not fold behind version {number}: {type(error).__name__}")


class Folds:
    """The states of many streams whose events come mixed, as they do in order of position."""

    def __init__(self) -> None:
        self._states: dict[UUID, Folded] = {}

    def take(self, event: Event) -> None:
        """Fold one more event. Raises FoldError."""
        before = self._states.get(event.originator_id)
        kind, evolve = (
            (before.kind, FOLDS[before.kind].evolve) if before else _KINDS[event.data.STREAM]
        )
        try:
            state = evolve(before.state if before else None, event)
        except (ValueError, KeyError, TypeError) as error:
            number = before.events if before else 0
            raise FoldError(f"stream {event.originator_id}: {unfoldable(number, error)}") from error
        self._states[event.originator_id] = Folded(kind, state, before.events + 1 if before else 1)

    def __iter__(self) -> Iterator[Folded]:
        return iter(self._states.values())

    def get(self, stream_id: UUID) -> Any:
        """The state of a stream, None when it has no event."""
        found = self._states.get(stream_id)
        return found.state if found else None


class Tables:
    """Which tables show which states."""

    def __init__(self, tables: Sequence[InlineProjection]) -> None:
        self.all = tuple(sorted(tables, key=lambda table: table.table))
        self._of: Mapping[type, tuple[InlineProjection, ...]] = {
            kind: tuple(table for table in self.all if table.state is kind) for kind in FOLDS
        }

    def rows(self, folded: Folded) -> Iterator[tuple[InlineProjection, Row]]:
        """Every row of a state, with the table it belongs to."""
        for table in self._of[folded.kind]:
            for row in table.rows(folded.state):
                yield table, row


# ---- the state as bytes -----------------------------------------------------------------------


def line_of(table: InlineProjection, row: Row) -> bytes:
    """Return the row as one line of canonical JSON (RFC 8785), ended by LF.

    Times are the ledger's 27 characters, ids text, bytes standard base64; `jsonb` is JSON within.
    """
    values = {
        name: _plain(kind, value) for (name, kind), value in zip(table.columns, row, strict=True)
    }
    return canonical_json(values) + b"\n"


def sort_key(table: InlineProjection, row: Row) -> bytes:
    """What the lines of a table are sorted by: its key, as canonical JSON."""
    values = dict(zip(table.names, row, strict=True))
    kinds = dict(table.columns)
    return canonical_json([_plain(kinds[name], values[name]) for name in table.key])


def header_of(table: InlineProjection) -> bytes:
    """The line that goes before a table's lines into the digest."""
    return canonical_json({"table": table.table, "columns": list(table.names)}) + b"\n"


class StateDigest:
    """SHA-256 over all tables in order of their names: each one's header, then its sorted lines."""

    def __init__(self) -> None:
        self._hash = sha256()
        self.rows: dict[str, int] = {}

    def add(self, table: InlineProjection, lines: Iterable[bytes]) -> None:
        """Add one table; `lines` sorted by `sort_key`."""
        self._hash.update(header_of(table))
        count = 0
        for line in lines:
            self._hash.update(line)
            count += 1
        self.rows[table.table] = count

    @property
    def hex(self) -> str:
        """The digest so far, 64 lower-case hex digits."""
        return self._hash.hexdigest()


def digest_of(tables: Tables, states: Iterable[Folded]) -> StateDigest:
    """The digest of states that fit into memory; see `projections/sorting.py` for those that do not."""
    lines: dict[str, list[tuple[bytes, bytes]]] = {table.table: [] for table in tables.all}
    for folded in states:
        for table, row in tables.rows(folded):
            lines[table.table].append((sort_key(table, row), line_of(table, row)))
    digest = StateDigest()
    for table in tables.all:
        digest.add(table, (line for _, line in sorted(lines[table.table])))
    return digest


def _plain(kind: str, value: object) -> object:
    if value is None or kind in ("text", "boolean", "integer", "bigint"):
        return value
    if kind == "jsonb":
        return orjson.loads(str(value))
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value)
