"""Keys, tokens and encrypted keys as step-ca exchanges them; strangers' texts raise one error."""

import hashlib
import json
import time

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import example, given
from hypothesis import strategies as st

from ca import jose
from ca.jose import JoseError, base64url, from_base64url

# RFC 7517 appendix A.2.
RFC_KEY = {
    "kty": "EC",
    "crv": "P-256",
    "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
    "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
    "use": "enc",
    "d": "870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE",
    "kid": "1",
}
# RFC 7517 appendix C: the password and header of an encrypted key, and the key derived of them.
RFC_PASSWORD = b"Thus from my lips, by yours, my sin is purged."
RFC_HEADER = {"alg": "PBES2-HS256+A128KW", "p2s": "2WCTcJZ1Rvd_CJuJripQ1w", "p2c": 4096}
RFC_DERIVED = bytes(
    [110, 171, 169, 92, 129, 92, 109, 117, 233, 242, 116, 233, 170, 14, 24, 75]
)  # fmt: skip
FEW = 1_000  # iterations, so that tests are quick
PASSWORD = b"correct horse"
ENCRYPTED = jose.encrypt(b'{"kty":"EC"}', PASSWORD, iterations=FEW)
SLOWEST_ALLOWED = 5.0  # seconds: finds work that a stranger can make grow without bound


def with_header(**changes: object) -> str:
    """The encrypted text above under a changed header; None takes a member away."""
    protected, *rest = ENCRYPTED.split(".")
    header = json.loads(from_base64url(protected)) | changes
    header = {name: value for name, value in header.items() if value is not None}
    return ".".join([base64url(json.dumps(header).encode()), *rest])


@given(st.binary(max_size=70))
def test_base64url_both_ways(data: bytes) -> None:
    text = base64url(data)
    assert "=" not in text
    assert from_base64url(text) == data


@pytest.mark.parametrize("text", ["=", "YQ==", "YR", "Y", "Y Q", "YQ\n", "+/+/", "YWé", "\ud800a"])
def test_only_what_an_encoder_writes_is_read(text: str) -> None:
    with pytest.raises(JoseError):
        from_base64url(text)


def test_the_key_of_the_rfc() -> None:
    key = jose.read_private_jwk(RFC_KEY)
    assert {**RFC_KEY, **jose.private_jwk(key)} == jose.private_jwk(key)
    assert {name: RFC_KEY[name] for name in "xyd"} == {
        name: jose.private_jwk(key)[name] for name in "xyd"
    }
    assert "d" not in jose.public_jwk(key.public_key())
    assert jose.read_public_jwk(RFC_KEY) == key.public_key()


def test_the_thumbprint_is_the_key_id() -> None:
    # RFC 7638 §3.1 to 3.3: these members, this order, no blanks.
    text = f'{{"crv":"P-256","kty":"EC","x":"{RFC_KEY["x"]}","y":"{RFC_KEY["y"]}"}}'
    expected = base64url(hashlib.sha256(text.encode()).digest())
    key = jose.read_public_jwk(RFC_KEY)
    assert jose.thumbprint(key) == jose.public_jwk(key)["kid"] == expected


def test_coordinates_keep_their_leading_zeros() -> None:
    """One key in 256 has a coordinate that begins with a zero byte: this one does."""
    key = next(
        key
        for key in (ec.derive_private_key(n, ec.SECP256R1()) for n in range(1, 5000))
        if key.public_key().public_numbers().x < 1 << 248
    )
    jwk = jose.private_jwk(key)
    assert {len(jwk[name]) for name in "xyd"} == {43}
    assert jose.read_private_jwk(jwk).private_numbers() == key.private_numbers()


@pytest.mark.parametrize(
    "jwk",
    [
        None,
        [],
        "key",
        {},
        RFC_KEY | {"kty": "RSA"},
        RFC_KEY | {"crv": "P-384"},
        RFC_KEY | {"crv": ["P-256"]},
        RFC_KEY | {"x": None},
        RFC_KEY | {"x": 5},
        RFC_KEY | {"x": "AA"},
        RFC_KEY | {"x": RFC_KEY["y"]},
        RFC_KEY | {"d": None},
        RFC_KEY | {"d": base64url(bytes(32))},
        RFC_KEY | {"d": base64url(b"\xff" * 32)},
        RFC_KEY | {"d": base64url(bytes(31) + b"\x01")},
    ],
)
def test_other_keys_are_refused(jwk: object) -> None:
    with pytest.raises(JoseError) as caught:
        jose.read_private_jwk(jwk)
    assert RFC_KEY["d"] not in str(caught.value)


def test_other_curves_are_refused() -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    for use in (
        lambda: jose.public_jwk(key.public_key()),
        lambda: jose.thumbprint(key.public_key()),
        lambda: jose.sign({}, key, kid="1"),
    ):
        with pytest.raises(JoseError):
            use()


def test_a_signed_token_verifies_and_says_what_was_put_in() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    claims = {"iss": "mosaic-fed", "sans": ["urn:uuid:1"], "exp": 1790000000, "name": "Zürich"}
    for _ in range(300):  # r or s begins with a zero byte in one of 128
        header, payload, signature = jose.sign(claims, key, kid="k1").split(".")
        assert json.loads(from_base64url(header)) == {"alg": "ES256", "kid": "k1", "typ": "JWT"}
        assert json.loads(from_base64url(payload)) == claims
        raw = from_base64url(signature)
        assert len(raw) == 64
        r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
        key.public_key().verify(
            encode_dss_signature(r, s), f"{header}.{payload}".encode(), ec.ECDSA(hashes.SHA256())
        )


def test_the_derivation_of_the_rfc() -> None:
    assert jose._wrapping_key(RFC_HEADER, RFC_PASSWORD) == RFC_DERIVED


def test_encryption_both_ways() -> None:
    token = jose.encrypt(b"secret", PASSWORD, iterations=FEW)
    assert jose.decrypt(token, PASSWORD) == b"secret"
    assert token != jose.encrypt(b"secret", PASSWORD, iterations=FEW)
    header = json.loads(from_base64url(token.split(".")[0]))
    assert header.pop("p2s")
    assert header == {
        "alg": "PBES2-HS256+A128KW",
        "cty": "jwk+json",
        "enc": "A256GCM",
        "p2c": FEW,
    }


def test_new_keys_take_many_iterations() -> None:
    header = json.loads(from_base64url(jose.encrypt(b"", PASSWORD).split(".")[0]))
    assert header["p2c"] == 600_000


# Made with jwcrypto 1.6.1: b'{"kty":"EC"}' under the password above.
FOREIGN = {
    "PBES2-HS256+A128KW, A256GCM": (
        "eyJhbGciOiJQQkVTMi1IUzI1NitBMTI4S1ciLCJjdHkiOiJqd2sranNvbiIsImVuYyI6IkEyNTZHQ00i"
        "LCJwMmMiOjgxOTIsInAycyI6IjJfRnBfdTlwbDhMbkxjUGc2OFdQZlEifQ.Q9OCHQ-yLFmT3C9y6jJ6J"
        "gXRJLVUZekBA4viWSBpdBSfzuk095TH1g.K4EVfStzu672cd-V.-rRQEJ9Dq_MQIEWa.WFvc5a8lH8G7"
        "y9qvmpkfcg"
    ),
    "PBES2-HS256+A128KW, A128GCM": (
        "eyJhbGciOiJQQkVTMi1IUzI1NitBMTI4S1ciLCJjdHkiOiJqd2sranNvbiIsImVuYyI6IkExMjhHQ00i"
        "LCJwMmMiOjgxOTIsInAycyI6ImYzUDVVa24tQXNyTjFLcmxjZ0ZSb2cifQ.2Z8a_wm4uyAKiXnA0RBxt"
        "lPoF0eQcL0k.5M8JtOjkFYvxVH8S.UQLjSXdlOMt1F46B.WTKpJ-IyTsutZmQH5mX6PQ"
    ),
    "PBES2-HS384+A192KW, A192GCM": (
        "eyJhbGciOiJQQkVTMi1IUzM4NCtBMTkyS1ciLCJjdHkiOiJqd2sranNvbiIsImVuYyI6IkExOTJHQ00i"
        "LCJwMmMiOjgxOTIsInAycyI6Ing0dTJXZmFxUVdRdmJadXltU1FXQXcifQ.DoUStsAnHkTEfu7Ecr1Mh"
        "79ArCAMjFJeT_mlva6hQY0.WL-7E9mouvuzdMXh.-82uJ_6PYqu_QqTq.u5glVZEnjYuT5GWpo3YnrQ"
    ),
    "PBES2-HS512+A256KW, A256GCM": (
        "eyJhbGciOiJQQkVTMi1IUzUxMitBMjU2S1ciLCJjdHkiOiJqd2sranNvbiIsImVuYyI6IkEyNTZHQ00i"
        "LCJwMmMiOjgxOTIsInAycyI6IlpXaUQwVnAycWxwZDc5RVpEOEpaeXcifQ.JOpDLDo5aTMaSbxeW5rcL"
        "G3qC0Lg93ObntPyXk_ixRzcaOBN_rTnHA.o8A3Oczjwbi-3c-l.xZNGHO98kJHoOLAJ.nqE1gYABOaT_"
        "ZHPq-cjELw"
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_others_wrote_is_read(kind: str) -> None:
    assert jose.decrypt(FOREIGN[kind], PASSWORD) == b'{"kty":"EC"}'


@pytest.mark.parametrize("part", range(5))
def test_any_change_is_noticed(part: int) -> None:
    parts = ENCRYPTED.split(".")
    parts[part] = ("A" if parts[part][0] != "A" else "B") + parts[part][1:]
    with pytest.raises(JoseError):
        jose.decrypt(".".join(parts), PASSWORD)


def test_a_wrong_password_says_so_and_nothing_more() -> None:
    with pytest.raises(JoseError, match="password is wrong") as caught:
        jose.decrypt(ENCRYPTED, b"staple battery")
    assert "staple" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"alg": None},
        {"alg": "dir"},
        {"alg": ["PBES2-HS256+A128KW"]},
        {"enc": None},
        {"enc": "A128CBC-HS256"},
        {"enc": ["A256GCM"]},
        {"enc": "A128GCM"},
        {"p2c": None},
        {"p2c": 999},
        {"p2c": 10_000_001},
        {"p2c": 2**70},
        {"p2c": -1},
        {"p2c": True},
        {"p2c": 1000.0},
        {"p2c": "1000"},
        {"p2s": None},
        {"p2s": 5},
        {"p2s": ""},
        {"p2s": base64url(bytes(7))},
        {"p2s": "*" * 22},
        {"crit": ["exp"]},
        {"zip": "DEF"},
    ],
)
def test_other_kinds_are_refused(changes: dict[str, object]) -> None:
    begun = time.monotonic()
    with pytest.raises(JoseError):
        jose.decrypt(with_header(**changes), PASSWORD)
    assert time.monotonic() - begun < SLOWEST_ALLOWED


@pytest.mark.parametrize("iterations", [999, 10_000_001])
def test_iterations_are_bounded_when_writing_too(iterations: int) -> None:
    with pytest.raises(JoseError):
        jose.encrypt(b"", PASSWORD, iterations=iterations)


@given(st.one_of(st.text(), st.text(alphabet="AQ-_.e", max_size=40)))
@example("....")
@example(base64url(b"[" * 40_000) + "....")
@example(base64url(b"[1]") + "....")
@example(base64url(b'{"a":NaN}') + "....")
@example("A" * (jose.MAX_TOKEN_CHARACTERS + 1))
@example(ENCRYPTED + ".")
@example(ENCRYPTED.rsplit(".", 1)[0] + ".AAAA")
@example("\ud800....")
def test_strangers_raise_nothing_else(text: str) -> None:
    with pytest.raises(JoseError):
        jose.decrypt(text, PASSWORD)
