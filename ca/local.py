"""The embedded authority: a root, an issuing intermediate and their keys in one directory.

It keeps no list of what it signed and knows nothing of revocation or CRLs: that truth is the
ledger's, and `ca/crl.py` will borrow its key to sign it. It never replaces a key it finds.
"""

import json
import os
import re
import secrets
import shutil
import stat
import tempfile
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from ca.authority import AuthorityRefused, RevocationAnswer
from ca.profile import SigningOrder, certificate_builder, new_serial

ROOT_LIFE: Final = timedelta(days=3652)
"""Ten years; the intermediate ends with the root, for nothing here would replace it earlier."""

_BACKDATE: Final = timedelta(hours=1)  # relying parties' clocks may run behind on the first day
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,47}", re.ASCII)
_DESCRIPTION: Final = "authority.json"
_ROOT: Final = "root"
_ISSUING: Final = "issuing"


class LocalAuthorityError(Exception):
    """The directory holds no usable authority, or already holds something."""


@dataclass(frozen=True, slots=True)
class LocalAuthority:
    """An `Authority` in this process. Signing is deterministic (RFC 6979) and takes under 1 ms."""

    id: str
    _issuing: x509.Certificate
    _root: x509.Certificate
    _issuing_key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(
        cls,
        directory: Path,
        *,
        name: str,
        now: datetime,
        randomness: Callable[[int], bytes] = secrets.token_bytes,
    ) -> Self:
        """Make an authority in `directory`, which must not exist or be empty; then open it.

        `name` (1 to 48 of `[A-Za-z0-9 ._-]`) appears in its certificates; `now` is aware.
        `randomness` feeds identifiers only: keys always come from the cryptographic library.
        Everything is written beside, synced, and renamed into place in one step: after an
        interruption there is either a whole authority or none.

        Raises:
            LocalAuthorityError: `directory` holds something; a bad name.
            OSError: the file system said no.
        """
        if not _NAME.fullmatch(name):
            raise LocalAuthorityError("the name is 1 to 48 letters, digits, spaces, dots, _ or -")
        directory.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
        try:
            for file, content in _new_files(name, now, randomness).items():
                _write(beside / file, content)
            _sync_directory(beside)
            _move_into_place(beside, directory)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        return cls.open(directory)

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open an authority made by `create`. The root's key may have been taken elsewhere.

        Raises:
            LocalAuthorityError: something is missing, unreadable, open to other users of this
                machine, or does not fit together.
        """
        try:
            _refuse_loose(directory, directory.stat(), forbidden=0o022)
            # Not needed to sign; but if it lies here, it must not lie open.
            with suppress(FileNotFoundError):
                root_key = directory / f"{_ROOT}.key"
                _refuse_loose(root_key, root_key.stat(), forbidden=0o077)
            return cls._open(directory)
        except OSError as error:
            raise LocalAuthorityError(f"{error.filename}: {error.strerror}") from error
        except (ValueError, TypeError, KeyError, UnsupportedAlgorithm, InvalidSignature) as error:
            raise LocalAuthorityError(f"{directory}: not a usable authority") from error

    @classmethod
    def _open(cls, directory: Path) -> Self:
        description = json.loads((directory / _DESCRIPTION).read_text("utf-8"))
        root = x509.load_pem_x509_certificate((directory / f"{_ROOT}.pem").read_bytes())
        issuing = x509.load_pem_x509_certificate((directory / f"{_ISSUING}.pem").read_bytes())
        key = serialization.load_pem_private_key(
            _read_private(directory / f"{_ISSUING}.key"), password=None
        )
        root.verify_directly_issued_by(root)
        issuing.verify_directly_issued_by(root)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError("the issuing key is not an EC key")
        if key.public_key() != issuing.public_key():
            raise ValueError("the issuing key is not the one in the issuing certificate")
        return cls(str(uuid.UUID(str(description["id"]))), issuing, root, key)

    @property
    def kind(self) -> str:
        return "local"

    @property
    def not_after(self) -> datetime:
        return self._issuing.not_valid_after_utc

    @property
    def extra_extensions(self) -> Mapping[str, bytes | None]:
        return MappingProxyType({})

    def chain(self) -> tuple[bytes, ...]:
        """Return (issuing, root) in DER."""
        return self._issuing.public_bytes(Encoding.DER), self._root.public_bytes(Encoding.DER)

    def sign(self, order: SigningOrder, *, timeout: float) -> bytes:
        """Sign `order`; the same order gives the same bytes. Never waits, so `timeout` is moot.

        Raises:
            AuthorityRefused: the order outlives the issuing certificate or contradicts itself.
        """
        if order.not_after >= self.not_after:
            raise AuthorityRefused(403, "the certificate would outlive its issuer")
        try:
            builder = certificate_builder(order, self._issuing)
            certificate = builder.sign(self._issuing_key, hashes.SHA256(), ecdsa_deterministic=True)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise AuthorityRefused(400, "the order cannot be made a certificate") from error
        return certificate.public_bytes(Encoding.DER)

    def revoke(self, serial: str, reason: str, *, timeout: float) -> RevocationAnswer:
        """Answer `unsupported`: there is nobody to tell, the ledger itself is the record."""
        return RevocationAnswer.UNSUPPORTED


class _Issuer(NamedTuple):
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def _new_files(name: str, now: datetime, randomness: Callable[[int], bytes]) -> dict[str, bytes]:
    """Make keys and certificates; return file name → content."""
    not_before = now.astimezone(UTC).replace(microsecond=0) - _BACKDATE
    not_after = not_before + _BACKDATE + ROOT_LIFE
    # The root is asked once per chain and lives long: the larger curve. The intermediate signs
    # everything: the faster one.
    root_key = ec.generate_private_key(ec.SECP384R1())
    issuing_key = ec.generate_private_key(ec.SECP256R1())
    lives = (not_before, not_after)
    root = _ca_certificate(f"{name} root CA", root_key, None, 1, lives, new_serial(randomness))
    issuing = _ca_certificate(
        f"{name} issuing CA",
        issuing_key,
        _Issuer(root, root_key),
        0,
        lives,
        new_serial(randomness),
    )
    identifier = str(uuid.UUID(bytes=randomness(16), version=4))
    return {
        _DESCRIPTION: json.dumps({"id": identifier, "name": name, "version": 1}).encode() + b"\n",
        f"{_ROOT}.key": _pkcs8(root_key),
        f"{_ROOT}.pem": root.public_bytes(Encoding.PEM),
        f"{_ISSUING}.key": _pkcs8(issuing_key),
        f"{_ISSUING}.pem": issuing.public_bytes(Encoding.PEM),
    }


def _ca_certificate(
    common_name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: _Issuer | None,
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


def _pkcs8(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes) -> None:
    """Write a new file, 0600 from its first moment and on the disk when this returns."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _move_into_place(beside: Path, directory: Path) -> None:
    try:
        # rename(2) takes the place of nothing, or of an empty directory, and of nothing else:
        # of two creations at once exactly one gets here, and no key is ever overwritten.
        beside.rename(directory)
    except OSError as error:
        if directory.exists() or directory.is_symlink():
            raise LocalAuthorityError(f"{directory} already holds something") from error
        raise
    _sync_directory(directory.parent)


def _read_private(path: Path) -> bytes:
    # The mode of the file that was opened, not of whatever has the name a moment later.
    with path.open("rb") as file:
        _refuse_loose(path, os.fstat(file.fileno()), forbidden=0o077)
        return file.read()


def _refuse_loose(path: Path, status: os.stat_result, *, forbidden: int) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if mode & forbidden:
        raise LocalAuthorityError(
            f"{path} is open to others: mode {mode:04o}, take {forbidden:04o} away"
        )
    if status.st_uid not in (0, os.geteuid()):
        raise LocalAuthorityError(f"{path} belongs to another user")
