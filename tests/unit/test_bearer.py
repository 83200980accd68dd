"""Bearer tokens: golden texts, and that nothing else is taken for one."""

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.bearer import Bearer, BearerKind, Parsed, mint, parse, same_digest

GOLDEN = [
    (
        BearerKind.ENROLLMENT,
        bytes(range(32)),
        "fle_7dy896m08s18udxr_003aUlTJC7tjlCTQj2uNU3MFagCXG9LRKRcwGkBIDlf1QzMeJ",
        "98f2cabdf2a90195d4bd9519bd73a8787f0384371ad1f43feacb681081c1867e",
    ),
    (
        BearerKind.OPERATOR,
        bytes(range(32)),
        "flo_7dy896m08s18udxr_003aUlTJC7tjlCTQj2uNU3MFagCXG9LRKRcwGkBIDlf1LeulZ",
        "50b4651b3902516e183337292c5bb07f9f7425aba6d81baa779fd6393b0707cd",
    ),
]


@pytest.mark.parametrize(("kind", "randomness", "text", "digest"), GOLDEN)
def test_golden(kind: BearerKind, randomness: bytes, text: str, digest: str) -> None:
    assert mint(kind, lambda count: randomness[:count]) == Bearer(text, "7dy896m08s18udxr", digest)
    assert parse(text) == Parsed(kind, "7dy896m08s18udxr", digest)


@given(st.sampled_from(BearerKind), st.binary(min_size=32, max_size=32))
def test_what_is_minted_is_recognised(kind: BearerKind, randomness: bytes) -> None:
    bearer = mint(kind, lambda count: randomness[-count:])
    assert re.fullmatch(r"fl[eo]_[0-9a-z]{16}_[0-9A-Za-z]{49}", bearer.text)
    assert bearer.digest == hashlib.sha256(bearer.text.encode()).hexdigest()
    assert parse(bearer.text) == Parsed(kind, bearer.accessor, bearer.digest)


@pytest.mark.parametrize("fill", [b"\x00", b"\xff"])
def test_extreme_randomness_keeps_the_form(fill: bytes) -> None:
    assert parse(mint(BearerKind.OPERATOR, lambda count: fill * count).text) is not None


def test_all_the_randomness_is_in_the_text() -> None:
    base = bytearray(32)
    seen = set()
    for bit in range(256):
        changed = bytearray(base)
        changed[bit // 8] ^= 1 << bit % 8
        drawn = bytes(changed)
        seen.add(mint(BearerKind.OPERATOR, lambda n, d=drawn: d if n == 32 else bytes(n)).text)  # type: ignore[misc]
    assert len(seen) == 256


def test_every_typing_error_is_noticed() -> None:
    text = GOLDEN[0][2]
    for index in range(len(text)):
        for other in "0aZ_é":
            if other != text[index]:
                assert parse(text[:index] + other + text[index + 1 :]) is None


@pytest.mark.parametrize("text", [None, b"", 7, "", GOLDEN[0][2] + "\n", " " + GOLDEN[0][2]])
def test_anything_else_is_none(text: object) -> None:
    assert parse(text) is None


@given(st.text() | st.from_regex(r"\Afl[eo]_[0-9a-z]{16}_[0-9A-Za-z]{49}\Z"))
def test_parsing_never_raises(text: str) -> None:
    parse(text)


def test_the_repr_keeps_the_secret() -> None:
    bearer = mint(BearerKind.ENROLLMENT, lambda count: bytes(range(count)))
    secret = bearer.text.rpartition("_")[2]
    assert secret not in repr(bearer)
    assert secret not in repr(parse(bearer.text))
    assert bearer.accessor in repr(bearer)


def test_short_randomness_is_refused() -> None:
    with pytest.raises(ValueError, match="randomness"):
        mint(BearerKind.ENROLLMENT, lambda count: bytes(count - 1))


def test_digests_compare() -> None:
    assert same_digest("ab" * 32, "ab" * 32)
    assert not same_digest("ab" * 32, "ab" * 31 + "aa")
    assert not same_digest("", "ab" * 32)
