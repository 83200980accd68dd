"""A stored format never changes: whoever changes one of these lines has to make a new version instead.

`tests/vectors/formats.json` has every topic's fields as text, written once. A new topic, or a new
version of one, is added there; a line that is there is never edited.
"""

import json
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import orjson
import pytest
from msgspec import NODEFAULT, Struct
from msgspec.structs import fields

from ledger.events import TOPICS, Actor, Fact

VECTORS = Path(__file__).parents[1] / "vectors"
FORMATS: dict[str, list[str]] = json.loads((VECTORS / "formats.json").read_text())
EXAMPLES: list[dict[str, Any]] = json.loads((VECTORS / "events.json").read_text())
LIMITS = ("pattern", "min_length", "max_length", "ge", "le")


def described(annotation: Any, metadata: list[Any]) -> str:
    """A type in words that do not depend on the release of Python or msgspec."""
    limits = "".join(
        f" {name}={value}"
        for one in metadata
        for name in LIMITS
        if (value := getattr(one, name, None)) is not None
    )
    if hasattr(annotation, "__metadata__"):
        return described(annotation.__origin__, [*annotation.__metadata__, *metadata])
    if get_origin(annotation) is Literal:
        return f"one of {' '.join(map(str, get_args(annotation)))}{limits}"
    if get_origin(annotation) is tuple:
        return f"list of ({', '.join(described(one, []) for one in get_args(annotation) if one is not ...)}){limits}"
    if get_args(annotation):
        return " or ".join(sorted(described(one, []) for one in get_args(annotation))) + limits
    if isinstance(annotation, type) and issubclass(annotation, Struct):
        return f"{{{'; '.join(fields_of(annotation))}}}{limits}"
    return f"{annotation.__name__}{limits}"


def fields_of(kind: type[Struct]) -> list[str]:
    return [
        f"{each.name}{'' if each.default is NODEFAULT else '?'}: {described(each.type, [])}"
        for each in fields(kind)
    ]


def formats() -> dict[str, list[str]]:
    return {
        "actor": fields_of(Actor),
        **{topic: fields_of(fact) for topic, fact in TOPICS.items()},
    }


def test_no_stored_format_has_changed() -> None:
    present = formats()
    changed = {name for name, lines in FORMATS.items() if present.get(name) != lines}
    assert changed == set(), "give it a new version (.v2) and an upcast in ledger/mapper.py"
    assert present.keys() == FORMATS.keys(), "add the new topic to tests/vectors/formats.json"


def test_the_description_tells_formats_apart() -> None:
    class One(Fact):
        value: int

    class Other(Fact):
        value: int | None

    class Third(Fact):
        value: Literal["a"]

    found = [fields_of(one) for one in (One, Other, Third)]
    assert found == [["value: int"], ["value: NoneType or int"], ["value: one of a"]]


def nullable() -> list[tuple[str, str]]:
    return [
        (topic, each.name)
        for topic, fact in TOPICS.items()
        for each in fields(fact)
        if type(None) in get_args(each.type)
    ]


@pytest.mark.parametrize(("topic", "field"), nullable())
def test_what_may_be_null_has_an_example_of_both(topic: str, field: str) -> None:
    found = {
        orjson.loads(example["body"])["data"][field] is None
        for example in EXAMPLES
        if example["topic"] == topic
    }
    assert found == {True, False}


@pytest.mark.parametrize("field", ["causation_id", "reason", "credential", "source"])
def test_the_envelope_has_examples_of_both(field: str) -> None:
    bodies = [orjson.loads(example["body"]) for example in EXAMPLES]
    assert {(body["actor"] | body)[field] is None for body in bodies} == {True, False}
