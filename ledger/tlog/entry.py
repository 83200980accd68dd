"""The seven lines that stand for one event in the tree: written, read back strictly, hashed.

It holds the digest of a body, never a body; it knows neither topics nor stream types.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Final
from uuid import UUID

FORMAT: Final = "fedledger-event/v1"

# Every form has one spelling only: two texts for one event would be two leaves.
_ENTRY: Final = re.compile(
    rb"fedledger-event/v1\n"
    rb"position: ([1-9][0-9]{0,18})\n"
    rb"stream: ([a-z][a-z0-9-]{0,31})"
    rb" ([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})\n"
    rb"version: ([1-9][0-9]{0,18})\n"
    rb"topic: ([a-z][a-z0-9.-]{0,99})\n"
    rb"recorded-at: ([0-9]{4}-[0-9]{2}-[0-9]{2}T"
    rb"(?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}\.[0-9]{6}Z)\n"
    rb"body-sha256: ([0-9a-f]{64})\n"
)


class EntryError(ValueError):
    """These bytes are not an entry."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The fields of one entry. `recorded_at` is its 27 characters, `body_sha256` 64 hex digits."""

    position: int
    stream_type: str
    stream_id: UUID
    version: int
    topic: str
    recorded_at: str
    body_sha256: str

    def text(self) -> bytes:
        """The exact bytes that are hashed."""
        return entry_text(
            self.position,
            self.stream_type,
            self.stream_id,
            self.version,
            self.topic,
            self.recorded_at,
            self.body_sha256,
        )


def entry_text(
    position: int,
    stream_type: str,
    stream_id: UUID | str,
    version: int,
    topic: str,
    recorded_at: str,
    body_sha256: str,
) -> bytes:
    """Return the entry's bytes: seven lines, each ended by LF. The caller vouches for the values."""
    return (
        f"{FORMAT}\nposition: {position}\nstream: {stream_type} {stream_id}\nversion: {version}\n"
        f"topic: {topic}\nrecorded-at: {recorded_at}\nbody-sha256: {body_sha256}\n"
    ).encode("ascii")


def parse_entry(data: bytes) -> Entry:
    """Read an entry back; accepts exactly what `entry_text` writes for valid values.

    Raises:
        EntryError: anything else, whatever it is.
    """
    found = _ENTRY.fullmatch(data)
    if found is None:
        raise EntryError("not an entry of seven lines")
    position, stream_type, stream_id, version, topic, recorded_at, digest = (
        group.decode("ascii") for group in found.groups()
    )
    try:
        datetime.fromisoformat(recorded_at)
    except ValueError:
        raise EntryError("not a moment of the calendar") from None
    if max(int(position), int(version)) >= 2**63:
        raise EntryError("a number is out of range")
    return Entry(
        int(position), stream_type, UUID(stream_id), int(version), topic, recorded_at, digest
    )


def leaf_hash(entry: bytes) -> bytes:
    """Return the leaf of an entry: SHA-256(0x00 ‖ entry), RFC 6962 §2.1. 32 bytes."""
    return sha256(b"\x00" + entry).digest()
