"""The written form of an export: one line per event, and the manifest as the last line.

It reads no database, signs nothing and checks no whole file: `ledger/export_reading.py` does that.

Each line holds all that is needed to make the event's entry and leaf again, the body's exact bytes
among it. A body stands as it is stored; one that would not stay one line of JSON (which only somebody
who changed the database can have written) stands in base64 instead.
"""

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from types import MappingProxyType
from typing import Final, Literal, TypeAlias
from uuid import UUID

import orjson

from ledger.canonical import canonical_json, format_time, parse_time
from ledger.recorded import RecordedEvent
from ledger.tlog.entry import EntryError, entry_text, leaf_hash, parse_entry

Format: TypeAlias = Literal["jsonl", "csv"]
Pairs: TypeAlias = tuple[tuple[str, str], ...]

TITLE: Final = "fedledger export v1"
"""The first line of a manifest. With its spaces it is no origin, so no checkpoint looks like one."""

_OF_POSITIONS: Final = frozenset({"since", "until"})
MAX_LINE: Final = 256 * 1024
"""Bytes. A body has 60 KiB at most; quoted or in base64, not four times as much."""

_CSV_HEADER: Final = (
    b"position,stream_type,stream,version,topic,recorded_at,leaf,body,body_base64\n"
)
_ID: Final = rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_JSON_LINE: Final = re.compile(
    rb'\{"position":([0-9]+),"stream_type":"([a-z-]+)","stream":"('
    + _ID
    + rb')","version":([0-9]+),'
    rb'"topic":"([a-z0-9.-]+)","recorded_at":"([0-9TZ:.-]{27})","leaf":"([0-9a-f]{64})",'
    rb'"body(?:":(.*)|_base64":"([A-Za-z0-9+/=]*)")\}\n'
)
_CSV_LINE: Final = re.compile(
    rb"([0-9]+),([a-z-]+),(" + _ID + rb"),([0-9]+),([a-z0-9.-]+),([0-9TZ:.-]{27}),([0-9a-f]{64}),"
    rb'(?:"((?:[^"\n]|"")*)",|,([A-Za-z0-9+/=]*))\n'
)
_JSON_LAST: Final = (b'{"manifest":', b"}\n")
_CSV_LAST: Final = (b'manifest,"', b'"\n')
_MANIFEST: Final = re.compile(
    f"{TITLE}\n"
    r"origin: ([a-z0-9.-]+(?:/[a-z0-9.-]+)*)\n"
    r"format: (jsonl|csv)\n"
    r"filter: (\[.*\])\n"
    r"positions: (0|[1-9][0-9]{0,15}) to (0|[1-9][0-9]{0,15})\n"
    r"count: (0|[1-9][0-9]{0,15})\n"
    r"sha256: ([0-9a-f]{64})\n"
    r"tree: (0|[1-9][0-9]{0,15}) ([0-9a-f]{64})\n"
    r"record: (no|[1-9][0-9]{0,15})\n"
    r"made-at: (.{27})\n"
)


class ExportError(ValueError):
    """This is no export, or not the one its manifest speaks of. The text never echoes it."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an export says of itself, to be signed.

    filter: (name, value) of every condition but the bare positions; `since` and `until` only say
    where these come from. first, last: the positions that were
    looked through, inclusive. count: events in the file. sha256: hex, of all its bytes before the
    manifest. tree_size, tree_root (32 bytes): of the whole ledger when the export began.
    record: the position of the event that says who made it; None if it could not be written.
    """

    origin: str
    format: Format
    filter: Pairs
    first: int
    last: int
    count: int
    sha256: str
    tree_size: int
    tree_root: bytes
    record: int | None
    made_at: datetime

    @property
    def selective(self) -> bool:
        """Whether events of these positions were left out by the filter."""
        return any(name not in _OF_POSITIONS for name, _ in self.filter)

    @property
    def whole(self) -> bool:
        """Whether the file holds the whole ledger as it was then."""
        whole = self.first <= 1 and self.last == self.count == self.tree_size
        return whole and not self.selective

    def text(self) -> str:
        """The lines that are signed."""
        pairs = canonical_json([list(pair) for pair in self.filter]).decode()
        return (
            f"{TITLE}\norigin: {self.origin}\nformat: {self.format}\nfilter: {pairs}\n"
            f"positions: {self.first} to {self.last}\ncount: {self.count}\nsha256: {self.sha256}\n"
            f"tree: {self.tree_size} {self.tree_root.hex()}\nrecord: {self.record or 'no'}\n"
            f"made-at: {format_time(self.made_at)}\n"
        )


def parse_manifest(text: str) -> Manifest:
    """Read a manifest's text back; accepts exactly what `Manifest.text` writes.

    Raises:
        ExportError: anything else.
    """
    found = _MANIFEST.fullmatch(text)
    if found is None:
        raise ExportError("the signed text is no manifest of an export")
    origin, kind, pairs, first, last, count, digest, size, root, record, made_at = found.groups()
    try:
        manifest = Manifest(
            origin=origin,
            format="csv" if kind == "csv" else "jsonl",
            filter=tuple((str(name), str(value)) for name, value in orjson.loads(pairs)),
            first=int(first),
            last=int(last),
            count=int(count),
            sha256=digest,
            tree_size=int(size),
            tree_root=bytes.fromhex(root),
            record=None if record == "no" else int(record),
            made_at=parse_time(made_at),
        )
    except (ValueError, TypeError):
        raise ExportError("the manifest holds a value that it cannot have") from None
    if manifest.text() != text:
        raise ExportError("the manifest is not written as one")
    return manifest


def header(kind: Format) -> bytes:
    """What stands before the first event."""
    return _CSV_HEADER if kind == "csv" else b""


def json_line(event: RecordedEvent) -> bytes:
    """One event as a line of JSON. Raises KeyError for a topic outside the registry."""
    values = (
        f'{{"position":{event.position},"stream_type":"{event.stream_type}",'
        f'"stream":"{event.stream_id}","version":{event.version},"topic":"{event.topic}",'
        f'"recorded_at":"{format_time(event.recorded_at)}","leaf":"{event.leaf.hex()}",'
    ).encode()
    if _stays_one_line(event.body):
        return b'%b"body":%b}\n' % (values, event.body)
    return b'%b"body_base64":"%b"}\n' % (values, base64.b64encode(event.body))


def csv_line(event: RecordedEvent) -> bytes:
    """One event as a record of RFC 4180. Raises KeyError for a topic outside the registry."""
    values = (
        f"{event.position},{event.stream_type},{event.stream_id},{event.version},{event.topic},"
        f"{format_time(event.recorded_at)},{event.leaf.hex()},"
    ).encode()
    if _stays_one_line(event.body):
        return b'%b"%b",\n' % (values, event.body.replace(b'"', b'""'))
    return b"%b,%b\n" % (values, base64.b64encode(event.body))


LINES: Final[Mapping[Format, Callable[[RecordedEvent], bytes]]] = MappingProxyType(
    {"jsonl": json_line, "csv": csv_line}
)
"""How each format writes one event."""


def last_line(kind: Format, note: str) -> bytes:
    """The line that ends an export: its signed manifest."""
    text = orjson.dumps(note)
    if kind == "csv":
        return text.replace(b'"', b'""').join(_CSV_LAST)
    return text.join(_JSON_LAST)


def note_in(kind: Format, line: bytes) -> bytes | None:
    """The signed manifest in a last line; None for any other line.

    Raises:
        ExportError: it begins as a last line does, and holds something else.
    """
    begin, end = _CSV_LAST if kind == "csv" else _JSON_LAST
    if not line.startswith(begin):
        return None
    text = line.removeprefix(begin).removesuffix(end)
    try:
        note = orjson.loads(text.replace(b'""', b'"') if kind == "csv" else text)
    except ValueError:
        note = None
    if not isinstance(note, str) or last_line(kind, note) != line:
        raise ExportError("the last line is no manifest")
    return note.encode()


def parse_line(kind: Format, line: bytes) -> RecordedEvent:
    """The event of one line; its leaf is recomputed from all its values.

    Raises:
        ExportError: not a line of this form, or a leaf that is not its own.
    """
    found = (_CSV_LINE if kind == "csv" else _JSON_LINE).fullmatch(line)
    if found is None:
        raise ExportError("a line is not of this form")
    position, stream_type, stream, version, topic, recorded_at, leaf, plain, encoded = (
        found.groups()
    )
    try:
        body = base64.b64decode(encoded, validate=True) if plain is None else plain
        if plain is not None and kind == "csv":
            body = plain.replace(b'""', b'"')
        event = RecordedEvent(
            int(position),
            UUID(stream.decode()),
            int(version),
            topic.decode(),
            parse_time(recorded_at.decode()),
            body,
            bytes.fromhex(leaf.decode()),
        )
        # With the line's own stream type: a topic of a later release is evidence all the same.
        entry = _entry(event, stream_type.decode(), recorded_at.decode())
    except (ValueError, EntryError):
        raise ExportError("a line holds a value that no event can have") from None
    if leaf_hash(entry) != event.leaf:
        raise ExportError(f"position {event.position}: the leaf is not that of these values")
    return event


def _entry(event: RecordedEvent, stream_type: str, recorded_at: str) -> bytes:
    entry = entry_text(
        event.position,
        stream_type,
        event.stream_id,
        event.version,
        event.topic,
        recorded_at,
        sha256(event.body).hexdigest(),
    )
    parse_entry(entry)
    return entry


def _stays_one_line(body: bytes) -> bool:
    if b"\n" in body or b"\r" in body:
        return False
    try:
        orjson.loads(body)
    except ValueError:
        return False
    return True
