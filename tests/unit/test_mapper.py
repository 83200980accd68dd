"""Bodies: canonical when written, validated when read, and nothing else is ever loaded."""

from dataclasses import replace as replaced
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import orjson
import pytest
from eventsourcing.persistence import StoredEvent
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ledger.errors import InvalidError
from ledger.events import (
    Actor,
    EnrollmentTokenLocked,
    Event,
    Fact,
    GrantActivated,
    PeerActivated,
    PeerRegistered,
    PeerSuspended,
)
from ledger.mapper import MAX_BODY, EventMapper, StoredEventError, body_of, read_event

EVENT = Event(
    UUID("0d9cb46e-7a31-4c52-9d1e-000000000001"),
    3,
    UUID("0d9cb46e-7a31-4c52-9d1e-000000000002"),
    datetime(2026, 11, 23, 15, 7, 8, 123456, tzinfo=UTC),
    Actor(kind="system", id="reconciler", auth="system"),
    "request-1",
    None,
    None,
    PeerRegistered(name="Acme", base_url="https://acme.example"),
)
BODY: dict[str, Any] = orjson.loads(body_of(EVENT))

texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1)


def read(topic: str = "peer.registered.v1", **changes: object) -> Event:
    return read_event(EVENT.originator_id, 3, topic, orjson.dumps({**BODY, **changes}))


def test_a_body_has_exactly_seven_keys() -> None:
    assert sorted(BODY) == [
        "actor", "at", "causation_id", "correlation_id", "data", "id", "reason",
    ]  # fmt: skip


def test_the_library_gets_back_what_it_stored() -> None:
    mapper = EventMapper()
    stored = mapper.to_stored_event(EVENT)
    assert stored.topic == "peer.registered.v1"
    assert mapper.to_domain_event(stored) == EVENT


@given(texts.filter(lambda text: len(text.encode()) < 2000), texts)
def test_any_text_survives(reason: str, correlation_id: str) -> None:
    event = replace(EVENT, reason=reason, correlation_id=correlation_id)
    assert read_event(EVENT.originator_id, 3, event.data.TOPIC, body_of(event)) == event


def test_a_moment_is_stored_in_utc() -> None:
    there = EVENT.at.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert body_of(replace(EVENT, at=there)) == body_of(EVENT)


@pytest.mark.parametrize(
    "wrong",
    [
        {"reason": "a\x00b"},
        {"reason": "\\\x00"},
        {"reason": "\ud800"},
        {"correlation_id": "\x00"},
        {"reason": "x" * MAX_BODY},
    ],
)
def test_what_cannot_be_stored_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        body_of(replace(EVENT, **wrong))


@pytest.mark.parametrize(
    "fact",
    [
        PeerRegistered(name="../etc", base_url="https://acme.example"),
        PeerRegistered(name="Acme", base_url=""),
        PeerRegistered(name="Acme\n", base_url="https://acme.example"),
        GrantActivated(issuance_id="0d9cb46e-7a31-4c52-9d1e-00000000000"),  # type: ignore[arg-type]  # as if a rule made it
        EnrollmentTokenLocked(accessor="a" * 16, failures=-1),
        EnrollmentTokenLocked(accessor="a" * 15, failures=1),
        EnrollmentTokenLocked(accessor="a" * 16, failures=1.0),  # type: ignore[arg-type]  # as above
    ],
)
def test_what_could_not_be_read_again_is_never_stored(fact: Fact) -> None:
    with pytest.raises(InvalidError, match="cannot be stored"):
        body_of(replace(EVENT, data=fact))


def test_a_backslash_before_u0000_is_no_nul() -> None:
    event = replace(EVENT, reason="\\u0000")
    assert read(reason=event.reason) == event
    assert b"\\\\u0000" in body_of(event)


def test_sixty_kibibytes_are_allowed() -> None:
    room = MAX_BODY - len(body_of(replace(EVENT, reason="")))
    assert len(body_of(replace(EVENT, reason="x" * room))) == MAX_BODY
    with pytest.raises(InvalidError) as caught:
        body_of(replace(EVENT, reason="x" * (room + 1)))
    assert caught.value.code == "too-large"


@pytest.mark.parametrize(
    "changes",
    [
        {"extra": 1},
        {"id": "0D9CB46E-7A31-4C52-9D1E-000000000002"},
        {"id": 7},
        {"id": None},
        {"at": "2026-11-23T15:07:08Z"},
        {"at": 1},
        {"actor": None},
        {"actor": {**BODY["actor"], "kind": "root"}},
        {"actor": {**BODY["actor"], "more": 1}},
        {"correlation_id": None},
        {"causation_id": "x"},
        {"reason": 1},
        {"data": None},
        {"data": {"name": "Acme"}},
        {"data": {**BODY["data"], "more": 1}},
        {"data": {**BODY["data"], "name": "../etc"}},
        {"data": {**BODY["data"], "name": 7}},
    ],
)
def test_another_shape_is_not_read(changes: dict[str, object]) -> None:
    with pytest.raises(StoredEventError):
        read(**changes)


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{}", b"{", b"\xff", b"[" * 100_000])
def test_other_bytes_are_not_read(body: bytes) -> None:
    with pytest.raises(StoredEventError):
        read_event(EVENT.originator_id, 3, "peer.registered.v1", body)


@pytest.mark.parametrize(
    "topic", ["os:system", "peer.registered.v2", "ledger.events:PeerUpdated", ""]
)
def test_a_name_in_a_row_is_never_imported(topic: str) -> None:
    with pytest.raises(StoredEventError, match="unknown topic"):
        read(topic)


def test_an_error_names_the_event_and_not_its_values() -> None:
    with pytest.raises(StoredEventError) as caught:
        read(reason=["secret"])
    assert str(EVENT.originator_id) in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_older_topic_is_upcast_step_by_step() -> None:
    upcasts = {
        "peer.seen.v1": ("peer.checked.v1", lambda data: {"verification": data["how"]}),
        "peer.checked.v1": ("peer.activated.v1", lambda data: {**data}),
    }
    stored = StoredEvent(
        EVENT.originator_id, 3, "peer.seen.v1", orjson.dumps({**BODY, "data": {"how": "by phone"}})
    )
    event = EventMapper(upcasts).to_domain_event(stored)
    assert event.data == PeerActivated(verification="by phone")
    respelled = replaced(stored, state=stored.state.replace(b",", b", "))
    with pytest.raises(StoredEventError):
        EventMapper(upcasts).to_domain_event(respelled)


def test_only_our_events_are_written() -> None:
    class Other:
        originator_id = EVENT.originator_id
        originator_version = 1

    with pytest.raises(TypeError):
        EventMapper().to_stored_event(Other())


def test_facts_without_data_are_an_empty_object() -> None:
    body = orjson.loads(body_of(replace(EVENT, data=PeerSuspended())))
    assert body["data"] == {}
