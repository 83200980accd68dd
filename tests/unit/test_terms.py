"""Which words an event can be found by, on the golden events."""

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from ledger.terms import Question, matches, terms_of, words_of

EXAMPLES: dict[str, dict[str, Any]] = {
    example["topic"]: example
    for example in json.loads((Path(__file__).parents[1] / "vectors" / "events.json").read_text())
}


def terms(topic: str) -> frozenset[str]:
    example = EXAMPLES[topic]
    return terms_of(UUID(example["stream_id"]), topic, example["body"].encode())


@pytest.mark.parametrize("topic", EXAMPLES)
def test_every_id_of_every_topic(topic: str) -> None:
    """Whatever is named as an id in any topic's data can be asked for."""
    found = terms(topic)
    data = json.loads(EXAMPLES[topic]["body"])["data"]
    for key, value in data.items():
        told = key.endswith(("_id", "serial", "sha256", "digest", "accessor", "successor"))
        if told and isinstance(value, str):
            assert f"name:{value}" in found, key


def test_one_event() -> None:
    body = json.loads(EXAMPLES["alarm.raised.v1"]["body"])
    assert terms("alarm.raised.v1") == {
        "topic:alarm.raised.v1",
        f"stream:{EXAMPLES['alarm.raised.v1']['stream_id']}",
        f"actor:{body['actor']['id']}",
        f"name:{body['actor']['credential']}",
        f"name:{body['actor']['source']}",
        "correlation:req-0002",
        f"name:{body['id']}",
        f"name:{body['causation_id']}",
        *(f"name:{one}" for one in body["data"]["about"]),
    }


def test_what_a_reader_looked_for_is_no_name() -> None:
    found = terms("audit.read.v1")
    assert "asked:grant.approved.v1" in found
    assert not any(term.startswith("name:grant") for term in found)
    mine = Question(mentions=("grant.approved.v1",)).groups()
    assert matches(found, mine)
    assert not matches(found, Question(mentions=("grant.approved.v1",), asked_too=False).groups())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", set()),
        ("… !", set()),
        ("The KEY, the key", {"the", "key"}),
        ("Schlüssel STRASSE straße", {"schlussel", "strasse"}),
        ("Zoë's 2nd laptop", {"zoe", "s", "2nd", "laptop"}),
        ("ключ 鍵", {"ключ", "鍵"}),
        ("x" * 100, {"x" * 64}),
    ],
)
def test_words(text: str, words: set[str]) -> None:
    assert words_of(text) == words


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b"7", b'{"actor":7,"data":[],"reason":1}'])
def test_a_body_that_is_none_of_ours_has_the_terms_of_its_row(body: bytes) -> None:
    stream = UUID(int=7)
    rows = {"topic:x.y.v1", f"stream:{stream}"}
    assert terms_of(stream, "x.y.v1", body) - {"correlation:None"} == rows


def test_all_groups_must_be_met() -> None:
    found = terms("grant.proposed.v1")
    example = EXAMPLES["grant.proposed.v1"]
    stream = UUID(example["stream_id"])
    assert Question().groups() == []
    assert matches(found, Question(streams=(stream,), topics=("x", example["topic"])).groups())
    assert not matches(found, Question(streams=(stream,), topics=("x",)).groups())
    assert not matches(found, Question(streams=(UUID(int=1),), topics=(example["topic"],)).groups())
