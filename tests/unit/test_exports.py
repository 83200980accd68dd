"""Exports written, read back, and every way in which one may lie."""

import io
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ledger.canonical import parse_time
from ledger.export_reading import ExportReader
from ledger.exports import (
    LINES,
    ExportError,
    Format,
    Manifest,
    header,
    last_line,
    note_in,
    parse_line,
    parse_manifest,
)
from ledger.recorded import RecordedEvent
from ledger.tlog.entry import leaf_hash
from ledger.tlog.merkle import root_of
from ledger.tlog.note import VerifierKey, sign, verifier_key
from support.pages import blocks

ORIGIN = "test.example/fedledger"
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = VerifierKey(ORIGIN, PRIVATE.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
NOW = datetime(2026, 11, 26, 21, 0, tzinfo=UTC)
EXAMPLES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "events.json").read_text()
)
FORMATS: tuple[Format, ...] = ("jsonl", "csv")


def recorded(number: int, body: bytes | None = None) -> RecordedEvent:
    """The number-th golden event at position `number`, with its own leaf."""
    example = EXAMPLES[number - 1]
    event = RecordedEvent(
        number,
        UUID(example["stream_id"]),
        example["version"],
        example["topic"],
        parse_time(example["recorded_at"]),
        example["body"].encode() if body is None else body,
        b"",
    )
    return replace(event, leaf=leaf_hash(event.entry))


EVENTS = [recorded(number) for number in range(1, len(EXAMPLES) + 1)]


def exported(kind: Format, events: Sequence[RecordedEvent] = EVENTS, **changes: Any) -> bytes:
    """An export of these events, as the service makes it; `changes` of its manifest."""
    data = header(kind) + b"".join(map(LINES[kind], events))
    manifest = Manifest(
        origin=ORIGIN,
        format=kind,
        filter=(),
        first=1,
        last=len(EVENTS),
        count=len(events),
        sha256=sha256(data).hexdigest(),
        tree_size=len(EVENTS),
        tree_root=root_of(event.leaf for event in EVENTS),
        record=len(EVENTS) + 1,
        made_at=NOW,
    )
    note = sign(replace(manifest, **changes).text(), KEY, PRIVATE.sign)
    return data + last_line(kind, note)


def read(data: bytes) -> tuple[list[RecordedEvent], ExportReader]:
    reader = ExportReader(io.BytesIO(data))
    return list(reader.events()), reader


@pytest.mark.parametrize("kind", FORMATS)
def test_what_was_written_is_read_back(kind: Format) -> None:
    events, reader = read(exported(kind))
    assert events == EVENTS
    verified = reader.verify([KEY])
    assert verified.signers == (ORIGIN,)
    assert verified.root_shown
    assert verified.manifest.record == len(EVENTS) + 1


def test_a_line_of_json_is_json() -> None:
    line = json.loads(LINES["jsonl"](EVENTS[0]))
    assert line["position"] == 1
    assert line["body"] == json.loads(EXAMPLES[0]["body"])


def test_a_record_of_csv_is_csv() -> None:
    import csv

    rows = list(csv.DictReader(io.StringIO(exported("csv").decode())))
    assert rows[0]["body"] == EXAMPLES[0]["body"]
    assert rows[0]["recorded_at"] == EXAMPLES[0]["recorded_at"]
    assert rows[-1]["position"] == "manifest"


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("body", [b"{\n}", b"\xff\x00", b"", b'{"a":"\r"}', b"not json"])
def test_a_body_that_is_no_json_is_kept_too(kind: Format, body: bytes) -> None:
    event = recorded(1, body)
    assert parse_line(kind, LINES[kind](event)) == event


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("chosen", [EVENTS[3:9], EVENTS[5:6], []], ids=["some", "one", "none"])
def test_a_part(kind: Format, chosen: list[RecordedEvent]) -> None:
    data = exported(kind, chosen, filter=(("topic", "any"),))
    events, reader = read(data)
    assert events == chosen
    assert not reader.verify([KEY]).root_shown


def test_a_time_range_is_complete() -> None:
    since = (("since", "2026-01-01T00:00:00.000000Z"),)
    read(exported("jsonl", EVENTS[2:], filter=since, first=3))
    with pytest.raises(ExportError, match="missing"):
        read(exported("jsonl", EVENTS[3:], filter=since, first=3))


def test_a_manifest_is_golden() -> None:
    manifest = Manifest(
        ORIGIN, "jsonl", (("reason", "lost “key”"),), 1, 9, 2, "ab" * 32, 12, bytes(32), None, NOW
    )
    text = (
        "fedledger export v1\norigin: test.example/fedledger\nformat: jsonl\n"
        'filter: [["reason","lost “key”"]]\npositions: 1 to 9\ncount: 2\n'
        f"sha256: {'ab' * 32}\ntree: 12 {'00' * 32}\nrecord: no\n"
        "made-at: 2026-11-26T21:00:00.000000Z\n"
    )
    assert manifest.text() == text
    assert parse_manifest(text) == manifest


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fedledger export v2\n",
        Manifest(ORIGIN, "csv", (), 1, 1, 1, "0" * 64, 1, bytes(32), 1, NOW).text() + "more\n",
        Manifest(ORIGIN, "csv", (), 1, 1, 1, "0" * 64, 1, bytes(32), 1, NOW)
        .text()
        .replace("filter: []", 'filter: [["a"]]'),
        Manifest(ORIGIN, "csv", (), 1, 1, 1, "0" * 64, 1, bytes(32), 1, NOW)
        .text()
        .replace("filter: []", "filter: [ ]"),
        Manifest(ORIGIN, "csv", (), 1, 1, 1, "0" * 64, 1, bytes(32), 1, NOW)
        .text()
        .replace("2026-11-26", "2026-13-26"),
    ],
)
def test_no_manifest(text: str) -> None:
    with pytest.raises(ExportError):
        parse_manifest(text)


def _without(number: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        lines = data.splitlines(keepends=True)
        return b"".join(lines[:number] + lines[number + 1 :])

    return change


LIES: dict[str, Callable[[bytes], bytes]] = {
    "a body changed": lambda data: data.replace(b"192.0.2.7", b"192.0.2.8", 1),
    "a topic changed": lambda data: data.replace(b"grant.approved.v1", b"grant.revoked.v1", 1),
    "a leaf changed": lambda data: data.replace(EVENTS[4].leaf.hex().encode(), b"0" * 64),
    "a line left out": _without(7),
    "the last line left out": _without(len(EVENTS)),
    "a line twice": lambda data: b"".join(
        line * (1 + (number == 3)) for number, line in enumerate(data.splitlines(keepends=True))
    ),
    "cut off": lambda data: data[:-200],
    "cut off at a line": lambda data: b"".join(data.splitlines(keepends=True)[:-1]),
    "something behind": lambda data: data + b"\n",
    "nothing at all": lambda _: b"",
    "another file": lambda _: b"hello\n",
    "no end of line": lambda data: data.replace(b"\n", b" "),
    "the manifest changed": lambda data: data.replace(b"count: ", b"count: 1"),
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_found(kind: Format, lie: str) -> None:
    data = exported(kind)
    changed = LIES[lie](data)
    assert changed != data
    with pytest.raises(ExportError):
        read(changed)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"format": "csv"}, "format"),
        ({"sha256": "0" * 64}, "bytes"),
        ({"count": 7}, "number of events"),
        ({"last": 3, "filter": (("topic", "x"),)}, "outside"),
        ({"first": 2, "filter": (("topic", "x"),)}, "outside"),
        ({"tree_size": 9, "filter": (("topic", "x"),)}, "outside"),
        ({"tree_root": bytes(32)}, "root"),
    ],
)
def test_a_manifest_of_something_else(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(ExportError, match=what):
        read(exported("jsonl", **changes))


def test_the_digest_alone_shows_a_line_that_is_right_in_itself() -> None:
    # Another event with a right leaf: only the digest, and here the root, tell.
    other = replace(EVENTS[0], version=9)
    other = replace(other, leaf=leaf_hash(other.entry))
    data = exported("jsonl")
    changed = data.replace(LINES["jsonl"](EVENTS[0]), LINES["jsonl"](other))
    with pytest.raises(ExportError, match="bytes"):
        read(changed)


def test_whose_signature_it_is() -> None:
    _, reader = read(exported("jsonl"))
    other = VerifierKey(ORIGIN, bytes(31) + b"\x01")
    with pytest.raises(ExportError, match="no known key"):
        reader.verify([other])
    assert reader.verify([other, KEY]).signers == (ORIGIN,)
    foreign = VerifierKey("other.example", KEY.public_key)
    data = exported("jsonl")
    manifest = reader.manifest.text()
    note = sign(manifest, foreign, PRIVATE.sign)
    _, reader = read(b"".join(data.splitlines(keepends=True)[:-1]) + last_line("jsonl", note))
    with pytest.raises(ExportError, match="another ledger"):
        reader.verify([foreign])


def test_nothing_is_verified_before_the_end() -> None:
    reader = ExportReader(io.BytesIO(exported("jsonl")))
    next(reader.events())
    with pytest.raises(ExportError, match="to its end"):
        reader.verify([KEY])


@pytest.mark.parametrize("kind", FORMATS)
def test_only_the_last_line_is_one(kind: Format) -> None:
    assert note_in(kind, LINES[kind](EVENTS[0])) is None
    assert note_in(kind, last_line(kind, 'a "note"\nof two lines\n')) == b'a "note"\nof two lines\n'


def test_the_documented_check_needs_nothing_of_ours(tmp_path: Path) -> None:
    ((_, script),) = blocks("reference/export.md", "python")
    (tmp_path / "check.py").write_text(script)

    def checked(data: bytes, key: str = verifier_key(ORIGIN, KEY.public_key)) -> str:
        (tmp_path / "x.jsonl").write_bytes(data)
        ended = subprocess.run(
            [sys.executable, "-I", "check.py", "x.jsonl", key],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return ended.stdout if ended.returncode == 0 else "refused"

    assert checked(exported("jsonl")) == "the whole ledger, to its root\n"
    some = exported("jsonl", EVENTS[3:9], filter=(("topic", "any"),))
    assert checked(some) == "these events, unaltered\n"
    assert checked(LIES["a body changed"](exported("jsonl"))) == "refused"
    assert checked(exported("jsonl", tree_root=bytes(32))) == "refused"
    assert checked(exported("jsonl"), verifier_key(ORIGIN, bytes(31) + b"\x01")) == "refused"
