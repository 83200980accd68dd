"""One stored example of every topic. What is stored never changes: these bytes are for ever.

A new topic needs a new example in `tests/vectors/events.json`; an existing one is never edited.
"""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from ledger.canonical import parse_time
from ledger.events import TOPICS, stream_type
from ledger.mapper import UPCASTS, body_of, read_event
from ledger.record import RecordedEvent
from ledger.tlog.entry import leaf_hash, parse_entry
from ledger.tlog.merkle import root_of

EXAMPLES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "events.json").read_text()
)


def test_every_topic_has_an_example() -> None:
    assert {example["topic"] for example in EXAMPLES} == {*TOPICS, *UPCASTS}


@pytest.mark.parametrize("example", EXAMPLES, ids=[example["topic"] for example in EXAMPLES])
def test_stored_bytes_stay_what_they_are(example: dict[str, Any]) -> None:
    body = example["body"].encode()
    row = RecordedEvent(
        example["position"],
        UUID(example["stream_id"]),
        example["version"],
        example["topic"],
        parse_time(example["recorded_at"]),
        body,
        bytes.fromhex(example["leaf"]),
    )
    event = read_event(row.stream_id, row.version, row.topic, body)
    if example["topic"] in TOPICS:  # one that is only upcast any more is not written again
        assert type(event.data) is TOPICS[example["topic"]]
        assert body_of(event) == body
    assert row.entry == example["entry"].encode()
    assert leaf_hash(row.entry) == row.leaf

    entry = parse_entry(row.entry)
    assert entry.stream_type == stream_type(row.topic)
    assert entry.body_sha256 == sha256(body).hexdigest()


def test_their_root() -> None:
    leaves = [bytes.fromhex(example["leaf"]) for example in EXAMPLES[:47]]
    assert root_of(leaves).hex() == (
        "b3e2fb52a76d24c8f73e2180e4ba9f76a1955b67fbb0a4f8f6fb7c14cab019ca"
    )
