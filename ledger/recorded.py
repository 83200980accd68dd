"""One event as it is stored: its values, its bytes, and the entry they make. It reads no storage."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

import orjson

from ledger.canonical import format_time
from ledger.events import Event, stream_type
from ledger.mapper import StoredEventError, read_event
from ledger.terms import matches, terms_of
from ledger.tlog.entry import entry_text


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """One stored row. `body` and `leaf` are the stored bytes."""

    position: int
    stream_id: UUID
    version: int
    topic: str
    recorded_at: datetime
    body: bytes
    leaf: bytes

    @property
    def event(self) -> Event:
        """The body, validated. Raises StoredEventError (`ledger.mapper`)."""
        return read_event(self.stream_id, self.version, self.topic, self.body)

    @property
    def parts(self) -> dict[str, Any]:
        """The body as JSON, of which nothing else is checked. Raises StoredEventError: it is none."""
        try:
            parts: dict[str, Any] = orjson.loads(self.body)
        except orjson.JSONDecodeError as error:
            raise StoredEventError(f"the body at position {self.position} is no JSON") from error
        return parts

    @property
    def stream_type(self) -> str:
        """Raises StoredEventError for a topic outside the registry."""
        try:
            return stream_type(self.topic)
        except KeyError:
            raise StoredEventError(f"unknown topic at position {self.position}") from None

    @property
    def entry(self) -> bytes:
        """The seven lines whose hash is the leaf, from the stored values. Raises as `stream_type`."""
        return entry_text(
            self.position,
            self.stream_type,
            self.stream_id,
            self.version,
            self.topic,
            format_time(self.recorded_at),
            sha256(self.body).hexdigest(),
        )

    def answers(self, groups: Iterable[frozenset[str]]) -> bool:
        """Whether it has a term of each group (`Question.groups`)."""
        return matches(self.terms, groups)

    @property
    def terms(self) -> frozenset[str]:
        """By which words it can be found."""
        return terms_of(self.stream_id, self.topic, self.body)
