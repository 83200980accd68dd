"""Reading a stored event is left to a parser and proved; here it is compared with the plain way.

The plain way below asks one thing after the other, by the annotations: slow, and easy to believe.
"""

import base64
import json
import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints
from uuid import UUID

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import fields

from ledger import bodies
from ledger.canonical import canonical_json, format_time, parse_time
from ledger.events import TOPICS, Actor, Event, Form
from ledger.frozen import begun, changed, made_of
from ledger.grant_state import Token, TokenState
from ledger.mapper import StoredEventError, read_event
from ledger.scope import Scope, scope_from_stored
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


def plain_scope(value: Any) -> Scope:
    scope = scope_from_stored(value)
    if scope.canonical() != value:
        raise ValueError
    return scope


def plain_octets(text: object) -> bytes:
    if type(text) is not str:
        raise ValueError
    octets = base64.b64decode(text, validate=True)
    if base64.b64encode(octets).decode() != text:
        raise ValueError
    return octets


PLAIN: dict[Any, Callable[[Any], object]] = {
    datetime: plain_time,
    UUID: plain_id,
    bytes: plain_octets,
    Scope: plain_scope,
}


def plain_value(hint: Any, value: Any) -> Any:
    """The value of a member as its annotation says, by asking it one thing after the other."""
    origin, inside = get_origin(hint), get_args(hint)
    if origin is Annotated:
        found = plain_value(inside[0], value)
        for one in inside[1:]:
            if isinstance(one, Form):
                right = re.fullmatch(one.pattern, found) is not None
            elif isinstance(found, str):
                right = (one.min_length or 0) <= len(found) <= (one.max_length or len(found))
            else:
                right = one.ge <= found <= one.le
            if not right:
                raise ValueError
        return found
    if origin is Literal:
        return {choice: choice for choice in inside}[value]
    if origin in (Union, UnionType):
        (other,) = (one for one in inside if one is not NoneType)
        return None if value is None else plain_value(other, value)
    if origin is tuple:
        if type(value) is not list or (inside[-1] is not ... and len(inside) != len(value)):
            raise ValueError
        return tuple(plain_value(inside[0], one) for one in value)
    if issubclass(hint, Struct):
        return plain_object(hint, value)
    if hint in PLAIN:
        return PLAIN[hint](value)
    if type(value) is not hint:
        raise ValueError
    return value


def plain_object(kind: type[Any], value: Any) -> Any:
    hints = get_type_hints(kind, include_extras=True)
    names = [each.name for each in fields(kind)]
    if type(value) is not dict or value.keys() != {*names}:
        raise ValueError
    return kind(**{name: plain_value(hints[name], value[name]) for name in names})


def plain_event(topic: str, body: bytes) -> Event:
    parsed = orjson.loads(body)
    if not isinstance(parsed, dict) or parsed.keys() != KEYS or canonical_json(parsed) != body:
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
        actor=plain_object(Actor, parsed["actor"]),
        correlation_id=parsed["correlation_id"],
        causation_id=None if cause is None else plain_id(cause),
        reason=parsed["reason"],
        data=plain_object(TOPICS[topic], parsed["data"]),
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
def test_what_we_write_is_proved_quickly(
    chosen: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = bodies.body_reader(chosen["topic"])
    monkeypatch.setattr(bodies, "written", None)  # the slower proof must not be needed
    read(STREAM, 1, chosen["body"].encode())


@pytest.mark.parametrize(
    "respelled",
    [
        lambda body: body.replace(b'","', b'", "'),
        lambda body: json.dumps(json.loads(body), sort_keys=True).encode(),
        lambda body: json.dumps(dict(reversed(json.loads(body).items()))).encode(),
        lambda body: body.replace(b'"reason"', b'"reason":"twice","reason"'),
        lambda body: body.replace(b'"https:', b'"\\u0068ttps:'),
        lambda body: body + b"\n",
    ],
)
def test_a_body_in_another_spelling_is_none_of_ours(respelled: Callable[[bytes], bytes]) -> None:
    chosen = next(one for one in EXAMPLES if one["topic"] == "peer.registered.v1")
    body = chosen["body"].encode()
    other = respelled(body)
    assert other != body
    with pytest.raises(StoredEventError):
        read_event(STREAM, 1, chosen["topic"], other)


whole = st.booleans().map(lambda yes: 0 if yes else 123456)
ends = st.sampled_from(["", "Z", ".000000Z", ".000000.000000Z", '.000000Z"', '\\".000000Z'])


@given(whole, whole, ends, ends, st.sampled_from(["Z", ".000000Z", "+00:00", "+05:30", ""]))
def test_noughts_of_a_second_stand_where_they_are_written_and_nowhere_else(
    at: int, until: int, reason: str, correlation_id: str, spelt: str
) -> None:
    chosen = next(one for one in EXAMPLES if one["topic"] == "grant.approved.v1")
    stored = orjson.loads(chosen["body"]) | {"reason": reason, "correlation_id": correlation_id}
    stored["at"] = f"2026-11-23T15:07:08.{at:06}Z"
    stored["data"]["lapses_at"] = f"2026-12-23T15:07:08.{until:06}Z"
    for body in (
        canonical_json(stored),
        canonical_json(stored | {"at": f"2026-11-23T15:07:08{spelt}"}),
    ):
        expected = outcome(partial(plain_event, chosen["topic"], body))
        assert outcome(partial(read_event, STREAM, 1, chosen["topic"], body)) == expected


def test_the_parsers_encoder_writes_every_character_as_the_canonical_form_does() -> None:
    text = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
    assert bodies._encode({"b": text, "a": [-1, None, True]}) == canonical_json(
        {"a": [-1, None, True], "b": text}
    )


def inside(hint: Any) -> set[Any]:
    """Of what a hint is made, the types of parts included."""
    found = {hint}
    for one in (*get_args(hint), *getattr(hint, "__metadata__", ())):
        found |= inside(one)
    if isinstance(hint, type) and issubclass(hint, Struct):
        for one in get_type_hints(hint, include_extras=True).values():
            found |= inside(one)
    return found


@pytest.mark.parametrize("kind", [Actor, *TOPICS.values()], ids=lambda kind: kind.__name__)
def test_times_and_forms_stand_where_reading_looks_for_them(kind: type[Any]) -> None:
    """A time that may be null, one within a part, or texts of a form in a list would need more code."""
    for name, hint in get_type_hints(kind, include_extras=True).items():
        assert hint is datetime or datetime not in inside(hint), name
        if kind is Actor or get_origin(hint) is tuple:
            part = get_args(hint)[0] if get_origin(hint) is tuple else hint
            in_parts = isinstance(part, type) and issubclass(part, Struct)
            assert in_parts or not any(isinstance(one, Form) for one in inside(hint)), name


def test_a_scope_that_lacks_a_member_is_no_unknown_topic() -> None:
    chosen = next(one for one in EXAMPLES if one["topic"] == "grant.proposed.v1")
    stored = orjson.loads(chosen["body"])
    del stored["data"]["scope"]["filters"]
    with pytest.raises(StoredEventError, match="ValueError"):
        read_event(STREAM, 1, chosen["topic"], canonical_json(stored))


near_times = st.from_regex(
    r"\A[0-2]\d{3}-[01]\d-[0-3]\d[T ][0-2]\d:[0-6]\d:[0-6]\d[.,]\d{5,7}(Z|z|\+00:00)?\Z"
) | st.datetimes().map(lambda moment: moment.isoformat(timespec="microseconds") + "Z")


@given(near_times | st.text(max_size=30))
@example("2026-11-23T24:00:00.000000Z")
@example("2026-11-23T15:07:08.123456Z")
def test_a_time_is_read_if_and_only_if_it_is_what_we_write(text: str) -> None:
    assert outcome(lambda: parse_time(text)) == outcome(lambda: plain_time(text))


def test_nothing_but_text_is_a_time() -> None:
    for value in (None, 1, b"", UUID(int=1), ["x"]):
        with pytest.raises(ValueError, match="not a time"):
            parse_time(value)  # type: ignore[arg-type]


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
