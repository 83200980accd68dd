"""The embedded authority: a root, an issuing certificate and their keys in one directory.

A successor has a directory of its own, with the same root but without the root's key. An authority
keeps no list of what it signed and knows of no revocation: that truth is the ledger's, and here it
is only signed (`ca/crl.py`). It never replaces a key it finds.
"""

import json
import re
import secrets
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from ca import crl, private_files
from ca.authority import AuthorityFilesError, AuthorityRefused, Kind, RevocationAnswer
from ca.csr import read_csr
from ca.hierarchy import Issuer, new_issuing, new_root, pkcs8
from ca.profile import SigningOrder, certificate_builder

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,47}", re.ASCII)
_DESCRIPTION: Final = "authority.json"
_ROOT: Final = "root"
_ISSUING: Final = "issuing"
ROOT_KEY: Final = f"{_ROOT}.key"
"""The root's private key in a directory that `create` made; it may be taken elsewhere."""


class LocalAuthorityError(AuthorityFilesError):
    """The directory holds no usable authority, or already holds something."""


@dataclass(frozen=True, slots=True)
class LocalAuthority:
    """An `Authority` in this process. Signing is deterministic (RFC 6979) and takes under 1 ms.

    `name`: what its certificates' names begin with.
    """

    id: str
    name: str
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
        number: int = 1,
        randomness: Callable[[int], bytes] = secrets.token_bytes,
    ) -> Self:
        """Make an authority in `directory`, which must not exist or be empty; then open it.

        `name` (1 to 48 of `[A-Za-z0-9 ._-]`) appears in its certificates, and `number` unless it
        is 1; `now` is aware. `randomness` feeds identifiers only: keys always come from the
        cryptographic library. Everything is written beside, synced, and renamed into place in one
        step: after an interruption there is either a whole authority or none.

        Raises:
            LocalAuthorityError: `directory` holds something; a bad name.
            OSError: the file system said no.
        """
        if not _NAME.fullmatch(name):
            raise LocalAuthorityError("the name is 1 to 48 letters, digits, spaces, dots, _ or -")
        root = new_root(name, number, now, randomness)
        issuing = new_issuing(name, number, root, now, randomness)
        files = _files(name, root.certificate, issuing, randomness)
        _make(directory, {**files, ROOT_KEY: pkcs8(root.key)})
        return cls.open(directory)

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open an authority made by `create`. The root's key may have been taken elsewhere.

        Raises:
            LocalAuthorityError: something is missing, unreadable, open to other users of this
                machine, or does not fit together.
        """
        with _explained(directory):
            private_files.refuse_loose(directory, directory.stat(), forbidden=0o022)
            # Not needed to sign; but if it lies here, it must not lie open.
            with suppress(FileNotFoundError):
                root_key = directory / ROOT_KEY
                private_files.refuse_loose(root_key, root_key.stat(), forbidden=0o077)
            return cls._open(directory)

    @classmethod
    def _open(cls, directory: Path) -> Self:
        description = json.loads((directory / _DESCRIPTION).read_text("utf-8"))
        root = x509.load_pem_x509_certificate((directory / f"{_ROOT}.pem").read_bytes())
        issuing = x509.load_pem_x509_certificate((directory / f"{_ISSUING}.pem").read_bytes())
        key = serialization.load_pem_private_key(
            private_files.read(directory / f"{_ISSUING}.key"), password=None
        )
        root.verify_directly_issued_by(root)
        issuing.verify_directly_issued_by(root)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError("the issuing key is not an EC key")
        if key.public_key() != issuing.public_key():
            raise ValueError("the issuing key is not the one in the issuing certificate")
        identifier = str(uuid.UUID(str(description["id"])))
        return cls(identifier, str(description["name"]), issuing, root, key)

    def successor(
        self,
        directory: Path,
        *,
        root_key: Path,
        now: datetime,
        number: int,
        randomness: Callable[[int], bytes] = secrets.token_bytes,
    ) -> Self:
        """Make another authority under the same root in `directory`, as `create` does.

        `root_key`: the file with the root's private key, which stays where it is. `number`: which
        issuing certificate of the name it is.

        Raises:
            LocalAuthorityError: `directory` holds something; the key is not that of the root.
            OSError: the file system said no.
        """
        with _explained(root_key):
            key = serialization.load_pem_private_key(private_files.read(root_key), password=None)
        if key.public_key() != self._root.public_key() or not isinstance(
            key, ec.EllipticCurvePrivateKey
        ):
            raise LocalAuthorityError(f"{root_key} is not the key of this authority's root")
        issuing = new_issuing(self.name, number, Issuer(self._root, key), now, randomness)
        _make(directory, _files(self.name, self._root, issuing, randomness))
        return self.open(directory)

    @property
    def kind(self) -> Kind:
        return "local"

    @property
    def not_after(self) -> datetime:
        return self._issuing.not_valid_after_utc

    @property
    def root_not_after(self) -> datetime:
        """When its root ends, aware: no successor under it lives longer."""
        return self._root.not_valid_after_utc

    @property
    def extra_extensions(self) -> Mapping[str, bytes | None]:
        return MappingProxyType({})

    def chain(self) -> tuple[bytes, ...]:
        """Return (issuing, root) in DER."""
        return self._issuing.public_bytes(Encoding.DER), self._root.public_bytes(Encoding.DER)

    def sign(self, order: SigningOrder, *, timeout: float) -> bytes:
        """Sign `order`; the same order gives the same bytes. Never waits, so `timeout` is moot.

        Raises:
            AuthorityRefused: the order outlives the issuing certificate or contradicts itself; the
                request cannot be read, or asks for names.
        """
        if order.not_after >= self.not_after:
            raise AuthorityRefused(403, "the certificate would outlive its issuer")
        try:
            read_csr(order.csr_der)  # long done; but a request with names is never signed here
            builder = certificate_builder(order, self._issuing)
            certificate = builder.sign(self._issuing_key, hashes.SHA256(), ecdsa_deterministic=True)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise AuthorityRefused(400, "the order cannot be made a certificate") from error
        return certificate.public_bytes(Encoding.DER)

    def sign_list(self, wanted: crl.RevocationList) -> bytes:
        """See `crl.SignsLists`."""
        return crl.sign(wanted, self._issuing, self._issuing_key)

    def revoke(self, serial: str, reason: str, *, timeout: float) -> RevocationAnswer:
        """Answer `unsupported`: there is nobody to tell, the ledger itself is the record."""
        return RevocationAnswer.UNSUPPORTED

    def close(self) -> None:
        """Do nothing: nothing is open."""


def _files(
    name: str,
    root: x509.Certificate,
    issuing: Issuer,
    randomness: Callable[[int], bytes],
) -> dict[str, bytes]:
    """What every authority's directory holds: file name → content."""
    identifier = str(uuid.UUID(bytes=randomness(16), version=4))
    return {
        _DESCRIPTION: json.dumps({"id": identifier, "name": name, "version": 1}).encode() + b"\n",
        f"{_ROOT}.pem": root.public_bytes(Encoding.PEM),
        f"{_ISSUING}.key": pkcs8(issuing.key),
        f"{_ISSUING}.pem": issuing.certificate.public_bytes(Encoding.PEM),
    }


def _make(directory: Path, files: Mapping[str, bytes]) -> None:
    """Make the directory with these files, whole or not at all."""
    try:
        private_files.make_directory(directory, files)
    except FileExistsError as error:
        raise LocalAuthorityError(f"{directory} already holds something") from error


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Whatever is wrong with the files at `path` is a LocalAuthorityError."""
    try:
        yield
    except OSError as error:
        raise LocalAuthorityError(f"{error.filename}: {error.strerror}") from error
    except private_files.NotPrivateError as error:
        raise LocalAuthorityError(str(error)) from error
    except (ValueError, TypeError, KeyError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise LocalAuthorityError(f"{path}: not a usable authority") from error
