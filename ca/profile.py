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
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.oid import SignatureAlgorithmOID as Signature

from ca.csr import PARSER_ERRORS, key_digest
from ca.der import OCTET_STRING, Element, after_first, children, encode, only_element

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
_EXTENSIONS: Final = 0xA3
_CRITICAL: Final = b"\x01\x01\xff"  # a BOOLEAN; that an extension is not is not written in DER
_TBS_FIELDS: Final = 8  # RFC 5280 §4.1 without the two unique identifiers, which are obsolete


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
    subject_key_id = x509.SubjectKeyIdentifier.from_public_key(key)
    for extension, critical in _profile(order, issuer, subject_key_id):
        builder = builder.add_extension(extension, critical)
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
    issuers, broken = _pinned(tuple(chain))
    try:
        certificate = x509.load_der_x509_certificate(der)
        fields = children(children(der)[0].der)
        found = _found_extensions(certificate, fields)
        wanted = _wanted_extensions(certificate, order, issuers[0])
        return (
            *_check_fields(certificate, order, len(fields)),
            *_check_signature(certificate, issuers[0]),
            *broken,
            *_check_extensions(found, wanted, allowed_extra_oids),
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
    return hashlib.sha256(signed).hexdigest()


def certificate_sha256(der: bytes) -> str:
    """Return the SHA-256 (64 lower-case hex) of a whole certificate, its usual fingerprint."""
    return hashlib.sha256(der).hexdigest()


def _profile(
    order: SigningOrder, issuer: x509.Certificate, subject_key_id: x509.SubjectKeyIdentifier
) -> list[tuple[x509.ExtensionType, bool]]:
    """Every extension of the ordered certificate with its criticality: the profile, once."""
    issuer_key_id = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    own: Iterable[tuple[x509.ExtensionType, bool]] = (
        (x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), False)
        for oid, value in order.extensions
    )
    return [
        (_DIGITAL_SIGNATURE, True),
        (_CLIENT_AUTH, False),
        (_NO_CA, True),
        (subject_key_id, False),
        (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_key_id), False),
        (x509.SubjectAlternativeName([x509.UniformResourceIdentifier(order.san_uri)]), False),
        *own,
    ]


_DIGITAL_SIGNATURE: Final = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
_CLIENT_AUTH: Final = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
_NO_CA: Final = x509.BasicConstraints(ca=False, path_length=None)


def _check_fields(
    certificate: x509.Certificate, order: SigningOrder, number_of_fields: int
) -> Iterable[str]:
    if certificate.version is not x509.Version.v3 or number_of_fields != _TBS_FIELDS:
        yield "version: not 3, or other fields than the profile's"
    if key_digest(certificate.public_key()) != order.key_digest:
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


@lru_cache(maxsize=16)
def _pinned(chain: tuple[bytes, ...]) -> tuple[tuple[x509.Certificate, ...], tuple[str, ...]]:
    """Return a pinned chain's certificates, and which signatures among them do not verify: each by
    the next, the last (the root) by itself. Worth keeping: it takes longer than all else here."""
    issuers = tuple(x509.load_der_x509_certificate(link) for link in chain)
    findings = (
        f"chain: the signature at depth {depth} does not verify"
        for depth, (one, by) in enumerate(zip(issuers, [*issuers[1:], issuers[-1]], strict=True), 1)
        if not _is_signed_by(one, by)
    )
    return issuers, tuple(findings)


def _is_signed_by(one: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        one.verify_directly_issued_by(by)
    except (*PARSER_ERRORS, InvalidSignature):
        return False
    return True


def _check_extensions(
    found: Mapping[str, bytes],
    wanted: Mapping[str, Sequence[bytes]],
    extra: Mapping[str, bytes | None],
) -> Iterable[str]:
    for oid in sorted(wanted.keys() | found.keys()):
        if oid not in found:
            yield f"extension {oid}: missing"
        elif oid in wanted:
            if found[oid] not in wanted[oid]:
                yield f"extension {oid}: not as ordered"
        elif oid not in extra:
            yield f"extension {oid}: not ordered"
        elif not _is_extra(found[oid], extra[oid]):
            yield f"extension {oid}: not as the authority is known to write it"


def _is_extra(found: bytes, value: bytes | None) -> bool:
    """Whether it is not critical, and has this value; None: whichever it has."""
    return found[0] == OCTET_STRING if value is None else found == _written(value, critical=False)


def _found_extensions(certificate: x509.Certificate, fields: Sequence[Element]) -> dict[str, bytes]:
    """Return OID → all that follows it, as it stands and not as a parser would write it."""
    extensions = [
        extension
        for field in fields
        if field.tag == _EXTENSIONS
        for sequence in children(field.der)
        for extension in children(sequence.der)
    ]
    return {
        parsed.oid.dotted_string: after_first(extension.content)
        for parsed, extension in zip(certificate.extensions, extensions, strict=True)
    }


def _wanted_extensions(
    certificate: x509.Certificate, order: SigningOrder, issuer: x509.Certificate
) -> dict[str, list[bytes]]:
    """Return OID → everything accepted behind it."""
    # Two derivations of a key identifier are in use: RFC 5280 §4.2.1.2 (1), and the left 160 bits of
    # SHA-256, RFC 7093 §2 (1), which newer releases of Go write.
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    bit_string = children(spki)[1].content[1:]  # without the octet counting unused bits
    older, newer = (
        x509.SubjectKeyIdentifier(digest[:20])
        for digest in (
            hashlib.sha1(bit_string, usedforsecurity=False).digest(),
            hashlib.sha256(bit_string).digest(),
        )
    )
    wanted = {
        extension.oid.dotted_string: [_written(extension.public_bytes(), critical=critical)]
        for extension, critical in _profile(order, issuer, older)
    }
    wanted[newer.oid.dotted_string].append(_written(newer.public_bytes(), critical=False))
    return wanted


def _written(value: bytes, *, critical: bool) -> bytes:
    """Return what stands behind an extension's OID, in DER (RFC 5280 §4.1)."""
    return (_CRITICAL if critical else b"") + encode(OCTET_STRING, value)
