"""Values in PostgreSQL's binary form are what psycopg would have sent: it is the oracle here."""

import struct
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.adapt import AdaptersMap, PyFormat, Transformer
from psycopg.types.array import ListBinaryDumper
from psycopg.types.json import Jsonb
from psycopg.types.numeric import Int4, Int8
from psycopg.types.string import StrBinaryDumper

from ledger import packing
from ledger.packing import kind_of

ID = UUID("0d9cb46e-3c2a-4a55-9d0e-6d1b7c7a0f11")
MOMENT = datetime(2026, 11, 23, 15, 7, 8, 123456, UTC)
ELSEWHERE = MOMENT.astimezone(timezone(timedelta(hours=-7)))
EARLY = datetime(1999, 12, 31, 23, 59, 59, 999999, UTC)
BOUNDS = (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC))


class _Context:
    """Of psycopg's dumpers: as text is sent where its type is asked for."""

    connection = None
    adapters = AdaptersMap(psycopg.adapters)
    adapters.register_dumper(str, StrBinaryDumper)


def sent(values: list[Any]) -> bytes:
    """What psycopg makes of a list."""
    dumper = ListBinaryDumper(list, Transformer.from_context(_Context()))
    return bytes(dumper.upgrade(values, PyFormat.BINARY).dump(values))


@pytest.mark.parametrize(
    ("column", "values", "theirs"),
    [
        ("bytea", [b"", b"\x00\xff" * 40], bytes),
        ("text", ["", "Zürich \U0001f310", "x" * 300], str),
        ("peer_state", ["active"], str),
        ("bigint", [0, -1, 2**63 - 1, -(2**63)], Int8),
        ("integer", [0, -1, 2**31 - 1, -(2**31)], Int4),
        ("boolean", [True, False], bool),
        ("uuid", [ID, UUID(int=0), UUID(int=2**128 - 1)], lambda value: value),
        ("timestamptz", [MOMENT, ELSEWHERE, EARLY, *BOUNDS], lambda value: value),
        ("jsonb", ['{"a":["\\"Z\\u00fcrich\\""]}'], lambda text: Jsonb(0, dumps=lambda _: text)),
    ],
)
def test_an_array_is_what_psycopg_would_send(column: str, values: list[Any], theirs: Any) -> None:
    kind = kind_of(column)
    expected = sent([*map(theirs, values), None])
    assert kind.array([*map(kind.item, values), kind.item(None)]) == expected


def test_a_single_value_is_an_item_without_its_length() -> None:
    assert packing.integer(-5) == packing.INT8.item(-5)[4:]
    assert packing.moment(MOMENT) == packing.TIMESTAMPTZ.item(MOMENT)[4:]
    assert packing.real(0.5) == struct.pack("!d", 0.5)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("integer", 2**31),
        ("bigint", 2**63),
        ("bigint", 1.5),
        ("text", "\ud800"),
        ("text", 7),
        ("bytea", 7),
        ("uuid", str(ID)),
        ("timestamptz", datetime(2026, 1, 1)),  # noqa: DTZ001 -- without a zone, to be refused
        ("jsonb", {}),
    ],
)
def test_no_value_of_the_type_is_no_item(column: str, value: object) -> None:
    with pytest.raises((AttributeError, TypeError, ValueError, struct.error)):
        kind_of(column).item(value)


def test_a_column_is_packed_value_by_value_however_often_one_stands_in_it() -> None:
    kind = kind_of("text")
    once, again = "x" * 20, "".join(["x"] * 20)  # equal, and two objects
    for column in ([None, None, once, once, None, again, once, "y"], [once, None, None], []):
        assert list(kind.items(column)) == list(map(kind.item, column))


def test_rows_for_copy_hold_each_value_at_its_place() -> None:
    kinds = [kind_of("bigint"), kind_of("text")]
    rows = [(1, "a"), (1, "a"), (2, "a"), (2, None), (1, None)]
    assert list(packing.copied(kinds, rows)) == [
        b"PGCOPY\n\xff\r\n\x00" + bytes(8),
        b"".join(packing.packed(kinds, row) for row in rows),
        b"\xff\xff",
    ]
    assert packing.packed(kinds, (1, "a")) == (b"\x00\x02" + kinds[0].item(1) + kinds[1].item("a"))
