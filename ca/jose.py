"""The little of JOSE that step-ca speaks: P-256 keys as JWK, ES256 tokens, password-protected JWE.

It reads no files, keeps no keys and knows no claims. Libraries exist, but refuse the iteration
counts of `step`'s key files by default. Whatever a stranger wrote raises JoseError and nothing
else, and the work it can cause is bounded before it starts.
"""

import base64
import binascii
import hashlib
import re
import secrets
from collections.abc import Callable, Mapping
from typing import Final

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

MAX_TOKEN_CHARACTERS: Final = 64 * 1024
"""The longest JWE read."""

ITERATIONS: Final = 600_000
"""What new key files take, PBKDF2-HMAC-SHA-256: OWASP's figure, and that of `step ca init`."""

_FEWEST_ITERATIONS: Final = 1_000  # RFC 7518 §4.8.1.2
_MOST_ITERATIONS: Final = 10_000_000  # a second or two: what a stranger's file may cost
_ALGORITHM: Final = "PBES2-HS256+A128KW"
_KEY_WRAPS: Final[Mapping[str, tuple[type[hashes.HashAlgorithm], int]]] = {
    _ALGORITHM: (hashes.SHA256, 16),
    "PBES2-HS384+A192KW": (hashes.SHA384, 24),
    "PBES2-HS512+A256KW": (hashes.SHA512, 32),
}
_ENCRYPTION: Final = "A256GCM"
_ENCRYPTIONS: Final = {"A128GCM": 16, "A192GCM": 24, _ENCRYPTION: 32}  # → bytes of the key
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_SALT_BYTES: Final = 16
_COORDINATE_BYTES: Final = 32
_ES256: Final = ec.ECDSA(hashes.SHA256())
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)


class JoseError(ValueError):
    """A key or token cannot be used. The text never echoes it."""


def base64url(data: bytes) -> str:
    """Return base64url without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_base64url(text: str) -> bytes:
    """Read base64url without padding; every value has exactly one text.

    Raises:
        JoseError: padding, other characters, a length or last bits that no encoder writes.
    """
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise JoseError("not base64url") from None
    if not _BASE64URL.fullmatch(text) or base64url(data) != text:
        raise JoseError("not base64url")
    return data


# ---- keys -------------------------------------------------------------------------------------


def public_jwk(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    """Return a P-256 key as a JWK (RFC 7517) for ES256 signatures; `kid` is its thumbprint."""
    _require_p256(key)
    numbers = key.public_numbers()
    return {
        "use": "sig",
        "kty": "EC",
        "kid": thumbprint(key),
        "crv": "P-256",
        "alg": "ES256",
        "x": _coordinate(numbers.x),
        "y": _coordinate(numbers.y),
    }


def private_jwk(key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    """Return a P-256 key as a JWK, the secret `d` included."""
    return {**public_jwk(key.public_key()), "d": _coordinate(key.private_numbers().private_value)}


def thumbprint(key: ec.EllipticCurvePublicKey) -> str:
    """Return the JWK thumbprint (RFC 7638) of a P-256 key, SHA-256 in base64url."""
    _require_p256(key)
    numbers = key.public_numbers()
    required = {"crv": "P-256", "kty": "EC", "x": _coordinate(numbers.x)}
    required["y"] = _coordinate(numbers.y)  # RFC 7638 §3: in lexicographic order
    return base64url(hashlib.sha256(orjson.dumps(required)).digest())


def read_public_jwk(jwk: object) -> ec.EllipticCurvePublicKey:
    """Read a P-256 public key. Members that say nothing about the key itself are ignored.

    Raises:
        JoseError: it is anything else.
    """
    if not isinstance(jwk, Mapping) or (jwk.get("kty"), jwk.get("crv")) != ("EC", "P-256"):
        raise JoseError("not an EC P-256 key")
    x, y = _number(jwk.get("x")), _number(jwk.get("y"))
    try:
        return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    except ValueError:
        raise JoseError("not a point on P-256") from None


def read_private_jwk(jwk: object) -> ec.EllipticCurvePrivateKey:
    """Read a P-256 private key whose public half is the one it names.

    Raises:
        JoseError: it is anything else.
    """
    public = read_public_jwk(jwk)
    secret = _number(jwk.get("d") if isinstance(jwk, Mapping) else None)
    try:
        key = ec.derive_private_key(secret, ec.SECP256R1())
    except ValueError:
        raise JoseError("not a private key of P-256") from None
    if key.public_key() != public:
        raise JoseError("the private key is not that of the public one")
    return key


def _require_p256(key: ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey) -> None:
    if not isinstance(key.curve, ec.SECP256R1):
        raise JoseError("not an EC P-256 key")


def _coordinate(number: int) -> str:
    return base64url(number.to_bytes(_COORDINATE_BYTES, "big"))


def _number(text: object) -> int:
    # RFC 7518 §6.2.1.2: always the full width of the curve, leading zeros included.
    data = from_base64url(text) if isinstance(text, str) else b""
    if len(data) != _COORDINATE_BYTES:
        raise JoseError("a coordinate of a P-256 key is 32 bytes in base64url")
    return int.from_bytes(data, "big")


# ---- tokens -----------------------------------------------------------------------------------


def sign(claims: Mapping[str, object], key: ec.EllipticCurvePrivateKey, *, kid: str) -> str:
    """Return `claims` as a JWT (RFC 7519) in compact form, signed with ES256 (RFC 7518 §3.4).

    Raises:
        JoseError: the key is not of P-256.
        TypeError: a claim is no JSON.
    """
    _require_p256(key)
    header = base64url(orjson.dumps({"alg": "ES256", "kid": kid, "typ": "JWT"}))
    signed = f"{header}.{base64url(orjson.dumps(claims))}"
    r, s = decode_dss_signature(key.sign(signed.encode(), _ES256))
    width = _COORDINATE_BYTES
    return f"{signed}.{base64url(r.to_bytes(width, 'big') + s.to_bytes(width, 'big'))}"


# ---- encryption -------------------------------------------------------------------------------


def encrypt(
    plaintext: bytes,
    password: bytes,
    *,
    content_type: str = "jwk+json",
    iterations: int = ITERATIONS,
    randomness: Callable[[int], bytes] = secrets.token_bytes,
) -> str:
    """Return `plaintext` as a compact JWE (RFC 7516), its key wrapped under `password`.

    PBES2-HS256+A128KW (RFC 7518 §4.8) and A256GCM, as `step` writes and every step-ca reads.

    Raises:
        JoseError: `iterations` is not 1 000 to 10 000 000.
    """
    salt, nonce = randomness(_SALT_BYTES), randomness(_NONCE_BYTES)
    header = {
        "alg": _ALGORITHM,
        "cty": content_type,
        "enc": _ENCRYPTION,
        "p2c": iterations,
        "p2s": base64url(salt),
    }
    content_key = randomness(_ENCRYPTIONS[_ENCRYPTION])
    wrapped = aes_key_wrap(_wrapping_key(header, password), content_key)
    protected = base64url(orjson.dumps(header))
    sealed = AESGCM(content_key).encrypt(nonce, plaintext, protected.encode())
    parts = (wrapped, nonce, sealed[:-_TAG_BYTES], sealed[-_TAG_BYTES:])
    return ".".join([protected, *map(base64url, parts)])


def decrypt(token: str, password: bytes) -> bytes:
    """Return the plaintext of a compact JWE of the kind `encrypt` writes, up to 64 KiB.

    PBES2 with SHA-256, -384 or -512 and AES-GCM with any key length are read; nothing else is.

    Raises:
        JoseError: another kind, damaged, more than 10 000 000 iterations, or a wrong password.
    """
    if len(token) > MAX_TOKEN_CHARACTERS or token.count(".") != 4:
        raise JoseError("not a compact JWE of up to 64 KiB")
    protected, *rest = token.split(".")
    header = _header(protected)
    wrapped, nonce, ciphertext, tag = map(from_base64url, rest)
    if len(nonce) != _NONCE_BYTES or len(tag) != _TAG_BYTES:
        raise JoseError("the JWE's nonce or tag has another length than AES-GCM's")
    try:
        content_key = aes_key_unwrap(_wrapping_key(header, password), wrapped)
        if len(content_key) != _ENCRYPTIONS[str(header["enc"])]:
            raise JoseError("the JWE's key has another length than its encryption's")
        return AESGCM(content_key).decrypt(nonce, ciphertext + tag, protected.encode())
    except (InvalidUnwrap, InvalidTag):
        raise JoseError("the password is wrong, or the JWE was altered") from None


def _header(protected: str) -> Mapping[str, object]:
    """Read a JWE's header, as far as it is of the kind read here."""
    try:
        header = orjson.loads(from_base64url(protected))
    except orjson.JSONDecodeError:
        raise JoseError("the JWE's header is not JSON") from None
    if not isinstance(header, dict):
        raise JoseError("the JWE's header is not a JSON object")
    # What is critical or compressed needs more than is done here (RFC 7516 §4.1.3, §4.1.13).
    if "crit" in header or "zip" in header or header.get("enc") not in tuple(_ENCRYPTIONS):
        raise JoseError("the JWE is not of the kind read here")
    return header


def _wrapping_key(header: Mapping[str, object], password: bytes) -> bytes:
    """Derive the key that wraps the content key (RFC 7518 §4.8.1.1), after bounding the work."""
    algorithm, iterations, salt_text = (header.get(name) for name in ("alg", "p2c", "p2s"))
    if not isinstance(algorithm, str) or algorithm not in _KEY_WRAPS:
        raise JoseError("the JWE's key is not wrapped by PBES2")
    if type(iterations) is not int or not _FEWEST_ITERATIONS <= iterations <= _MOST_ITERATIONS:
        raise JoseError("the JWE asks for fewer or more iterations than are done here")
    salt = from_base64url(salt_text) if isinstance(salt_text, str) else b""
    if len(salt) < 8:
        raise JoseError("the JWE's salt is missing or under 8 bytes")
    algorithm_hash, length = _KEY_WRAPS[algorithm]
    derivation = PBKDF2HMAC(algorithm_hash(), length, algorithm.encode() + b"\0" + salt, iterations)
    return derivation.derive(password)
