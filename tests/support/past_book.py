"""Writes a made-up past: events, leaves, tree, claims, head and current state, as fast as COPY takes.

It uses the ledger's own bodies, entries and folds, and none of its locking: it is alone with an
empty database, as the owner. What happened is decided by who calls it.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from random import Random
from typing import Any, Final, TypeVar
from uuid import UUID

import psycopg
from psycopg import sql

from ledger.appends import InlineProjection
from ledger.canonical import format_time
from ledger.claims import claims_of
from ledger.events import Actor, Event, Fact
from ledger.folds import FOLDS
from ledger.mapper import body_of
from ledger.tlog.entry import entry_text, leaf_hash
from ledger.tlog.merkle import Frontier, Node
from projections.registry import INLINE

S = TypeVar("S")

_TICK: Final = timedelta(microseconds=1)
_FACTS: Final[Mapping[str, Sequence[tuple[str, str]]]] = {
    "ledger_events": (
        ("position", "int8"),
        ("stream_id", "uuid"),
        ("version", "int8"),
        ("topic", "text"),
        ("recorded_at", "timestamptz"),
        ("body", "bytea"),
        ("leaf", "bytea"),
    ),
    "ledger_claims": (
        ("kind", "text"),
        ("key", "text"),
        ("stream_id", "uuid"),
        ("position", "int8"),
    ),
    "ledger_nodes": (("level", "int2"), ("index", "int8"), ("hash", "bytea")),
}
_HEAD: Final = "UPDATE ledger_head SET size = %s, frontier = %s, last_recorded_at = %s"


class _Table:
    """One table being copied into, on a connection of its own: a COPY takes a whole one."""

    def __init__(
        self,
        stack: ExitStack,
        dsn: str,
        name: str,
        columns: Sequence[tuple[str, str]],
        *,
        binary: bool = False,
    ) -> None:
        """`binary`: several times as fast, for types that have a binary form here."""
        self.connection = stack.enter_context(psycopg.connect(dsn))
        query = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT {})").format(
            sql.Identifier(name),
            sql.SQL(", ").join(sql.Identifier(one) for one, _ in columns),
            sql.SQL("binary" if binary else "text"),
        )
        self._copying = stack.enter_context(ExitStack())
        copy = self._copying.enter_context(self.connection.cursor().copy(query))
        if binary:
            copy.set_types([kind for _, kind in columns])
        self.add = copy.write_row

    def finish(self) -> None:
        self._copying.close()


@dataclass(slots=True)
class Book:
    """What is written so far. `dice` gives ids, so that the same seed gives the same past."""

    dice: Random
    frontier: Frontier = field(default_factory=Frontier)
    last: datetime | None = None
    _tables: dict[str, _Table] = field(default_factory=dict)
    _claims: set[tuple[str, str]] = field(default_factory=set)
    _stack: ExitStack = field(default_factory=ExitStack)

    def open(self, dsn: str) -> None:
        """Begin writing. ValueError if anything is recorded there already."""
        with psycopg.connect(dsn) as connection:
            if connection.execute("SELECT FROM ledger_head WHERE size = 0").fetchone() is None:
                raise ValueError("a past can only be made up in an empty ledger")
        for name, columns in _FACTS.items():
            self._tables[name] = _Table(self._stack, dsn, name, columns, binary=True)
        for table in INLINE:
            self._tables[table.table] = _Table(self._stack, dsn, table.table, table.columns)

    def close(self) -> None:
        """Commit everything, the head last. Without it nothing was written."""
        for table in self._tables.values():
            table.finish()
        head = self._tables["ledger_events"].connection
        head.execute(_HEAD, [self.frontier.size, self.frontier.edge(), self.last])
        for table in reversed(self._tables.values()):
            table.connection.commit()

    def abandon(self) -> None:
        """Let go of the connections; what was not committed is gone."""
        for table in self._tables.values():
            table.connection.cancel()
        self._stack.close()

    def uuid(self) -> UUID:
        return UUID(int=self.dice.getrandbits(128), version=4)

    def append(
        self,
        kind: type[S],
        state: S | None,
        stream_id: UUID,
        facts: Sequence[Fact],
        at: datetime,
        actor: Actor,
        *,
        reason: str | None = None,
        causation_id: UUID | None = None,
    ) -> S:
        """Write one append to one stream, as a command would have; the state after it."""
        evolve = FOLDS[kind].evolve
        self.last = at if self.last is None else max(at, self.last + _TICK)
        moment, request = format_time(self.last), f"req-{self.dice.getrandbits(48):012x}"
        version = 0 if state is None else state.version  # type: ignore[attr-defined]
        after: Any = state
        for fact in facts:
            version += 1
            event = Event(
                stream_id, version, self.uuid(), at, actor, request, causation_id, reason, fact
            )
            causation_id = causation_id or event.id
            after = evolve(after, event)
            self._write(event, moment)
        return after

    def _write(self, event: Event, moment: str) -> None:
        fact, position, body = event.data, self.frontier.size + 1, body_of(event)
        stream_id, version = event.originator_id, event.originator_version
        leaf = leaf_hash(
            entry_text(
                position,
                fact.STREAM,
                stream_id,
                version,
                fact.TOPIC,
                moment,
                sha256(body).hexdigest(),
            )
        )
        row = (position, stream_id, version, fact.TOPIC, self.last, body, leaf)
        self._tables["ledger_events"].add(row)
        for claim in claims_of(event):
            if claim not in self._claims:
                self._claims.add(claim)
                self._tables["ledger_claims"].add((*claim, stream_id, position))
        for node in self.frontier.append(leaf):
            self._tables["ledger_nodes"].add(Node(*node))

    def settle(self, state: object) -> None:
        """Write the current-state rows of a stream that gets no more events."""
        for table in _TABLES.get(type(state), ()):
            add = self._tables[table.table].add
            for row in table.rows(state):
                add(row)


_TABLES: Final[dict[type, list[InlineProjection]]] = {}
for _table in INLINE:
    _TABLES.setdefault(_table.state, []).append(_table)
