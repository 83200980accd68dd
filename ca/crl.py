"""Builds a certificate revocation list (RFC 5280 §5) and has an authority's key sign it.

It decides about no certificate and keeps no list: what is on one, and which number it has, comes
from the record (`ca/publishing.py`). The same list signed again is the same bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding


@dataclass(frozen=True, slots=True)
class Revoked:
    """A serial (32 hex) that counts as revoked, since when, and the RFC 5280 §5.3.1 reason."""

    serial: str
    since: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class RevocationList:
    """What a CRL says. Times are aware; a CRL has them in whole seconds. `entries` by serial."""

    number: int
    this_update: datetime
    next_update: datetime
    entries: tuple[Revoked, ...]


@runtime_checkable
class SignsLists(Protocol):
    """An authority whose key may sign CRLs here. One that runs elsewhere is none."""

    def sign_list(self, wanted: RevocationList) -> bytes:
        """Return the CRL in DER; the same `wanted` gives the same bytes."""


def sign(
    wanted: RevocationList, issuer: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> bytes:
    """Return `wanted` as a CRL of `issuer` in DER, signed deterministically (RFC 6979).

    Raises:
        ValueError: an unknown reason, or times that contradict each other.
    """
    key_id = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    authority_key_id = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id)
    builder = (
        x509.CertificateRevocationListBuilder(revoked_certificates=_entries(wanted.entries))
        .issuer_name(issuer.subject)
        .last_update(wanted.this_update)
        .next_update(wanted.next_update)
        .add_extension(authority_key_id, critical=False)
        .add_extension(x509.CRLNumber(wanted.number), critical=False)
    )
    signed = builder.sign(key, hashes.SHA256(), ecdsa_deterministic=True)
    return signed.public_bytes(Encoding.DER)


def _entries(entries: Sequence[Revoked]) -> list[x509.RevokedCertificate]:
    return [_entry(one) for one in entries]


def _entry(one: Revoked) -> x509.RevokedCertificate:
    builder = (
        x509.RevokedCertificateBuilder()
        .serial_number(int(one.serial, 16))
        .revocation_date(one.since)
    )
    reason = x509.ReasonFlags(one.reason)
    # RFC 5280 §5.3.1: `unspecified` is said by leaving the reason out.
    if reason is not x509.ReasonFlags.unspecified:
        builder = builder.add_extension(x509.CRLReason(reason), critical=False)
    return builder.build()
