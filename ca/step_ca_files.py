"""The files of a step-ca that we set up: where each stands, how it is read and how it is written.

What must be in them is decided in `ca/step_ca_setup.py` and `ca/step_ca_rotation.py`.
"""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from ca import jose, private_files
from ca.step_ca_config import ConfigError, Document

FOR_LEDGER: Final = "for-ledger"
"""The folder with all that a ledger needs of its step-ca, and nothing that it does not."""

_OTHERS_WRITE: Final = 0o022
_LEAST_PASSWORD: Final = 12  # characters, where somebody chose one


PROVISIONER_KEY: Final = "provisioner.jwe"
PROVISIONER_PASSWORD: Final = "provisioner.password"  # noqa: S105 - a file's name
FINGERPRINT: Final = "root_fingerprint"

DEVELOPMENT_PASSWORDS: Final = frozenset(
    {
        b"development only: not a secret (ca)",
        b"development only: not a secret (provisioner)",
    }
)
"""Those that the repository ships as examples: everybody has them."""


class SetUpError(Exception):
    """Nothing was changed, or what was is sound. The text says what is wrong and what to do."""


class Place:
    """Where everything stands in the directory of a step-ca."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root, self.issuing = (
            directory / "certs" / n for n in ("root_ca.crt", "intermediate_ca.crt")
        )
        self.root_key = directory / "secrets" / "root_ca_key"
        self.issuing_key = directory / "secrets" / "intermediate_ca_key"
        self.password = directory / "secrets" / "password"
        self.config = directory / "config" / "ca.json"
        self.for_ledger = directory / FOR_LEDGER
        self.provisioner_key = self.for_ledger / PROVISIONER_KEY
        self.provisioner_password = self.for_ledger / PROVISIONER_PASSWORD
        self.fingerprint = self.for_ledger / FINGERPRINT
        self.database = directory / "db"

    def folders(self) -> tuple[Path, ...]:
        return (
            self.directory, self.root.parent, self.root_key.parent, self.config.parent,
            self.for_ledger, self.database,
        )  # fmt: skip


@contextmanager
def alone(directory: Path, *, make: bool = False) -> Iterator[Place]:
    """Be the one process that changes this step-ca's directory; waits for its turn.

    Raises:
        SetUpError: it is none (with `make` it is made), others may write it, or whatever is wrong
            with the files met inside.
    """
    place = Place(directory)
    if make:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    elif not place.config.exists():
        raise SetUpError(f"{directory} is not the directory of a step-ca: run init-step-ca")
    with sole(directory), explained(directory):
        for folder in place.folders():
            folder.mkdir(mode=0o700, exist_ok=True)
            private_files.refuse_loose(folder, folder.stat(), forbidden=_OTHERS_WRITE)
            private_files.sweep(folder)
        yield place


@contextmanager
def sole(folder: Path) -> Iterator[None]:
    """Be the one process that changes what is in a folder; waits for its turn."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # the folder is the lock: no file to leave
        yield
    finally:
        os.close(handle)


@contextmanager
def explained(directory: Path) -> Iterator[None]:
    """Whatever is wrong with the files is a SetUpError; no text of theirs is shown."""
    try:
        yield
    except (ConfigError, private_files.NotPrivateError) as error:
        raise SetUpError(str(error)) from error
    except jose.JoseError as error:
        raise SetUpError(f"{directory / FOR_LEDGER}: {error}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise SetUpError(f"{directory}: certificates and keys do not fit together") from error


def read_config(path: Path) -> Document | None:
    """Read ca.json; None if there is none.

    Raises:
        SetUpError: it is no JSON object.
    """
    try:
        found: Any = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise SetUpError(f"{path} is not JSON: put the right one back") from error
    if not isinstance(found, dict):
        raise SetUpError(f"{path} is no JSON object: put the right one back")
    return found


def write_config(path: Path, config: Document) -> None:
    """Write ca.json in the place of the one that is there."""
    private_files.replace(path, json.dumps(config, indent=2).encode() + b"\n")


def read_password(path: Path) -> bytes:
    """Read a password as step-ca does: without the white space at its end.

    Raises:
        SetUpError: it is missing, or too short to be one.
    """
    try:
        password = path.read_bytes().rstrip()
    except FileNotFoundError:
        raise SetUpError(f"{path} is missing: it holds a password") from None
    if len(password) < _LEAST_PASSWORD:
        raise SetUpError(f"{path} holds a password of under {_LEAST_PASSWORD} characters")
    return password


def new_password() -> bytes:
    """Make a password that nobody guesses, as a line."""
    return f"{secrets.token_urlsafe(32)}\n".encode()


def next_to(path: Path) -> Path:
    """Where a rotation keeps what will take this file's place."""
    return path.with_name(f"{path.name}.next")


def read_ca_key(path: Path, password: bytes) -> ec.EllipticCurvePrivateKey:
    """Read a private key of the CA.

    Raises:
        SetUpError: the password is not its, or it is of another kind than EC.
        NotPrivateError: it lies open to others.
    """
    content = private_files.read(path)
    try:
        key = load_pem_private_key(content, password)
    except (ValueError, TypeError) as error:
        raise SetUpError(f"{path} does not open with the CA's password") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SetUpError(f"{path} is not an EC key")
    return key


def encrypted(key: ec.EllipticCurvePrivateKey, password: bytes) -> bytes:
    """A CA's key as step-ca reads it: PKCS #8 in PEM, encrypted."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password))


def locked(key: ec.EllipticCurvePrivateKey, password: bytes) -> bytes:
    """The provisioner's key as the ledger reads it: a JWK in a JWE."""
    content = json.dumps(jose.private_jwk(key)).encode()
    return jose.encrypt(content, password).encode() + b"\n"


def unlocked(token: str, password: bytes) -> ec.EllipticCurvePrivateKey:
    """Read the provisioner's key as `locked` and `step` write it.

    Raises:
        JoseError: a wrong password, or no such thing.
    """
    try:
        return jose.read_private_jwk(json.loads(jose.decrypt(token.strip(), password)))
    except json.JSONDecodeError:
        raise jose.JoseError("what the JWE holds is no key") from None


def read_provisioner_key(path: Path, password: bytes) -> ec.EllipticCurvePrivateKey:
    """Read the provisioner's key from its file.

    Raises:
        JoseError: see `unlocked`.
        NotPrivateError: it lies open to others.
    """
    return unlocked(private_files.read(path).decode("ascii", "replace"), password)
