"""Canonical JSON judged by the independent rfc8785 package, and the one form of a moment."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from enum import IntEnum, StrEnum
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from ledger.canonical import MAX_INTEGER, CanonicalError, canonical_json, format_time, parse_time

ascii_keys = st.text(st.characters(max_codepoint=127), max_size=8)
texts = st.text(st.characters(exclude_categories=["Cs"]))
# The judge stops one short of 2^53, see test_the_largest_integers.
leaves = st.none() | st.booleans() | texts | st.integers(-MAX_INTEGER + 1, MAX_INTEGER - 1)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner) | st.dictionaries(ascii_keys, inner) | st.lists(inner).map(tuple),
    max_leaves=30,
)


@given(values)
def test_agrees_with_an_independent_implementation(value: Any) -> None:
    assert canonical_json(value) == rfc8785.dumps(value)


def test_the_escapes_of_rfc_8785() -> None:
    assert canonical_json('\x00\x08\t\n\x0b\x0c\r\x1f"\\/\x7fé\u2028😀') == (
        '"\\u0000\\b\\t\\n\\u000b\\f\\r\\u001f\\"\\\\/\x7fé\u2028😀"'.encode()
    )


def test_the_largest_integers() -> None:
    assert canonical_json([MAX_INTEGER, -MAX_INTEGER]) == b"[9007199254740992,-9007199254740992]"
    for number in (MAX_INTEGER + 1, -MAX_INTEGER - 1, 2**64, 10**400):
        with pytest.raises(CanonicalError, match="larger than 2"):
            canonical_json({"n": [number]})


class Word(StrEnum):
    A = "a"


class Number(IntEnum):
    ONE = 1


class Text(str):
    __slots__ = ()


@dataclass
class Point:
    x: int


def cycle() -> list[object]:
    value: list[object] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value",
    [
        1.0,
        float("nan"),
        float("inf"),
        b"bytes",
        Word.A,
        Number.ONE,
        Text("a"),
        Point(1),
        uuid.UUID(int=0),
        datetime(2026, 1, 1, tzinfo=UTC),
        {1, 2},
        object(),
        "\ud800",
        {"\ud800": 1},
        {"é": 1},
        {1: 1},
        {Text("a"): 1},
        {None: 1},
        cycle(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_everything_else_is_refused(value: object) -> None:
    for wrapped in (value, [value], {"a": {"b": (value,)}}, {"é": 1, "v": value}):
        with pytest.raises(CanonicalError):
            canonical_json(wrapped)


def test_excessive_depth_is_refused() -> None:
    value: object = None
    for _ in range(100_000):
        value = [value]
    with pytest.raises(CanonicalError, match="deeply"):
        canonical_json(value)
    while isinstance(value, list):  # or freeing it would recurse
        value = value.pop()


@given(st.datetimes(timezones=st.timezones() | st.just(UTC)))
def test_a_moment_survives_its_text(moment: datetime) -> None:
    try:
        text = format_time(moment)
    except ValueError:
        assert moment.year in (1, 9999)
        return
    assert len(text) == 27
    # Compared in UTC: Python calls a wall-clock time that occurs twice unequal to any other.
    assert parse_time(text) == moment.astimezone(UTC)
    assert parse_time(text).utcoffset() == timedelta(0)


def test_the_form_of_a_moment() -> None:
    moment = datetime(2026, 11, 23, 16, 7, 8, tzinfo=timezone(timedelta(hours=1)))
    assert format_time(moment) == "2026-11-23T15:07:08.000000Z"
    assert format_time(datetime(7, 1, 2, tzinfo=UTC)) == "0007-01-02T00:00:00.000000Z"
    with pytest.raises(ValueError, match="without a time zone"):
        format_time(datetime(2026, 11, 23, tzinfo=UTC).replace(tzinfo=None))


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-23T15:07:08Z",
        "2026-11-23T15:07:08.123456z",
        "2026-11-23 15:07:08.123456Z",
        "2026-11-23T15:07:08,123456Z",
        "2026-11-23T15:07:60.000000Z",
        "2026-11-23T24:00:00.000000Z",
        "2026-02-29T15:07:08.123456Z",
        "2026-11-23T15:07:08.12+00:0",
        "2026-11-23T15:07:08.1234567",
        "2026-11-23T15:07:08.123456Z\n",
        "\uff12026-11-23T15:07:08.123456Z",
        "",
        None,
        20261123,
    ],
)
def test_no_other_form_is_read(text: object) -> None:
    with pytest.raises(ValueError, match="not a time of the form"):
        parse_time(text)  # type: ignore[arg-type]


@given(st.text())
def test_reading_a_moment_raises_nothing_but_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="not a time of the form"):
        parse_time(text)
