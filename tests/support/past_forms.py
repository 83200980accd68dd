"""Requests and certificates for a made-up past: real DER, made by filling in a signed form.

Only the signatures are not right, and the points are on no curve; lengths, fields and digests are
those of real ones. Signing some hundred thousand would take longer than all the rest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from hashlib import sha1, sha256
from random import Random
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from ca.profile import SigningOrder, certificate_builder, order_extensions
from ledger.canonical import format_time
from ledger.events import IssuanceAuthorized
from ledger.issuance import Request, Signed

_NAME: Final = "peer-0123456789abcdef"  # a form has no room for longer names and users
_GRANT: Final = "0d9cb46e-5a0c-4a39-9d4e-0b6f5f1a7c11"
_SUBJECT: Final = "user-00000"
_SERIAL: Final = "4f" + "ab" * 15
_BEGIN: Final = datetime(2031, 1, 2, 3, 4, 5, tzinfo=UTC)
_END: Final = datetime(2032, 2, 3, 4, 5, 6, tzinfo=UTC)
TAIL: Final = 24
"""Octets of a signature that are filled in, at the end."""
_POINT: Final = 64  # octets of x and y

Parts = tuple[bytes | str, ...]
"""Of a form: octets that stay, and the names of those that are filled in."""


def _cut(octets: bytes, values: Mapping[str, bytes]) -> Parts:
    """Cut out these values, wherever they are, and put their names in."""
    parts: list[bytes | str] = [octets]
    for name, value in values.items():
        cut: list[bytes | str] = []
        for part in parts:
            first, *others = [part] if isinstance(part, str) else part.split(value)
            cut.append(first)
            for other in others:
                cut += (name, other)
        parts = cut
    return tuple(parts)


def filled(parts: Parts, values: Mapping[str, bytes]) -> bytes:
    return b"".join([values[part] if isinstance(part, str) else part for part in parts])


def _key(number: int) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(number, ec.SECP256R1())


def _spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


_PEER_KEY: Final = _key(0xFED)
_SPKI: Final = _spki(_PEER_KEY)
_REQUEST: Final = (
    x509.CertificateSigningRequestBuilder()
    .subject_name(x509.Name([]))
    .sign(_PEER_KEY, hashes.SHA256(), ecdsa_deterministic=True)
    .public_bytes(Encoding.DER)
)
_IN_REQUEST: Final = _REQUEST.index(_SPKI[-_POINT:])
REQUEST: Final = (*_cut(_REQUEST[:-TAIL], {"point": _SPKI[-_POINT:]}), "tail")
BEFORE_POINT: Final = _SPKI[:-_POINT]
"""Of a SubjectPublicKeyInfo; its key's point is the rest."""


def point_of(csr: bytes) -> bytes:
    """Where the key of a request of this form is on its curve, x and y."""
    return csr[_IN_REQUEST : _IN_REQUEST + _POINT]


def request(dice: Random) -> Request:
    """A request with a key never seen before."""
    point = dice.randbytes(_POINT)
    der = filled(REQUEST, {"point": point, "tail": dice.randbytes(TAIL)})
    return Request(der, sha256(der).hexdigest(), sha256(BEFORE_POINT + point).hexdigest())


class Form(NamedTuple):
    """A certificate, cut where its TBSCertificate begins and ends."""

    before: bytes
    tbs: Parts
    after: Parts


@dataclass
class Forms:
    """Certificates by one issuer, who signs one form."""

    issuer: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    chain: Sequence[bytes]  # DER, the issuer first

    @cached_property
    def form(self) -> Form:
        order = SigningOrder(
            issuance_id=_GRANT,
            csr_der=_REQUEST,
            key_digest=sha256(_SPKI).hexdigest(),
            serial=_SERIAL,
            not_before=_BEGIN,
            not_after=_END,
            common_name=_NAME,
            san_uri=f"urn:uuid:{_GRANT}",
            extensions=order_extensions(_GRANT, _SUBJECT),
        )
        builder = certificate_builder(order, self.issuer)
        signed = builder.sign(self.key, hashes.SHA256(), ecdsa_deterministic=True)
        der = signed.public_bytes(Encoding.DER)
        tbs = to_be_signed(der)
        values = {
            "point": _SPKI[-_POINT:],
            "identifier": key_identifier(_SPKI[-_POINT:]),
            "serial": bytes.fromhex(_SERIAL),
            "subject": _NAME.encode(),
            "begin": der_time(format_time(_BEGIN).encode()),
            "end": der_time(format_time(_END).encode()),
            "grant": _GRANT.encode(),
            "user": _SUBJECT.encode(),
        }
        return Form(der[: tbs.start], _cut(der[tbs], values), (der[tbs.stop : -TAIL], "tail"))

    def certificate(self, order: IssuanceAuthorized, subject_user_id: str, dice: Random) -> Signed:
        """What the issuer would have answered to this order."""
        (san,) = order.san
        point = point_of(order.csr)
        values = {
            "point": point,
            "identifier": key_identifier(point),
            "serial": bytes.fromhex(order.serial),
            "subject": order.subject.encode(),
            "begin": der_time(format_time(order.not_before).encode()),
            "end": der_time(format_time(order.not_after).encode()),
            "grant": san.removeprefix("urn:uuid:").encode(),
            "user": subject_user_id.encode(),
            "tail": dice.randbytes(TAIL),
        }
        before, tbs, after = self.form
        signed = filled(tbs, values)
        der = before + signed + filled(after, values)
        return Signed(der, sha256(der).hexdigest(), sha256(signed).hexdigest())


def to_be_signed(der: bytes) -> slice:
    """Where in a certificate its TBSCertificate is, which begins at 4."""
    return slice(4, 8 + int.from_bytes(der[6:8], "big"))


def key_identifier(point: bytes) -> bytes:
    """Of a public key by its point (RFC 5280 §4.2.1.2, the first method)."""
    return sha1(b"\x04" + point).digest()


def der_time(moment: bytes) -> bytes:
    """As a UTCTime, which certificates have in whole seconds, of what format_time() writes."""
    return moment[2:19].translate(None, b"-T:") + b"Z"


@cache
def made_up_issuer(begin: datetime) -> Forms:
    """An issuer nobody has the key of, for ten years."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "made-up issuing")])
    key = _key(0xCA)
    certificate = (
        x509.CertificateBuilder()
        .serial_number(1)
        .issuer_name(name)
        .subject_name(name)
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=3650))
        .public_key(key.public_key())
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .sign(key, hashes.SHA256(), ecdsa_deterministic=True)
    )
    return Forms(certificate, key, [certificate.public_bytes(Encoding.DER)])
