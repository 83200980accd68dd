"""The certificates of a local authority: a root, and the issuing certificates under it.

It makes keys and certificates in memory; where they are kept, and what they sign, is the business
of `ca/local.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from ca.profile import new_serial

ROOT_LIFE: Final = timedelta(days=3652)
"""Ten years; an issuing certificate ends with its root, and can be replaced at any time before."""

_BACKDATE: Final = timedelta(hours=1)  # relying parties' clocks may run behind on the first day


@dataclass(frozen=True, slots=True)
class Issuer:
    """A CA certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def new_root_key() -> ec.EllipticCurvePrivateKey:
    """Make a root's key. It is asked once per chain and lives long: the larger curve."""
    return ec.generate_private_key(ec.SECP384R1())


def new_issuing_key() -> ec.EllipticCurvePrivateKey:
    """Make an issuing key. It signs everything: the faster curve."""
    return ec.generate_private_key(ec.SECP256R1())


def new_root(
    name: str,
    number: int,
    now: datetime,
    randomness: Callable[[int], bytes],
    key: ec.EllipticCurvePrivateKey | None = None,
) -> Issuer:
    """Make a root for ten years. `number`: which of its name it is, from 1. `key`: None for a new."""
    begin = _backdated(now)
    key = key or new_root_key()
    common_name = _numbered(f"{name} root CA", number)
    lives = (begin, begin + _BACKDATE + ROOT_LIFE)
    return Issuer(_ca_certificate(common_name, key, None, 1, lives, new_serial(randomness)), key)


def new_issuing(
    name: str,
    number: int,
    root: Issuer,
    now: datetime,
    randomness: Callable[[int], bytes],
    key: ec.EllipticCurvePrivateKey | None = None,
) -> Issuer:
    """Make an issuing certificate that ends with its root. `key`: None for a new one.

    `number`: which of its name it is, from 1. Two keys under one name would make chain building
    and revocation lists guess.
    """
    key = key or new_issuing_key()
    common_name = _numbered(f"{name} issuing CA", number)
    begin = max(_backdated(now), root.certificate.not_valid_before_utc)
    lives = (begin, root.certificate.not_valid_after_utc)
    return Issuer(_ca_certificate(common_name, key, root, 0, lives, new_serial(randomness)), key)


def _numbered(common_name: str, number: int) -> str:
    return common_name if number == 1 else f"{common_name} {number}"


def _backdated(now: datetime) -> datetime:
    return now.astimezone(UTC).replace(microsecond=0) - _BACKDATE


def pkcs8(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The key as unencrypted PEM: for a file that only its owner reads."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _ca_certificate(
    common_name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: Issuer | None,
    path_length: int,
    lives: tuple[datetime, datetime],
    serial: str,
) -> x509.Certificate:
    """Sign a CA certificate (RFC 5280 §4.2); by itself if `issuer` is None."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        x509.CertificateBuilder()
        .serial_number(int(serial, 16))
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .not_valid_before(lives[0])
        .not_valid_after(lives[1])
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_CA_KEY_USAGE, critical=True)
        .add_extension(key_id, critical=False)
    )
    if issuer:
        issuer_key_id = x509.SubjectKeyIdentifier.from_public_key(issuer.key.public_key())
        authority_key_id = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier
        builder = builder.add_extension(authority_key_id(issuer_key_id), critical=False)
    signing_key = issuer.key if issuer else key
    return builder.sign(signing_key, hashes.SHA384(), ecdsa_deterministic=True)


_CA_KEY_USAGE: Final = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)
