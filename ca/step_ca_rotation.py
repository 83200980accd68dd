"""Replaces the passwords of a step-ca that we set up, and its provisioner's key, step by step.

A password: 1. the new one beside the old one (`….next`), 2. each key under it, one after the other,
3. the new one in the old one's place. The provisioner's key: 1. a new password and a key under it,
beside the old ones, 2. its public half in ca.json, 3. both in the old ones' places.

Cut short anywhere, the same command goes on where it stopped: until then each key opens with one of
two passwords that are both there. A server that runs holds its keys in memory and notices nothing;
after a new provisioner key it must read ca.json anew (SIGHUP). Nothing is started here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec

from ca import jose, private_files
from ca.step_ca_config import provisioner_in
from ca.step_ca_files import (
    PROVISIONER_KEY,
    PROVISIONER_PASSWORD,
    Place,
    SetUpError,
    alone,
    encrypted,
    explained,
    locked,
    new_password,
    next_to,
    read_ca_key,
    read_config,
    read_password,
    read_provisioner_key,
    sole,
    write_config,
)

_Read: TypeAlias = Callable[[Path, bytes], ec.EllipticCurvePrivateKey]
_Seal: TypeAlias = Callable[[ec.EllipticCurvePrivateKey, bytes], bytes]


@dataclass(frozen=True, slots=True)
class Passwords:
    """Where they are. None: the current one in its usual place; the new one is made, and put there."""

    current: Path | None = None
    new: Path | None = None


def rotate_ca_password(directory: Path, passwords: Passwords) -> tuple[str, ...]:
    """Put the CA's keys under a new password; return what was done, for people.

    The root's key too, if it is here: in another place it stays under the old one.

    Raises:
        SetUpError: a password is wrong, or the new one is no other.
        OSError: the file system said no.
    """
    with alone(directory) as place:
        keys = [path for path in (place.root_key, place.issuing_key) if path.exists()]
        _refuse_same(passwords.new, place.provisioner_password)
        return _rotated(place.password, keys, passwords, read_ca_key, encrypted)


def rotate_provisioner_password(folder: Path, passwords: Passwords) -> tuple[str, ...]:
    """Put the provisioner's key under a new password; return what was done, for people.

    `folder`: whatever holds `provisioner.jwe`, that of a step-ca or of an authority in a ledger's
    home. The server has no part in it, nor has a ledger that runs.

    Raises:
        SetUpError, OSError: as for the CA's.
    """
    key, own = folder / PROVISIONER_KEY, folder / PROVISIONER_PASSWORD
    if not key.exists():
        raise SetUpError(f"{key} is missing: where is the provisioner's key?")
    if next_to(key).exists():
        raise SetUpError("a rotation of the provisioner's key was begun: finish that one first")
    with sole(folder), explained(folder):
        return _rotated(own, [key], passwords, read_provisioner_key, locked)


def rotate_provisioner_key(directory: Path, password: Path | None = None) -> tuple[str, ...]:
    """Give the provisioner a new key under a new password; return what was done, for people.

    `password`: the file with the new one; None: one is made. From the server's next look at ca.json on it believes no token of the old key.

    Raises:
        SetUpError: there is no provisioner of ours, or a file cannot be used.
        OSError: the file system said no.
    """
    with alone(directory) as place:
        key, own = place.provisioner_key, place.provisioner_password
        beside = next_to(key)
        _refuse_same(password, place.password)
        new = _next_password(own, password)
        if not beside.exists() and key.exists() and _opens(key, read_provisioner_key, new):
            _settle(own, password)  # cut short between the two halves of the last step
            return ("an earlier rotation was finished",)
        if not beside.exists():
            made = ec.generate_private_key(ec.SECP256R1())
            private_files.write_new(beside, locked(made, new))
        jwk = jose.public_jwk(read_provisioner_key(beside, new).public_key())
        _publish(place, jwk)
        private_files.replace(key, private_files.read(beside))
        beside.unlink()
        _settle(own, password)
        return (f"the provisioner's key is now {jwk['kid']}",)


def _publish(place: Place, jwk: dict[str, str]) -> None:
    config = read_config(place.config)
    entry = provisioner_in(config) if config is not None else None
    if config is None or entry is None:
        raise SetUpError(f"{place.config} has no provisioner of ours: run init-step-ca first")
    entry["key"] = jwk
    entry.pop("encryptedKey", None)
    write_config(place.config, config)


# ---- one password -------------------------------------------------------------------------------


def _rotated(
    own: Path, keys: Sequence[Path], passwords: Passwords, read: _Read, seal: _Seal
) -> tuple[str, ...]:
    old = read_password(passwords.current or own)
    begun = passwords.new or next_to(own)
    for path in keys:  # before anything is written: a wrong password changes nothing
        if not begun.exists() or not _opens(path, read, read_password(begun)):
            read(path, old)
    new = _next_password(own, passwords.new)
    done = []
    for path in keys:
        if not _opens(path, read, new):
            private_files.replace(path, seal(read(path, old), new))
            done.append(f"{path.name} put under the new password")
    _settle(own, passwords.new)
    return tuple(done) or ("an earlier rotation was finished",)


def _refuse_same(given: Path | None, other: Path) -> None:
    if given is not None and other.exists() and read_password(given) == read_password(other):
        raise SetUpError("the CA and its provisioner need different passwords")


def _opens(path: Path, read: _Read, password: bytes) -> bool:
    try:
        read(path, password)
    except (SetUpError, jose.JoseError):
        return False
    return True


def _next_password(own: Path, given: Path | None) -> bytes:
    """The new one: in the operator's file, of a run that was cut short, or made now."""
    path = given or next_to(own)
    if given is None and not path.exists():
        private_files.write_new(path, new_password())
    return read_password(path)


def _settle(own: Path, given: Path | None) -> None:
    """Put the new one in its place: where it was made, or where an old one would mislead."""
    if given is None:
        private_files.replace(own, private_files.read(next_to(own)))
        next_to(own).unlink()
    elif own.exists():
        private_files.replace(own, read_password(given) + b"\n")
