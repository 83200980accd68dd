"""What is handed over to be appended, made ready in the thread of whoever asks.

Hashing and encoding happen here, before the queue, so that a hostile value fails its own caller and
the one thread that commits for all has little left to do. It touches no database.
"""

import re
import struct
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any, Final, NamedTuple
from uuid import UUID

from ledger.errors import InvalidError, RefusedError
from ledger.packing import BYTEA, INT8, TEXT, UUIDS, Kind, kind_of

# Index rows are limited to a third of a page (2704 bytes); a claim's key is a digest or a name.
MAX_KEY: Final = 1000

_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
_TYPE: Final = re.compile(r"[a-z][a-z0-9_]*(\[\])?")


def _whole(state: object) -> object:
    return state


@dataclass(frozen=True, eq=False)
class InlineProjection:
    """A current-state table whose rows travel with the append that changes them.

    `columns`: (name, Postgres type) in the order of a row's values. A `jsonb` value is canonical
    JSON text, `bytea` is bytes, `timestamptz` an aware datetime, `uuid` a UUID: all hashable.
    `key`: the columns that identify a row. `rows`: all rows of one state, pure. `stream`: the column
    that holds the id of the state's stream, so that a table can be compared stream by stream. `part`:
    what of a state its rows are made of, so that they need not be made again while it is the same.
    `row`, where that is a mapping: the row of (state, one of its values), made of the value alone.
    """

    table: str
    state: type
    columns: tuple[tuple[str, str], ...]
    key: tuple[str, ...]
    rows: Callable[[Any], Iterable[tuple[object, ...]]]
    stream: str = "id"
    part: Callable[[Any], Any] = _whole
    row: Callable[[Any, Any], tuple[object, ...]] | None = None

    def __post_init__(self) -> None:
        # These become SQL text; they come from code, and here that is made sure of.
        names = [self.table, *self.names, *self.key]
        types = [kind for _, kind in self.columns]
        if not all(map(_NAME.fullmatch, names)) or not all(map(_TYPE.fullmatch, types)):
            raise ValueError(f"{self.table}: names and types are plain lower-case identifiers")
        if not self.key or not set(self.key) <= set(self.names):
            raise ValueError(f"{self.table}: the key is made of its columns")
        if (self.stream, "uuid") not in self.columns:
            raise ValueError(f"{self.table}: the stream's column is a uuid")

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.columns)

    @cached_property
    def kinds(self) -> tuple[Kind, ...]:
        """How the columns' values travel."""
        return tuple(kind_of(kind) for _, kind in self.columns)

    def changed(self, old: object | None, new: object) -> set[tuple[object, ...]]:
        """The rows of `new` that `old` did not have."""
        if old is None:
            return set(self.rows(new))
        return set(self.touched(old, new)) - set(self.touched(new, old))

    def touched(self, old: object | None, new: object) -> Iterable[tuple[object, ...]]:
        """The rows of `new` that are made of anything that `old` did not have; some may be the same."""
        if old is None:
            return self.rows(new)
        before, now = self.part(old), self.part(new)
        if before is now:
            return ()
        if self.row is None:
            return self.rows(new)
        return [self.row(new, one) for key, one in now.items() if before.get(key) is not one]


class Draft(NamedTuple):
    """One event that has no position yet."""

    stream_id: UUID
    version: int
    topic: str
    body: bytes


class Claim(NamedTuple):
    """Something that may exist once only, held by the stream of the `event`-th draft (from 0)."""

    kind: str
    key: str
    event: int


@dataclass(frozen=True, slots=True)
class Idempotency:
    """Whose call this is, so that its repeat is answered and not done again.

    `credential`: the accessor. `body_sha256`: of the request's body, lower-case hex.
    """

    credential: str
    method: str
    path: str
    key: str
    body_sha256: str

    @property
    def name(self) -> tuple[str, str, str, str]:
        """What identifies the call; another body under the same name is a mistake."""
        return (self.credential, self.method, self.path, self.key)


class VersionConflictError(Exception):
    """A stream already has an event of this version."""


class StaleReadError(Exception):
    """A stream that was read has moved on; whoever decided on it must decide anew."""


class IdempotencyTakenError(Exception):
    """A call of this name has appended already."""


class ClaimTakenError(RefusedError):
    """Something that may exist once only exists already, in `stream_id`."""

    code = "claim-taken"

    def __init__(self, kind: str, key: str, stream_id: UUID) -> None:
        super().__init__("this exists already", kind=kind, stream_id=str(stream_id))
        self.kind = kind
        self.key = key
        self.stream_id = stream_id


class Packed(NamedTuple):
    """What an append stores, as items (`ledger/packing.py`) in the order of each table's columns.

    Positions and times are not known yet: events lack theirs and their leaf, claims their position,
    the call's record its first position and number of events.
    """

    events: Sequence[tuple[bytes, ...]]
    claims: Sequence[tuple[bytes, ...]]
    calls: Sequence[tuple[bytes, ...]]  # one or none
    rows: Mapping[InlineProjection, Sequence[tuple[bytes, ...]]]


class Append(NamedTuple):
    """One append, ready: `digests` are the bodies' SHA-256 in hex; `packed`, what is stored.

    `writes`: its streams, claims and call, of which two appends in one batch may share none.
    `needs`: those and the streams it read, which nobody before it in the batch may write.
    """

    events: Sequence[Draft]
    reads: Mapping[UUID, int]
    claims: Sequence[Claim]
    idempotency: Idempotency | None
    digests: Sequence[str]
    packed: Packed
    writes: frozenset[Hashable]
    needs: frozenset[Hashable]


def prepare(
    events: Sequence[Draft],
    *,
    reads: Mapping[UUID, int],
    claims: Sequence[Claim],
    rows: Mapping[InlineProjection, Collection[tuple[object, ...]]],
    idempotency: Idempotency | None,
) -> Append:
    """Make an append ready for the sequencer.

    `reads`: for every stream the decision used but does not write, the version it folded (0 when
    there was none).

    Raises:
        InvalidError: a value that no database text can hold, or a key that is too long.
    """
    packed = Packed(
        [
            (_uuid(event.stream_id), _int8(event.version), _text(event.topic), _bytea(event.body))
            for event in events
        ],
        [
            (_key(claim.kind), _key(claim.key), _uuid(events[claim.event].stream_id))
            for claim in claims
        ],
        [(*map(_key, idempotency.name), _key(idempotency.body_sha256))] if idempotency else [],
        {table: [_packed_row(table, row) for row in some] for table, some in rows.items() if some},
    )
    digests = [sha256(event.body).hexdigest() for event in events]
    # UUIDs, pairs and fours: of different kinds, never equal.
    writes = frozenset(
        [event.stream_id for event in events]
        + [(claim.kind, claim.key) for claim in claims]
        + ([idempotency.name] if idempotency else [])
    )
    needs = writes.union(reads)
    return Append(events, reads, claims, idempotency, digests, packed, writes, needs)


_uuid, _int8, _text, _bytea = UUIDS.item, INT8.item, TEXT.item, BYTEA.item


def _key(text: str) -> bytes:
    """The item of a text that stands in a unique index."""
    if "\x00" in text or len(text) > MAX_KEY:
        raise InvalidError("a text holds a NUL or is too long")
    try:
        return _text(text)
    except UnicodeEncodeError:
        raise InvalidError("a text is not Unicode") from None


def _packed_row(table: InlineProjection, row: tuple[object, ...]) -> tuple[bytes, ...]:
    try:
        return tuple([kind.item(value) for kind, value in zip(table.kinds, row, strict=True)])
    except (AttributeError, TypeError, ValueError, struct.error):
        raise InvalidError(f"a value does not fit a row of {table.table}") from None
