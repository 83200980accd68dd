"""The extensions of a certificate in DER: those of our profile, those found, and how they differ.

They are compared as bytes, so that nothing passes that only reads the same. It knows no order, parses
no certificate and signs none.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from ca.der import OCTET_STRING, SEQUENCE, Element, children, encode, oid_text, split_first

_URI: Final = 0x86  # of the names in a GeneralNames, RFC 5280 §4.2.1.6
_KEY_ID: Final = 0x80  # of an AuthorityKeyIdentifier, RFC 5280 §4.2.1.1
_EXTENSIONS: Final = 0xA3  # of a TBSCertificate
_CRITICAL: Final = b"\x01\x01\xff"  # a BOOLEAN; that an extension is not is not written in DER
_SUBJECT_KEY_ID: Final = ExtensionOID.SUBJECT_KEY_IDENTIFIER.dotted_string
_AUTHORITY_KEY_ID: Final = ExtensionOID.AUTHORITY_KEY_IDENTIFIER.dotted_string
_SUBJECT_NAMES: Final = ExtensionOID.SUBJECT_ALTERNATIVE_NAME.dotted_string


class Extension(NamedTuple):
    """One extension. `oid`: dotted. `value`: DER."""

    oid: str
    critical: bool
    value: bytes

    @property
    def rest(self) -> bytes:
        """What stands behind its OID, in DER (RFC 5280 §4.1)."""
        return (_CRITICAL if self.critical else b"") + encode(OCTET_STRING, self.value)


def _constant(extension: x509.ExtensionType, *, critical: bool) -> Extension:
    return Extension(extension.oid.dotted_string, critical, extension.public_bytes())


_CONSTANT: Final = (
    _constant(
        x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=False,
            crl_sign=False,
            encipher_only=False,
            decipher_only=False,
        ),
        critical=True,
    ),
    _constant(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False),
    _constant(x509.BasicConstraints(ca=False, path_length=None), critical=True),
)


class KeyIds(NamedTuple):
    """The two derivations of a key's identifier that are in use, 20 bytes each."""

    older: bytes
    """RFC 5280 §4.2.1.2 (1): SHA-1 of the key's bits."""
    newer: bytes
    """RFC 7093 §2 (1): the left 160 bits of SHA-256 of them, which newer releases of Go write."""


def key_ids(spki: bytes) -> KeyIds:
    """Return the identifiers of the key in this SubjectPublicKeyInfo (DER)."""
    bits = children(spki)[1].content[1:]  # without the octet counting unused bits
    return KeyIds(
        hashlib.sha1(bits, usedforsecurity=False).digest(), hashlib.sha256(bits).digest()[:20]
    )


def subject_key_id(key_id: bytes) -> Extension:
    """Return the extension that names the certificate's own key."""
    return Extension(_SUBJECT_KEY_ID, False, encode(OCTET_STRING, key_id))


def profile(
    key_id: bytes, issuer_key_id: bytes, uri: str, own: Iterable[tuple[str, bytes]]
) -> tuple[Extension, ...]:
    """Return every extension of a certificate as we order it.

    `key_id`, `issuer_key_id`: of its own and of the issuing key, 20 bytes. `uri`: its only name.
    `own`: (OID, DER value) of those beyond the fixed ones.
    """
    return (
        *_CONSTANT,
        subject_key_id(key_id),
        Extension(_AUTHORITY_KEY_ID, False, encode(SEQUENCE, encode(_KEY_ID, issuer_key_id))),
        Extension(_SUBJECT_NAMES, False, encode(SEQUENCE, encode(_URI, uri.encode("ascii")))),
        *(Extension(oid, False, value) for oid, value in own),
    )


Found = Mapping[str, bytes]
"""OID → what stands behind it, as it stands and not as a parser would write it."""


def found_in(fields: Sequence[Element]) -> Found:
    """Return the extensions among the fields of a TBSCertificate that a parser has taken.

    Raises:
        ValueError: one occurs twice.
    """
    found: dict[str, bytes] = {}
    for field in fields:
        if field.tag == _EXTENSIONS:
            (sequence,) = children(field.der)
            extensions = [split_first(one.content) for one in children(sequence.der)]
            found = {_text(oid.content): rest for oid, rest in extensions}
            if len(found) < len(extensions):
                raise ValueError("an extension occurs twice")
    return found


_text: Final = lru_cache(maxsize=64)(oid_text)


def differences(
    found: Found, wanted: Sequence[Extension], extra: Mapping[str, bytes | None]
) -> Iterable[str]:
    """Yield how what was found differs from what is wanted, for people, in order of the OIDs.

    Of several wanted with one OID any will do. `extra`: what may be there as well, not critical and
    with this value, None: any.
    """
    accepted: dict[str, list[bytes]] = {}
    for extension in wanted:
        accepted.setdefault(extension.oid, []).append(extension.rest)
    for oid in sorted(accepted.keys() | found.keys()):
        if oid not in found:
            yield f"extension {oid}: missing"
        elif oid in accepted:
            if found[oid] not in accepted[oid]:
                yield f"extension {oid}: not as ordered"
        elif oid not in extra:
            yield f"extension {oid}: not ordered"
        elif not _is_extra(found[oid], extra[oid]):
            yield f"extension {oid}: not as the authority is known to write it"


def _is_extra(rest: bytes, value: bytes | None) -> bool:
    return rest[0] == OCTET_STRING if value is None else rest == encode(OCTET_STRING, value)
