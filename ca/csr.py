"""Reads a certificate signing request from a stranger: a Csr, or one CsrError.

It does not know the peer, the grant or whether the key was seen before, and it signs nothing.
Work is bounded before anything expensive: size, then structure, then the key's kind and size, and
only then is the signature verified.
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Final, Literal, NoReturn

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtensionOID, NameOID
from cryptography.x509.oid import SignatureAlgorithmOID as Signature

from ca.der import check_outline

MAX_CSR_BYTES: Final = 16 * 1024
"""The largest request read, in bytes as received (PEM or DER)."""

ACCEPTED_KEYS: Final = "EC P-256, EC P-384, Ed25519, or RSA of 3072 to 8192 bits"
"""For people: what `csr-key` asks for."""

CsrCode = Literal[
    "csr-malformed", "csr-too-large", "csr-signature", "csr-key", "csr-names", "csr-subject"
]
PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey

_MIN_RSA_BITS: Final = 3072
_MAX_RSA_BITS: Final = 8192  # verification is quadratic in the size
_MAX_RSA_EXPONENT: Final = 2**32
_MAX_DEPTH: Final = 16
_MAX_ELEMENTS: Final = 1024
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1)
_ECDSA_SIGNATURES: Final = (
    Signature.ECDSA_WITH_SHA256,
    Signature.ECDSA_WITH_SHA384,
    Signature.ECDSA_WITH_SHA512,
)
_RSA_SIGNATURES: Final = (
    Signature.RSA_WITH_SHA256,
    Signature.RSA_WITH_SHA384,
    Signature.RSA_WITH_SHA512,
)
_MICROSOFT_EXTENSION_REQUEST: Final = x509.ObjectIdentifier("1.3.6.1.4.1.311.2.1.14")
_SAN_OID_DER: Final = bytes.fromhex("0603551d11")

PARSER_ERRORS: Final = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    Warning,
)
"""What `cryptography` raises on hostile bytes, found by fuzzing. Warning: under `-W error`."""


class CsrError(ValueError):
    """The request cannot be used. `detail` is for people and never echoes the request.

    Codes: `csr-too-large` (over 16 KiB) · `csr-malformed` (no single well-formed PKCS #10 request
    in PEM or DER; a duplicate extension or attribute) · `csr-key` (not one of ACCEPTED_KEYS) ·
    `csr-signature` (does not verify, or SHA-1, MD5, PSS …) · `csr-names` (a subject alternative
    name is requested; ours is fixed) · `csr-subject` (subject neither empty nor the one name).
    """

    def __init__(self, code: CsrCode, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code: CsrCode = code
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Csr:
    """A request that holds together: signed by the key in it, and a key we accept.

    `key_digest` is the SHA-256 (64 lower-case hex) of the SubjectPublicKeyInfo as *we* encode it:
    named curve, uncompressed point. A request that carries the same EC key as a compressed point
    has other bytes, and a digest of those would let one key pass for two; here both give one.
    `common_name` is None when the subject is empty.
    """

    der: bytes
    key_digest: str
    public_key: PublicKey
    common_name: str | None


def read_csr(text: bytes | str) -> Csr:
    """Read one request: PEM (exactly one block and nothing else) or DER, RFC 2986.

    Requested extensions other than a subject alternative name are ignored.

    Raises:
        CsrError: any reason at all; the only exception.
    """
    der = _der(text)
    try:
        check_outline(der, max_depth=_MAX_DEPTH, max_elements=_MAX_ELEMENTS)
        request = x509.load_der_x509_csr(der)
        key = _accepted_key(request)
        _check_signature(request, key)
        _check_attributes(request)
        name = _common_name(request.subject)
    except CsrError:
        raise
    except PARSER_ERRORS:
        _malformed("not a well-formed PKCS #10 request")
    return Csr(der=der, key_digest=key_digest(key), public_key=key, common_name=name)


def check_names(csr: Csr, common_name: str) -> None:
    """Demand that the request's subject is empty or exactly `common_name`.

    Raises:
        CsrError: `csr-subject`.
    """
    if csr.common_name not in (None, common_name):
        raise CsrError("csr-subject", "the subject must be empty or the peer's name")


def key_digest(key: CertificatePublicKeyTypes) -> str:
    """Return the SHA-256 (64 lower-case hex) of `key`'s SubjectPublicKeyInfo as encoded by us."""
    return hashlib.sha256(_spki(key)).hexdigest()


def _spki(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _malformed(detail: str) -> NoReturn:
    raise CsrError("csr-malformed", detail) from None


def _der(text: bytes | str) -> bytes:
    # A character is at least a byte, so too many characters need no encoding to be refused.
    if len(text) > MAX_CSR_BYTES:
        raise CsrError("csr-too-large", f"a request is at most {MAX_CSR_BYTES} bytes")
    if isinstance(text, str):
        if not text.isascii():
            _malformed("PEM is ASCII")
        text = text.encode("ascii")
    elif text[:1] == b"\x30":  # a SEQUENCE; in PEM it would be the digit 0, before any BEGIN
        return bytes(text)
    return _pem_block(text)


def _pem_block(text: bytes) -> bytes:
    """Decode exactly one block (RFC 7468 §7); headers, comments and second blocks are refused."""
    lines = [line.strip() for line in text.strip().split(b"\n")]
    for label in (b"CERTIFICATE REQUEST", b"NEW CERTIFICATE REQUEST"):
        if lines[0] == b"-----BEGIN %s-----" % label and lines[-1] == b"-----END %s-----" % label:
            break
    else:
        _malformed("not exactly one PEM block CERTIFICATE REQUEST")
    body = b"".join(lines[1:-1])
    try:
        der = base64.b64decode(body, validate=True)
    except binascii.Error:
        _malformed("the PEM block is not base64")
    if base64.b64encode(der) != body:
        _malformed("the PEM block is not canonical base64")
    return der


def _accepted_key(request: x509.CertificateSigningRequest) -> PublicKey:
    """Return the request's key if it is one of ACCEPTED_KEYS."""
    try:
        key = request.public_key()
    except PARSER_ERRORS:
        key = None
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES):
        return key
    if isinstance(key, rsa.RSAPublicKey) and _is_sane_rsa(key) and _is_plain(key, request):
        return key
    if isinstance(key, ed25519.Ed25519PublicKey) and _is_plain(key, request):
        return key
    raise CsrError("csr-key", f"the key must be {ACCEPTED_KEYS}") from None


def _is_plain(key: PublicKey, request: x509.CertificateSigningRequest) -> bool:
    """Whether the request holds `key` in its one encoding, and so says no more about it.

    It might say more than we would repeat in a certificate: a key "for RSA-PSS only" loads as a
    plain RSA key. EC keys have several encodings and are exempt.
    """
    return _spki(key) in request.tbs_certrequest_bytes


def _is_sane_rsa(key: rsa.RSAPublicKey) -> bool:
    numbers = key.public_numbers()
    return (
        _MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS
        and 65537 <= numbers.e < _MAX_RSA_EXPONENT
        and numbers.e % 2 == 1
        and numbers.n % 2 == 1
    )


def _signatures_by(key: PublicKey) -> tuple[x509.ObjectIdentifier, ...]:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return _ECDSA_SIGNATURES
    return _RSA_SIGNATURES if isinstance(key, rsa.RSAPublicKey) else (Signature.ED25519,)


def _check_signature(request: x509.CertificateSigningRequest, key: PublicKey) -> None:
    if request.signature_algorithm_oid not in _signatures_by(key):
        raise CsrError(
            "csr-signature", "sign with SHA-256, SHA-384 or SHA-512 (RSA: PKCS #1 v1.5), or Ed25519"
        )
    try:
        _verify(key, request)
    except (*PARSER_ERRORS, InvalidSignature):
        raise CsrError(
            "csr-signature", "the signature does not verify with the key in the request"
        ) from None


def _verify(key: PublicKey, request: x509.CertificateSigningRequest) -> None:
    """Verify with the key that is loaded already: the request itself would load it once more."""
    signature, signed = request.signature, request.tbs_certrequest_bytes
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key.verify(signature, signed)
    hashing = request.signature_hash_algorithm
    if hashing is None:
        raise InvalidSignature
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.verify(signature, signed, ec.ECDSA(hashing))
    return key.verify(signature, signed, PKCS1v15(), hashing)


def _check_attributes(request: x509.CertificateSigningRequest) -> None:
    """Refuse duplicates (whose meaning depends on the reader) and every way of asking for a SAN."""
    attributes = list(request.attributes)
    if len({attribute.oid for attribute in attributes}) < len(attributes):
        _malformed("an attribute occurs twice")
    extensions = request.extensions  # raises on a duplicate extension
    # Of two attributes that request extensions, the PKCS #9 one and Microsoft's older one, the
    # parser reads only one: what it may have passed over is searched for the OID.
    foreign = [a.value for a in attributes if a.oid == _MICROSOFT_EXTENSION_REQUEST]
    if any(extension.oid == ExtensionOID.SUBJECT_ALTERNATIVE_NAME for extension in extensions) or (
        any(_SAN_OID_DER in value for value in foreign)
    ):
        raise CsrError("csr-names", "a request must not ask for subject alternative names")


def _common_name(subject: x509.Name) -> str | None:
    attributes = [attribute for rdn in subject.rdns for attribute in rdn]
    if not attributes:
        return None
    value = attributes[0].value
    if (
        len(attributes) > 1
        or attributes[0].oid != NameOID.COMMON_NAME
        or not isinstance(value, str)
    ):
        raise CsrError("csr-subject", "the subject must be empty or one common name")
    return value
