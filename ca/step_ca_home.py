"""What a ledger keeps of a step-ca, in one directory: where it is, whom to believe, how to ask.

It calls nobody. The directory holds `authority.json` (id, URL, provisioner), `root.pem` and
`issuing.pem` (the certificates believed, and signed by), `provisioner.jwe` (the key that signs
tokens, encrypted) and its password in `provisioner.password`, or in a file somewhere else that
`authority.json` names. The keys of the step-ca itself are never here.
"""

import json
import os
import secrets
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Self

import orjson
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from ca import jose, private_files
from ca.authority import AuthorityFilesError
from ca.step_ca_client import checked_url

KIND: Final[Literal["step-ca"]] = "step-ca"
DESCRIPTION: Final = "authority.json"
ENCRYPTED_KEY: Final = "provisioner.jwe"
PASSWORD: Final = "provisioner.password"  # noqa: S105 - a file's name
_ROOT: Final = "root.pem"
_ISSUING: Final = "issuing.pem"
_OTHERS: Final = 0o077
_OTHERS_WRITE: Final = 0o022


@dataclass(frozen=True, slots=True)
class StepCaHome:
    """One directory, read. `key` signs one-time tokens, under the name `kid`.

    `id`: UUIDv4, lower case, for ever. `issuing` stands directly under `root`.
    """

    id: str
    url: str
    provisioner: str
    root: x509.Certificate
    issuing: x509.Certificate
    kid: str
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def make(
        cls,
        directory: Path,
        *,
        url: str,
        provisioner: str,
        root: x509.Certificate,
        issuing: x509.Certificate,
        encrypted_key: str,
        password: bytes | Path,
        randomness: Callable[[int], bytes] = secrets.token_bytes,
    ) -> Self:
        """Make the directory, which must not exist or be empty, whole or not at all; then read it.

        `encrypted_key`: the provisioner's, a compact JWE. `password`: its own, to be kept here, or
        the file that holds it. `randomness` feeds the id.

        Raises:
            AuthorityFilesError: the directory holds something; these do not belong together.
            OSError: the file system said no.
        """
        description = {
            "id": str(uuid.UUID(bytes=randomness(16), version=4)),
            "kind": KIND,
            "password_file": str(password.absolute()) if isinstance(password, Path) else None,
            "provisioner": provisioner,
            "url": url,
            "version": 1,
        }
        files = {
            DESCRIPTION: json.dumps(description).encode() + b"\n",
            _ROOT: root.public_bytes(Encoding.PEM),
            _ISSUING: issuing.public_bytes(Encoding.PEM),
            ENCRYPTED_KEY: encrypted_key.encode() + b"\n",
        }
        if isinstance(password, bytes):
            files[PASSWORD] = password + b"\n"
        with _explained(directory):
            # Before anything is written: what cannot be read again must not be in the way.
            _check(description, root, issuing)
            _key(encrypted_key, password if isinstance(password, bytes) else _elsewhere(password))
        try:
            private_files.make_directory(directory, files)
        except FileExistsError as error:
            raise AuthorityFilesError(f"{directory} already holds something") from error
        return cls.read(directory)

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read a directory made by `make`. Takes about 0.1 s: the key's encryption is meant to.

        Raises:
            AuthorityFilesError: something is missing, unreadable, open to other users of this
                machine, or does not fit together.
        """
        described = Description.read(directory)
        with _explained(directory):
            encrypted = private_files.read(directory / ENCRYPTED_KEY).decode("ascii").strip()
            kid, key = _first_key(encrypted, described.passwords())
            return cls(
                id=described.id,
                url=described.url,
                provisioner=described.provisioner,
                root=described.root,
                issuing=described.issuing,
                kid=kid,
                key=key,
            )


def refresh(directory: Path, encrypted_key: str, password: bytes | Path) -> None:
    """Put another provisioner's key into a directory whose own cannot be opened any more.

    Cut short between two writes it is as unusable as before, and can be repeated.

    Raises:
        AuthorityFilesError: these do not belong together, or the directory is no step-ca's.
        OSError: the file system said no.
    """
    with _explained(directory):
        Description.read(directory)
        _key(encrypted_key, password if isinstance(password, bytes) else _elsewhere(password))
    description = json.loads((directory / DESCRIPTION).read_text("utf-8"))
    description["password_file"] = str(password.absolute()) if isinstance(password, Path) else None
    if isinstance(password, bytes):
        private_files.replace(directory / PASSWORD, password + b"\n")
    private_files.replace(directory / ENCRYPTED_KEY, encrypted_key.encode() + b"\n")
    private_files.replace(directory / DESCRIPTION, json.dumps(description).encode() + b"\n")


@dataclass(frozen=True, slots=True)
class Description:
    """What a directory says of its step-ca, whether or not the provisioner's key can be opened."""

    id: str
    url: str
    provisioner: str
    root: x509.Certificate
    issuing: x509.Certificate
    _directory: Path
    _elsewhere: Path | None

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read it.

        Raises:
            AuthorityFilesError: something is missing, unreadable, open to other users of this
                machine, or does not fit together.
        """
        with _explained(directory):
            private_files.refuse_loose(directory, directory.stat(), forbidden=_OTHERS_WRITE)
            found = json.loads((directory / DESCRIPTION).read_text("utf-8"))
            root = x509.load_pem_x509_certificate((directory / _ROOT).read_bytes())
            issuing = x509.load_pem_x509_certificate((directory / _ISSUING).read_bytes())
            _check(found, root, issuing)
            elsewhere = found["password_file"]
            return cls(
                id=str(uuid.UUID(found["id"])),
                url=checked_url(found["url"]),
                provisioner=found["provisioner"],
                root=root,
                issuing=issuing,
                _directory=directory,
                _elsewhere=None if elsewhere is None else Path(elsewhere),
            )

    def passwords(self) -> list[bytes]:
        """What may open the key: two while a rotation is under way, or was cut short.

        Raises:
            AuthorityFilesError: it cannot be read.
        """
        with _explained(self._directory):
            if self._elsewhere is not None:
                return [_elsewhere(self._elsewhere)]
            own = self._directory / PASSWORD
            beside = own.with_name(f"{own.name}.next")
            return [private_files.read(one) for one in (own, beside) if one is own or one.exists()]


def _elsewhere(path: Path) -> bytes:
    """A password kept somewhere else: in a container it is a file that others may read."""
    with path.open("rb") as file:
        private_files.refuse_loose(path, os.fstat(file.fileno()), forbidden=_OTHERS_WRITE)
        return file.read()


def _check(description: Any, root: x509.Certificate, issuing: x509.Certificate) -> None:
    if description["kind"] != KIND or not isinstance(description["provisioner"], str):
        raise ValueError("not the description of a step-ca")
    checked_url(description["url"])
    root.verify_directly_issued_by(root)
    issuing.verify_directly_issued_by(root)


def _key(encrypted: str, password: bytes) -> tuple[str, ec.EllipticCurvePrivateKey]:
    """Return (kid, key). Editors and secret stores end a file with a newline that is not meant."""
    jwk = orjson.loads(jose.decrypt(encrypted, password.rstrip(b"\r\n")))
    key = jose.read_private_jwk(jwk)
    kid = jwk.get("kid")
    return kid if isinstance(kid, str) else jose.thumbprint(key.public_key()), key


def _first_key(
    encrypted: str, passwords: Sequence[bytes]
) -> tuple[str, ec.EllipticCurvePrivateKey]:
    *others, last = passwords
    for password in others:
        with suppress(jose.JoseError):
            return _key(encrypted, password)
    return _key(encrypted, last)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Whatever is wrong with the files at `path` is an AuthorityFilesError."""
    try:
        yield
    except OSError as error:
        raise AuthorityFilesError(f"{error.filename}: {error.strerror}") from error
    except private_files.NotPrivateError as error:
        raise AuthorityFilesError(str(error)) from error
    except jose.JoseError as error:
        raise AuthorityFilesError(f"{path}: the provisioner's key: {error}") from error
    except (ValueError, TypeError, KeyError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise AuthorityFilesError(f"{path}: not a usable authority") from error
