"""JSON that two readers could understand differently is refused, without repeating it."""

import json

import pytest

from api.body import MAX_DEPTH, decode
from api.problems import MalformedError


@pytest.mark.parametrize(
    "text",
    [
        "{}", '{"a":[1,2.5,true,null,"x"]}', '"\\u00e9"', '"\\ud83d\\ude00"', "1e10",
        "[" * MAX_DEPTH + "]" * MAX_DEPTH,
        '"' + "[" * 100 + '"',
        '["' + '\\"[{' * 60 + '"]',
    ],
)  # fmt: skip
def test_good(text: str) -> None:
    assert decode(text.encode()) == json.loads(text)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"nul", b"\xff", b"\xef\xbb\xbf{}", b"{'a':1}", b"[1,]", b"1 2",
        b'{"a":1,"a":1}', b'[{"b":{"a":1,"a":2}}]', b'{"\\u0061":1,"a":2}',
        b'"\\u0000"', b'{"\\u0000":1}', b'[["\\u0000"]]', b'{"a":["\\ud800"]}', b'"\\udc00"',
        b"NaN", b"[Infinity]", b"-Infinity", b"1e999", b"-1e999", b"1" * 5000,
        b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), b'{"a":' * 200 + b"1" + b"}" * 200,
        b"[" * 200_000, b'"' + b"[" * 200_000,
    ],
)  # fmt: skip
def test_bad(data: bytes) -> None:
    with pytest.raises(MalformedError) as refused:
        decode(data)
    assert len(str(refused.value)) < 80


def test_control_characters_inside_text_are_refused() -> None:
    with pytest.raises(MalformedError):
        decode(b'"a\x00b"')
