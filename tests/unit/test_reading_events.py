"""Reading a stored event is fast by remembering and by patterns; here it is compared with the plain way.

The plain way below parses everything anew and writes it back to compare: slow, and easy to believe.
"""

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from ledger import bodies
from ledger.canonical import format_time, parse_id, parse_time
from ledger.events import TOPICS, Actor, CertificateExtension, Event
from ledger.frozen import begun, changed, made_of
from ledger.grant_state import Token, TokenState
from ledger.mapper import StoredEventError, read_event
from support.given import World

EXAMPLES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "events.json").read_text()
)
KEYS = frozenset({"actor", "at", "causation_id", "correlation_id", "data", "id", "reason"})
STREAM = UUID("0d9cb46e-7a31-4c52-9d1e-000000000001")


def plain_time(text: object) -> datetime:
    if type(text) is not str or len(text) != 27 or not text.isascii():
        raise ValueError
    moment = datetime.fromisoformat(text)
    if moment.utcoffset() is None or format_time(moment) != text:
        raise ValueError
    return moment


def plain_id(text: object) -> UUID:
    if type(text) is not str or str(parsed := UUID(text)) != text:
        raise ValueError
    return parsed


def plain_event(topic: str, body: bytes) -> Event:
    parsed = orjson.loads(body)
    if not isinstance(parsed, dict) or parsed.keys() != KEYS:
        raise ValueError
    for name in ("correlation_id", *(["reason"] if parsed["reason"] is not None else [])):
        if type(parsed[name]) is not str:
            raise ValueError
    cause = parsed["causation_id"]
    return Event(
        originator_id=STREAM,
        originator_version=1,
        id=plain_id(parsed["id"]),
        at=plain_time(parsed["at"]),
        actor=Actor.model_validate(parsed["actor"]),
        correlation_id=parsed["correlation_id"],
        causation_id=None if cause is None else plain_id(cause),
        reason=parsed["reason"],
        data=TOPICS[topic].model_validate(parsed["data"]),
    )


def outcome(read: Callable[[], object]) -> object:
    """What reading gave; every refusal is the same refusal."""
    try:
        return read()
    except (ValueError, KeyError, TypeError, StoredEventError):
        return "refused"


ODD: list[object] = [
    None, True, False, 0, 1, -1, 2**53 + 1, 2**70, 1.0, 1.5, "", "x", [], {}, [[]], ["x"], [1], {"x": 1},
    "2026-11-23T15:07:08.123456Z", "2026-11-23T24:00:00.000000Z", "2026-11-23T15:07:60.123456Z",
    "2026-02-30T15:07:08.123456Z", "0000-01-01T00:00:00.000000Z", "2026-11-23T15:07:08.123456z",
    "2026-11-23 15:07:08.123456Z", "2026-11-23T15:07:08,123456Z", "2026-11-23T15:07:08.123+00Z",
    "2026-W47-1T15:07:08.123456Z", "\uff12026-11-23T15:07:08.123456Z", "2026-11-23T15:07:08.123456Z\n",
    "0d9cb46e-7a31-4c52-9d1e-000000000001", "0D9CB46E-7A31-4C52-9D1E-000000000001",
    "0d9cb46e7a314c529d1e000000000001", "{0d9cb46e-7a31-4c52-9d1e-000000000001}",
    "0d9cb46e-7a31-4c52-9d1e-00000000001\n", "urn:uuid:0d9cb46e-7a31-4c52-9d1e-000000000001",
    "operator", "system", "bearer", "AA==", "AA=", "A A==", "é", "\u0000",
]  # fmt: skip


def places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value within a JSON value."""
    inside = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value if isinstance(value, list) else ())
    )
    return [path, *(place for key, item in inside for place in places(item, (*path, key)))]


def nearly(value: object) -> list[object]:
    """Other values that a careless reader takes for this one."""
    if not isinstance(value, str):
        return []
    return [
        f"{value}\n",
        f"{value} ",
        value.upper(),
        value.replace("-", ""),
        value[:-1],
        f"{value[:-2]}  ",
        f"{value[:-1]}g",
        f"{value[:-1]}\uff11",
        f"8{value[1:]}",
        f"3{value[1:]}",
        f"{value}=",
    ]


@pytest.mark.parametrize("stored", EXAMPLES, ids=lambda one: str(one["topic"]))
def test_a_number_keeps_its_bounds(stored: dict[str, Any]) -> None:
    whole = {"all": json.loads(stored["body"])}
    for *way, last in places(whole)[1:]:
        for odd in (-1, 0, 2**53, 2**53 + 1):
            body = deepcopy(whole)
            inside: Any = body
            for step in way:
                inside = inside[step]
            if type(inside[last]) is int:
                inside[last] = odd
                text, topic = orjson.dumps(body["all"]), stored["topic"]
                expected = outcome(partial(plain_event, topic, text))
                assert outcome(partial(read_event, STREAM, 1, topic, text)) == expected, (last, odd)


@given(st.data())
def test_a_body_altered_anywhere_is_read_or_refused_as_the_plain_way_does(
    data: st.DataObject,
) -> None:
    chosen = data.draw(st.sampled_from(EXAMPLES))
    body: Any = {"all": deepcopy(orjson.loads(chosen["body"]))}
    for _ in range(data.draw(st.integers(1, 2))):
        *way, last = data.draw(st.sampled_from(places(body)[1:] or [("all",)]))
        inside = body
        for step in way:
            inside = inside[step]
        if isinstance(inside, dict) and data.draw(st.booleans()):
            inside.pop(last, None)
        else:
            was = inside.get(last) if isinstance(inside, dict) else inside[last]
            inside[last] = deepcopy(data.draw(st.sampled_from([*ODD, *nearly(was)])))
    try:
        stored = orjson.dumps(body.get("all"))
    except orjson.JSONEncodeError:
        stored = json.dumps(body.get("all")).encode()
    topic = chosen["topic"]
    expected = outcome(lambda: plain_event(topic, stored))
    assert outcome(lambda: read_event(STREAM, 1, topic, stored)) == expected


@pytest.mark.parametrize("chosen", EXAMPLES, ids=[one["topic"] for one in EXAMPLES])
def test_every_stored_example_is_read_as_the_plain_way_does(chosen: dict[str, Any]) -> None:
    body = chosen["body"].encode()
    assert read_event(STREAM, 1, chosen["topic"], body) == plain_event(chosen["topic"], body)


@pytest.mark.parametrize("chosen", EXAMPLES, ids=[one["topic"] for one in EXAMPLES])
def test_what_we_write_is_read_quickly_and_is_what_the_exact_reader_makes_of_it(
    chosen: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, body = chosen["topic"], chosen["body"].encode()
    exact = bodies.exact_reader(topic)(STREAM, 1, body)
    with monkeypatch.context() as patched:
        patched.setattr(bodies, "exact_reader", None)
        found = bodies.body_reader(topic)(STREAM, 1, body)
    assert found == exact
    assert found.data.model_fields_set == exact.data.model_fields_set
    assert found.data.model_copy() == exact.data


@pytest.mark.parametrize(
    "respelled",
    [
        lambda body: body.replace(b'","', b'", "'),
        lambda body: json.dumps(json.loads(body), sort_keys=True).encode(),
        lambda body: json.dumps(dict(reversed(json.loads(body).items()))).encode(),
        lambda body: body.replace(b'"reason"', b'"reason":"twice","reason"'),
        lambda body: body.replace(b'"https:', b'"\\u0068ttps:'),
    ],
)
def test_a_body_in_another_spelling_is_read_as_ever(respelled: Callable[[bytes], bytes]) -> None:
    chosen = next(one for one in EXAMPLES if one["topic"] == "peer.registered.v1")
    body = chosen["body"].encode()
    other = respelled(body)
    assert other != body
    assert read_event(STREAM, 1, chosen["topic"], other) == plain_event(chosen["topic"], body)


near_times = st.from_regex(
    r"\A[0-2]\d{3}-[01]\d-[0-3]\d[T ][0-2]\d:[0-6]\d:[0-6]\d[.,]\d{5,7}(Z|z|\+00:00)?\Z"
) | st.datetimes().map(lambda moment: moment.isoformat(timespec="microseconds") + "Z")


@given(near_times | st.text(max_size=30))
@example("2026-11-23T24:00:00.000000Z")
@example("2026-11-23T15:07:08.123456Z")
def test_a_time_is_read_if_and_only_if_it_is_what_we_write(text: str) -> None:
    assert outcome(lambda: parse_time(text)) == outcome(lambda: plain_time(text))


@given(
    st.uuids().map(str) | st.from_regex(r"\A[0-9a-fA-F]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}\n?\Z")
)
def test_an_id_is_read_if_and_only_if_it_is_what_we_write(text: str) -> None:
    assert outcome(lambda: parse_id(text)) == outcome(lambda: plain_id(text))


PARTS = {Actor: ["actor"], CertificateExtension: ["data", "extensions", 0]}


@pytest.mark.parametrize("kind", PARTS, ids=[kind.__name__ for kind in PARTS])
def test_a_part_that_is_a_model_is_read_without_the_exact_reader_too(kind: type) -> None:
    chosen = next(one for one in EXAMPLES if one["topic"] == "issuance.authorized.v1")
    part = orjson.loads(chosen["body"])
    for step in PARTS[kind]:
        part = part[step]
    models = bodies._of_models(kind)
    assert models is not None
    read = bodies._quickly(*models, exact=None)  # type: ignore[arg-type]  # must not be asked
    found = read(orjson.dumps(part, option=orjson.OPT_SORT_KEYS))
    assert found == TypeAdapter(kind).validate_json(orjson.dumps(part))
    assert found.model_fields_set == set(part)  # type: ignore[attr-defined]  # a model


def test_nothing_but_text_is_a_time_or_an_id() -> None:
    for value in (None, 1, b"", UUID(int=1), ["x"]):
        with pytest.raises(ValueError, match="not a time"):
            parse_time(value)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="an id is"):
            parse_id(value)  # type: ignore[arg-type]


def test_a_quick_copy_is_that_of_the_standard_library() -> None:
    world = World()
    grant = world.grant(world.active_peer())
    assert changed(grant, {"version": 9}) == replace(grant, version=9)
    assert changed(grant, {}) == grant
    assert changed(grant, {}) is not grant
    with pytest.raises(TypeError, match="colour"):
        changed(grant, {"colour": "red"})
    event = world.events[-1]
    assert made_of(type(grant), **vars(grant)) == grant
    given = {"accessor": "a" * 16, "token_sha256": "0" * 64, "state": TokenState.ISSUED}
    times = dict.fromkeys(("issued_at", "expires_at", "changed_at"), event.at)
    assert begun(Token, **given, **times, key_digest=None) == Token(
        **given, **times, key_digest=None
    )
