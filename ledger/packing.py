"""PostgreSQL's binary form of what is stored: items, arrays of them, and rows for COPY.

An item is packed once, in the thread of whoever asks; the one thread that commits for all only joins
items. It holds no statement and sends nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from struct import Struct
from typing import Any, Final, NamedTuple
from uuid import UUID

NULL: Final = b"\xff\xff\xff\xff"
"""The item that is no value: a length of -1."""
LENGTH: Final = 4
"""Bytes before an item's value: as many as a statement's own parameter has no need of."""

# PostgreSQL documentation, 54.7: a length before every item; array_send() in arrayfuncs.c: number of
# dimensions, whether there may be NULLs, the items' type, then how many and from which index.
_length: Final = Struct(">i").pack
_header: Final = Struct(">iiIii").pack
_number: Final = Struct(">iq").pack
_small: Final = Struct(">ii").pack
_real: Final = Struct(">d").pack
_integer: Final = Struct(">q").pack
_columns: Final = Struct(">h").pack
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_TRAILER: Final = b"\xff\xff"
_BLOCK: Final = 500  # rows


class Kind(NamedTuple):
    """A type of items. `name` in SQL, `oid` as in pg_type, where those of built-in types never change.

    `item`: value or None → the item. Raises AttributeError, TypeError, ValueError or struct.error:
    it is no value of this type.
    """

    name: str
    oid: int
    item: Callable[[Any], bytes]

    def items(self, values: Iterable[object]) -> Iterator[bytes]:
        """Yield the items of a column's values, packing once what stands in it several times running.

        A history shows most values of a row again in the next one: the same objects, so that it takes
        no comparing.
        """
        item, packed = self.item, NULL
        before = None
        for value in values:
            if value is not before:
                before, packed = value, item(value)
            yield packed

    def array(self, items: Sequence[bytes]) -> bytes:
        """Return the array of these items; one at least."""
        return _header(1, 1, self.oid, len(items), 1) + b"".join(items)


def _octets(value: bytes | None) -> bytes:
    return NULL if value is None else _length(len(value)) + value


def _text(value: str | None) -> bytes:
    if value is None:
        return NULL
    return _length(len(octets := value.encode())) + octets


def _json(value: str | None) -> bytes:
    return NULL if value is None else _octets(b"\x01" + value.encode())  # the version of the form


def _uuid(value: UUID | None) -> bytes:
    return NULL if value is None else b"\x00\x00\x00\x10" + value.int.to_bytes(16, "big")


def _int8(value: int | None) -> bytes:
    return NULL if value is None else _number(8, value)


def _int4(value: int | None) -> bytes:
    return NULL if value is None else _small(4, value)


def _moment(value: datetime | None) -> bytes:
    return NULL if value is None else _number(8, (value - _EPOCH) // _MICROSECOND)


def _truth(value: bool | None) -> bytes:
    return NULL if value is None else b"\x00\x00\x00\x01" + (b"\x01" if value else b"\x00")


BYTEA: Final = Kind("bytea", 17, _octets)
INT8: Final = Kind("int8", 20, _int8)
TEXT: Final = Kind("text", 25, _text)
TIMESTAMPTZ: Final = Kind("timestamptz", 1184, _moment)
UUIDS: Final = Kind("uuid", 2950, _uuid)

_KINDS: Final = {
    "boolean": Kind("bool", 16, _truth),
    "bytea": BYTEA,
    "bigint": INT8,
    "integer": Kind("int4", 23, _int4),
    "jsonb": Kind("jsonb", 3802, _json),
    "timestamptz": TIMESTAMPTZ,
    "uuid": UUIDS,
}


def kind_of(column: str) -> Kind:
    """How values of a column of this type travel; every other type's as its text."""
    return _KINDS.get(column, TEXT)


def integer(value: int) -> bytes:
    """Return a single int8."""
    return _integer(value)


def real(value: float) -> bytes:
    """Return a single float8."""
    return _real(value)


def moment(value: datetime) -> bytes:
    """Return a single timestamptz of an aware moment."""
    return _moment(value)[LENGTH:]


def packed(kinds: Sequence[Kind], row: Sequence[object]) -> bytes:
    """Return a row as COPY takes it in binary: how many items, and they."""
    return _packed(kinds, [row])


def _packed(kinds: Sequence[Kind], rows: Sequence[Sequence[object]]) -> bytes:
    # Column by column: going through each row's values would take as long as packing them.
    columns = zip(*rows, strict=True)
    items = [kind.items(values) for kind, values in zip(kinds, columns, strict=True)]
    head = [_columns(len(kinds))] * len(rows)
    return b"".join(chain.from_iterable(zip(head, *items, strict=True)))


def framed(rows: Iterable[bytes]) -> Iterator[bytes]:
    """Yield what `COPY … FROM STDIN (FORMAT binary)` is given for these packed rows, signature and
    trailer included (PostgreSQL documentation, COPY, "Binary Format")."""
    yield _SIGNATURE
    yield from rows
    yield _TRAILER


def copied(kinds: Sequence[Kind], rows: Sequence[Sequence[object]]) -> Iterator[bytes]:
    """Yield what COPY is given for these rows, many at a time."""
    blocks = (rows[first : first + _BLOCK] for first in range(0, len(rows), _BLOCK))
    return framed(_packed(kinds, block) for block in blocks)
