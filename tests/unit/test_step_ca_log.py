"""A step-ca's log, read: what was signed, and that no line of a stranger's does harm."""

import json
import os
from base64 import b64encode
from collections import Counter
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from ca.hierarchy import new_root
from ca.step_ca_log import Signed, signed_in

NOW = datetime(2026, 11, 23, tzinfo=UTC)
ROOT = new_root("Any", 1, NOW, os.urandom).certificate
DER = ROOT.public_bytes(Encoding.DER)
SERIAL = format(ROOT.serial_number, "x")
TEXT = b64encode(DER).decode()


def read(*lines: object) -> tuple[list[Signed], Counter[str]]:
    seen: Counter[str] = Counter()
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    return list(signed_in(texts, seen)), seen


def test_a_certificate_is_read_with_its_bytes() -> None:
    entry = {
        "certificate": TEXT,
        "serial": "5",
        "path": "/1.0/sign",
        "time": "2026-11-26T20:55:44Z",
    }
    found, seen = read(entry)
    assert found == [Signed(SERIAL, DER, "2026-11-26T20:55:44Z", "/1.0/sign")]
    assert seen == {"lines": 1}


def test_what_carries_the_log_may_put_something_before_the_object() -> None:
    line = "step-ca-1  | " + json.dumps({"certificate": TEXT, "path": "/sign"})
    assert [one.serial for one in read(line)[0]] == [SERIAL]


def test_without_its_bytes_the_serial_is_known() -> None:
    found, _ = read({"serial": str(0xAB), "path": "/1.0/rekey"})
    assert found == [Signed("ab", None, "", "/1.0/rekey")]


@pytest.mark.parametrize(
    "entry",
    [
        {"serial": "171", "path": "/1.0/revoke"},
        {"certificate": "c3No", "path": "/ssh/sign", "serial": "1"},
        {"path": "/health", "status": 200},
        {"msg": 'no "serial" and no "certificate" here'},
        "not JSON",
    ],
)
def test_other_lines_say_nothing(entry: object) -> None:
    found, seen = read(entry)
    assert (found, seen["unreadable"]) == ([], 0)


@pytest.mark.parametrize(
    "entry",
    [
        {"certificate": "junk!", "path": "/sign"},
        {"certificate": b64encode(b"\x30\x00").decode(), "path": "/sign"},
        {"certificate": 5, "path": "/sign"},
        [{"serial": "1"}],
        {"serial": "minus one", "path": "/sign"},
        {"serial": "-1", "path": "/sign"},
        {"serial": str(1 << 256), "path": "/sign"},
        {"serial": "9" * 5000, "path": "/sign"},
        '{"certificate": "' + "A" * 300_000 + '", "path": "/sign"}',
        '{"certificate": "cut sh',
    ],
)
def test_what_speaks_of_a_certificate_and_shows_none_is_counted(entry: object) -> None:
    found, seen = read(entry)
    assert (found, seen["unreadable"]) == ([], 1)


@given(st.lists(st.one_of(st.text(), st.text().map(lambda text: f'{{"serial": "{text}"'))))
def test_no_line_does_harm(lines: list[str]) -> None:
    found, seen = read(*lines)
    assert found == []
    assert seen["lines"] == len(lines)
