"""The seven lines of an entry: golden bytes, and a parser that accepts nothing else."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.canonical import format_time
from ledger.events import TOPICS, stream_type
from ledger.tlog.entry import Entry, EntryError, leaf_hash, parse_entry

GOLDEN = (
    b"fedledger-event/v1\n"
    b"position: 41\n"
    b"stream: grant 0d9cb46e-7a31-4c52-9d1e-5b8f6a2c3d4e\n"
    b"version: 3\n"
    b"topic: grant.approved.v1\n"
    b"recorded-at: 2026-11-23T15:07:08.123456Z\n"
    b"body-sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n"
)
ENTRY = Entry(
    position=41,
    stream_type="grant",
    stream_id=UUID("0d9cb46e-7a31-4c52-9d1e-5b8f6a2c3d4e"),
    version=3,
    topic="grant.approved.v1",
    recorded_at="2026-11-23T15:07:08.123456Z",
    body_sha256="e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
)

numbers = st.integers(1, 2**63 - 1)
topics = st.sampled_from(sorted(TOPICS))
times = st.datetimes(timezones=st.just(UTC)).map(format_time)
digests = st.binary(min_size=32, max_size=32).map(bytes.hex)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    topic = draw(topics)
    return Entry(
        draw(numbers), stream_type(topic), draw(st.uuids()), draw(numbers), topic, draw(times),
        draw(digests),
    )  # fmt: skip


def test_golden_bytes_and_leaf() -> None:
    assert ENTRY.text() == GOLDEN
    assert parse_entry(GOLDEN) == ENTRY
    assert (
        leaf_hash(GOLDEN).hex()
        == "1bbddb45a5ba3e8fa1507c9e5c28ca2d2261b4516d6e21a7601d351886919fa8"
    )


@given(entries())
def test_what_is_written_is_read_back(entry: Entry) -> None:
    assert parse_entry(entry.text()) == entry


@given(entries(), st.integers(0, 400), st.binary(min_size=1, max_size=3))
def test_a_changed_entry_is_another_entry_or_none(entry: Entry, at: int, other: bytes) -> None:
    text = entry.text()
    changed = text[:at] + other + text[at + len(other) :]
    try:
        read = parse_entry(changed)
    except EntryError:
        return
    assert read.text() == changed


@given(st.binary())
def test_nothing_else_is_accepted(data: bytes) -> None:
    with pytest.raises(EntryError):
        parse_entry(data)


@pytest.mark.parametrize(
    "wrong",
    [
        GOLDEN[:-1],
        GOLDEN + b"\n",
        GOLDEN.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + GOLDEN,
        GOLDEN.replace(b"/v1", b"/v2", 1),
        GOLDEN.replace(b": 41", b": 041"),
        GOLDEN.replace(b": 41", b": 0"),
        GOLDEN.replace(b": 41", b": +41"),
        GOLDEN.replace(b": 41", b":41"),
        GOLDEN.replace(b": 41", b": 9223372036854775808"),
        GOLDEN.replace(b": 3\n", b": 9223372036854775808\n"),
        GOLDEN.replace(b": 3\n", b": 3 \n"),
        GOLDEN.replace(b"0d9c", b"0D9C"),
        GOLDEN.replace(b"0d9cb46e-7a31", b"0d9cb46e7a31"),
        GOLDEN.replace(b"stream: grant", b"stream: Grant"),
        GOLDEN.replace(b"15:07:08.123456Z", b"15:07:08.123456+00:00"),
        GOLDEN.replace(b"15:07:08.123456Z", b"15:07:08.123Z"),
        GOLDEN.replace(b"T15", b"T24"),
        GOLDEN.replace(b":08.", b":60."),
        GOLDEN.replace(b"2026-11-23", b"2026-02-30"),
        GOLDEN.replace(b"2026-11-23", b"0000-11-23"),
        GOLDEN.replace(b"e3b0", b"E3B0"),
        GOLDEN.replace(b"body-sha256", b"body-sha512"),
        GOLDEN.replace(b"position: 41\n", b""),
        "41".encode("utf-16"),
    ],
)
def test_one_spelling_only(wrong: bytes) -> None:
    with pytest.raises(EntryError):
        parse_entry(wrong)


def test_every_field_is_in_the_leaf() -> None:
    others = [
        replace(ENTRY, position=42),
        replace(ENTRY, stream_type="peer"),
        replace(ENTRY, stream_id=UUID(int=1)),
        replace(ENTRY, version=4),
        replace(ENTRY, topic="grant.rejected.v1"),
        replace(ENTRY, recorded_at=format_time(datetime(2026, 1, 1, tzinfo=UTC))),
        replace(ENTRY, body_sha256="0" * 64),
    ]
    leaves = {leaf_hash(entry.text()) for entry in (ENTRY, *others)}
    assert len(leaves) == 8
