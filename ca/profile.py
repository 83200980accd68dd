"""What our certificates look like: the order for one, building it, and checking what came back.

It signs nothing, asks nobody and decides nothing: it knows certificates, not grants or tables.
The profile is RFC 5280's, for TLS clients: key usage digitalSignature, extended key usage
clientAuth, CA:false, both key identifiers, one URI name, and the order's own two extensions.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from cryptography.x509.oid import SignatureAlgorithmOID as Signature

from ca import extensions
from ca.csr import PARSER_ERRORS, key_digest
from ca.der import Element, children, encode, only_element

DEFAULT_ARC: Final = "1.3.6.1.4.1.99999"
"""The arc of our two extensions; unregistered, hence configurable."""

BACKDATE: Final = timedelta(seconds=60)
"""How far a certificate begins in the past, for clocks that run behind."""

SHORTEST_LIFE: Final = timedelta(minutes=5)
"""Less than this left, and no certificate is ordered."""

_SERIAL: Final = re.compile(r"[4-7][0-9a-f]{31}", re.ASCII)
_SIGNATURES: Final = frozenset(
    {
        Signature.ECDSA_WITH_SHA256,
        Signature.ECDSA_WITH_SHA384,
        Signature.ECDSA_WITH_SHA512,
        Signature.RSA_WITH_SHA256,
        Signature.RSA_WITH_SHA384,
        Signature.RSA_WITH_SHA512,
        Signature.ED25519,
    }
)
_UTF8_STRING: Final = 0x0C
_TBS_FIELDS: Final = 8  # RFC 5280 §4.1 without the two unique identifiers, which are obsolete
_KEY_FIELD: Final = 6


class ValidityTooShort(ValueError):  # noqa: N818 - a refusal, named as the rules name it
    """Less than SHORTEST_LIFE is left. `limited_by` is `grant`, `issuer` or `ttl`."""

    def __init__(self, limited_by: str) -> None:
        super().__init__(f"under {SHORTEST_LIFE.seconds // 60} minutes are left ({limited_by})")
        self.limited_by = limited_by


@dataclass(frozen=True, slots=True)
class SigningOrder:
    """One certificate as it shall be, decided and recorded before any authority is asked.

    `issuance_id` (a UUID) names the order towards the authority and is no part of the certificate.
    `key_digest` is that of `ca.csr.key_digest`, `serial` 32 lower-case hex digits, the times are
    aware and of whole seconds, `extensions` are the (OID, DER value) pairs beyond the fixed
    profile, all non-critical.
    """

    issuance_id: str
    csr_der: bytes
    key_digest: str
    serial: str
    not_before: datetime
    not_after: datetime
    common_name: str
    san_uri: str
    extensions: tuple[tuple[str, bytes], ...]

    def __post_init__(self) -> None:
        for moment in (self.not_before, self.not_after):
            # A certificate holds whole seconds: an order that says more could never be met.
            if moment.utcoffset() is None or moment.microsecond:
                raise ValueError("an order's times are aware and of whole seconds")
        if parse_serial(self.serial) != self.serial:
            raise ValueError("an order's serial is 32 lower-case hex digits")


def new_serial(randomness: Callable[[int], bytes]) -> str:
    """Draw a serial: 16 octets, the top bits 01, as 32 lower-case hex digits.

    With those bits it is positive and always 16 octets in DER; 126 random bits are left, where
    the CA/Browser Forum asks for 64. `randomness(n)` must return n unpredictable bytes.
    """
    drawn = randomness(16)
    if len(drawn) != 16:
        raise ValueError("the source of randomness returned another number of bytes")
    return bytes([drawn[0] & 0x3F | 0x40, *drawn[1:]]).hex()


def parse_serial(text: str) -> str:
    """Read a serial as people and tools write it (colons, upper case, `0x`); return 32 hex digits.

    Raises:
        ValueError: it is no serial we could have drawn.
    """
    folded = text.strip().lower().removeprefix("0x").replace(":", "")
    if not _SERIAL.fullmatch(folded):
        raise ValueError("not a serial: 32 hex digits of which the first is 4 to 7")
    return folded


def der_utf8(text: str) -> bytes:
    """Return `text` as a DER UTF8String (X.690 §8.23), the value of our own extensions.

    Raises:
        ValueError: lone surrogates, or more than 65 535 bytes.
    """
    return encode(_UTF8_STRING, text.encode())


def read_der_utf8(value: bytes) -> str:
    """Read what `der_utf8` writes, and nothing else.

    Raises:
        ValueError: it is no DER UTF8String.
    """
    element = only_element(value)
    if element.tag != _UTF8_STRING:
        raise ValueError("not a UTF8String")
    return element.content.decode()


def order_extensions(
    grant_id: str, subject_user_id: str, arc: str = DEFAULT_ARC
) -> tuple[tuple[str, bytes], ...]:
    """Return our two extensions as (OID, DER value): the grant's id and the subject user's."""
    return (f"{arc}.1", der_utf8(grant_id)), (f"{arc}.2", der_utf8(subject_user_id))


def validity(
    now: datetime, ttl: timedelta, grant_expires_at: datetime, issuer_not_after: datetime
) -> tuple[datetime, datetime]:
    """Return (notBefore, notAfter) of a certificate ordered at `now`, in whole seconds of UTC.

    notAfter is inclusive in RFC 5280 §4.1.2.5 and therefore rounded down: never past the grant,
    and at least a second before the issuer's own end. All arguments are aware.

    Raises:
        ValidityTooShort: under SHORTEST_LIFE would be left.
    """
    # In UTC first: arithmetic on moments of one time zone is on its wall clock, so that a day
    # added over the end of summer time lasts 25 hours.
    now, issuer_not_after = now.astimezone(UTC), issuer_not_after.astimezone(UTC)
    limits = {
        "grant": grant_expires_at.astimezone(UTC),
        "issuer": issuer_not_after - timedelta(seconds=1),
        "ttl": now + ttl,
    }
    limited_by = min(limits, key=lambda name: limits[name])
    not_after = limits[limited_by].replace(microsecond=0)
    if not_after - now < SHORTEST_LIFE:
        raise ValidityTooShort(limited_by)
    return (now - BACKDATE).replace(microsecond=0), not_after


def certificate_builder(order: SigningOrder, issuer: x509.Certificate) -> x509.CertificateBuilder:
    """Return the builder of the ordered certificate, for an authority that signs here.

    The same order and issuer give the same TBSCertificate, byte by byte.

    Raises:
        ValueError: the order's request cannot be read or its key is not the ordered one.
    """
    key = x509.load_der_x509_csr(order.csr_der).public_key()
    if key_digest(key) != order.key_digest:
        raise ValueError("the request does not hold the ordered key")
    builder = (
        x509.CertificateBuilder()
        .serial_number(int(order.serial, 16))
        .issuer_name(issuer.subject)
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, order.common_name)]))
        .not_valid_before(order.not_before)
        .not_valid_after(order.not_after)
        .public_key(key)
    )
    own_id = extensions.key_ids(_spki(key)).older
    for oid, critical, value in _profile(order, own_id, _key_id(issuer)):
        written = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)
        builder = builder.add_extension(written, critical)
    return builder


def check_certificate(
    der: bytes,
    order: SigningOrder,
    chain: Sequence[bytes],
    *,
    allowed_extra_oids: Mapping[str, bytes | None] = MappingProxyType({}),
) -> tuple[str, ...]:
    """Compare a certificate with its order; return what differs, empty if it is exactly as ordered.

    `chain` is the pinned chain in DER, the issuing certificate first and the root last. Extensions
    in `allowed_extra_oids` may be there as well, non-critical and with the DER value given (None:
    any). Whatever `der` holds, nothing is raised; findings never echo it beyond OIDs and times.

    Raises:
        ValueError: `chain`, which is ours, is empty or cannot be read.
    """
    if not chain:
        raise ValueError("no chain to check against")
    pinned = _pinned(tuple(chain))
    try:
        certificate = x509.load_der_x509_certificate(der)
        fields = children(children(der)[0].der)
        found = extensions.found_in(fields)
        spki = _own_spki(certificate, fields, order.key_digest)
        own = extensions.key_ids(spki)
        wanted = (
            *_profile(order, own.older, pinned.key_id),
            extensions.subject_key_id(own.newer),  # either will do
        )
        return (
            *_check_fields(certificate, order, spki, len(fields)),
            *_check_signature(certificate, pinned.issuer),
            *pinned.findings,
            *extensions.differences(found, wanted, allowed_extra_oids),
        )
    except PARSER_ERRORS as error:
        return (f"certificate: cannot be read ({type(error).__name__})",)


def tbs_sha256(der: bytes) -> str:
    """Return the SHA-256 (64 lower-case hex) of a certificate's TBSCertificate.

    Raises:
        ValueError: `der` is no certificate.
    """
    try:
        x509.load_der_x509_certificate(der)  # so that nothing but a certificate has a digest
        signed = children(der)[0].der
    except PARSER_ERRORS as error:
        raise ValueError("not a certificate") from error
    return _sha256(signed)


def certificate_sha256(der: bytes) -> str:
    """Return the SHA-256 (64 lower-case hex) of a whole certificate, its usual fingerprint."""
    return _sha256(der)


def _profile(
    order: SigningOrder, key_id: bytes, issuer_key_id: bytes
) -> tuple[extensions.Extension, ...]:
    return extensions.profile(key_id, issuer_key_id, order.san_uri, order.extensions)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _spki(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _key_id(issuer: x509.Certificate) -> bytes:
    return issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest


def _own_spki(certificate: x509.Certificate, fields: Sequence[Element], key_digest: str) -> bytes:
    """The certificate's key as we encode it. One with the digest ordered is, and need not be loaded."""
    if len(fields) == _TBS_FIELDS and _sha256(found := fields[_KEY_FIELD].der) == key_digest:
        return found
    return _spki(certificate.public_key())


def _check_fields(
    certificate: x509.Certificate, order: SigningOrder, spki: bytes, number_of_fields: int
) -> Iterable[str]:
    if certificate.version is not x509.Version.v3 or number_of_fields != _TBS_FIELDS:
        yield "version: not 3, or other fields than the profile's"
    if _sha256(spki) != order.key_digest:
        yield "key: not the ordered one"
    if certificate.serial_number != int(order.serial, 16):
        yield "serial: not the ordered one"
    if certificate.not_valid_before_utc != order.not_before:
        yield f"validity: notBefore is {certificate.not_valid_before_utc.isoformat()}"
    if certificate.not_valid_after_utc != order.not_after:
        yield f"validity: notAfter is {certificate.not_valid_after_utc.isoformat()}"
    subject = [(a.oid, a.value) for rdn in certificate.subject.rdns for a in rdn]
    if subject != [(NameOID.COMMON_NAME, order.common_name)]:
        yield "subject: not exactly the ordered common name"


def _check_signature(certificate: x509.Certificate, issuer: x509.Certificate) -> Iterable[str]:
    if certificate.signature_algorithm_oid not in _SIGNATURES:
        yield "signature: algorithm not accepted"
    if not _is_signed_by(certificate, issuer):
        yield "chain: the signature at depth 0 does not verify"


class _Pinned(NamedTuple):
    """A pinned chain: what checking by it needs, and which signatures in it do not verify."""

    issuer: x509.Certificate
    key_id: bytes
    findings: tuple[str, ...]


@lru_cache(maxsize=16)
def _pinned(chain: tuple[bytes, ...]) -> _Pinned:
    """Read a chain: each is signed by the next, the last (the root) by itself. Worth keeping: it
    takes longer than all else here."""
    links = tuple(x509.load_der_x509_certificate(link) for link in chain)
    findings = (
        f"chain: the signature at depth {depth} does not verify"
        for depth, (one, by) in enumerate(zip(links, [*links[1:], links[-1]], strict=True), 1)
        if not _is_signed_by(one, by)
    )
    return _Pinned(links[0], _key_id(links[0]), tuple(findings))


def _is_signed_by(one: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        one.verify_directly_issued_by(by)
    except (*PARSER_ERRORS, InvalidSignature):
        return False
    return True
