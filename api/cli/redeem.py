"""The peer's side of an enrollment: its key, its request, its certificate as files.

It needs the ledger's URL and the enrollment token, nothing else, and keeps to one rule: what is
there is never overwritten. A run that was cut short goes on with the key and the request it finds,
because the same token with the same request is answered with the same certificate.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from api.cli.exits import CommandError, Exit

KEY, REQUEST, CERTIFICATE, CHAIN = "client.key", "client.csr", "client.crt", "chain.pem"
_SECRET_MODE: Final = 0o600
_PUBLIC_MODE: Final = 0o644
_DIRECTORY_MODE: Final = 0o700


@dataclass(frozen=True, slots=True)
class Files:
    """Where a peer keeps one enrollment."""

    directory: Path

    @property
    def key(self) -> Path:
        """The private key, PKCS#8 PEM, 0600."""
        return self.directory / KEY

    @property
    def request(self) -> Path:
        """The certificate signing request, PEM."""
        return self.directory / REQUEST

    @property
    def certificate(self) -> Path:
        """The client certificate, PEM."""
        return self.directory / CERTIFICATE

    @property
    def chain(self) -> Path:
        """The certificate and what it was signed by, PEM, the client's first."""
        return self.directory / CHAIN


def prepare(files: Files) -> str:
    """Make key and request where they are missing, and return the request as PEM.

    Raises:
        CommandError: a certificate is there already, or the key that is there is not usable.
    """
    if files.certificate.exists():
        raise CommandError(
            Exit.REFUSED,
            f"{files.certificate} exists",
            "This place holds a finished enrollment; nothing is overwritten.",
            "Choose another --out directory.",
        )
    try:
        files.directory.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
        if not files.key.exists():
            write_new(files.key, _new_key(), _SECRET_MODE)
        key = files.key.read_bytes()
        if not files.request.exists():
            write_new(files.request, _new_request(key), _PUBLIC_MODE)
        return files.request.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(Exit.INVALID, "cannot prepare key and request", str(error)) from error


def store(files: Files, certificate: str, chain: str) -> None:
    """Store what came back, after a look whether it is for our key.

    Raises:
        CommandError: it is not a certificate for the key that asked, or cannot be written.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(files.key.read_bytes(), None)
        issued = x509.load_pem_x509_certificate(certificate.encode())
        if issued.public_key() != key.public_key():
            raise CommandError(Exit.INTEGRITY, "the certificate is not for the key that asked")
        write_new(files.chain, chain.encode(), _PUBLIC_MODE, replace=True)
        write_new(files.certificate, certificate.encode(), _PUBLIC_MODE)  # last: it says "finished"
    except (OSError, ValueError) as error:
        raise CommandError(Exit.INTEGRITY, "what came back cannot be stored", str(error)) from error


def write_new(path: Path, content: bytes, mode: int, *, replace: bool = False) -> None:
    """Write a file that was not there, with its mode from the first byte on, and make it durable.

    Without the fsync a power cut could leave a redeemed token and no key.

    Raises:
        FileExistsError: it is there, and `replace` is false.
    """
    how = os.O_TRUNC if replace else os.O_EXCL
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | how, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read_extension(certificate: str, oid: str) -> str | None:
    """Return the DER UTF8String in the extension, or None when the certificate has none such.

    Source: X.690 §8.23; only the short and the two long length forms our profile can produce.
    """
    from cryptography import x509

    parsed = x509.load_pem_x509_certificate(certificate.encode())
    for extension in parsed.extensions:
        if extension.oid.dotted_string == oid:
            return _utf8_string(extension.value.public_bytes())
    return None


def _utf8_string(der: bytes) -> str | None:
    if len(der) < 2 or der[0] != 0x0C:  # the tag UTF8String
        return None
    start = 2 if der[1] < 0x80 else 2 + (der[1] & 0x7F)  # long form: that many length octets
    length = der[1] if der[1] < 0x80 else int.from_bytes(der[2:start], "big")
    content = der[start:]
    return content.decode("utf-8", "replace") if len(content) == length else None


def _new_key() -> bytes:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _new_request(key_pem: bytes) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

    try:
        key = load_pem_private_key(key_pem, None)
    except (ValueError, TypeError) as error:
        raise CommandError(Exit.INVALID, f"the {KEY} that is there is not a key") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CommandError(Exit.INVALID, f"the {KEY} that is there is not an elliptic curve key")
    # An empty subject: the name in the certificate is the ledger's to give.
    request = x509.CertificateSigningRequestBuilder(subject_name=x509.Name([]))
    return request.sign(key, SHA256()).public_bytes(Encoding.PEM)


def key_digest(key_pem: bytes) -> str:
    """Return the SHA-256 (hex) of the key's SubjectPublicKeyInfo: what a token can be pinned to."""
    import hashlib

    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PublicFormat,
        load_pem_private_key,
    )

    public = load_pem_private_key(key_pem, None).public_key()
    return hashlib.sha256(
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ).hexdigest()
