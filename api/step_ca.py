"""Connects a ledger to a step-ca that exists: looks at it, and keeps what it takes to ask it.

The root is fetched by its fingerprint and pinned; a server that the ledger could not rely on is
refused, with what doctor would say about it. Adopting is `api/init.py`'s; no key is made here.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from api import authorities
from api.settings import Settings
from api.wiring import WiringError
from ca import private_files
from ca.authority import AuthorityFilesError, AuthorityUnavailable
from ca.step_ca import StepCaAuthority
from ca.step_ca_client import fetch_issuing, fetch_root
from ca.step_ca_config import PROVISIONER
from ca.step_ca_files import (
    FINGERPRINT,
    PROVISIONER_KEY,
    PROVISIONER_PASSWORD,
    SetUpError,
    explained,
    read_password,
    read_provisioner_key,
)
from ca.step_ca_home import KIND, Description, StepCaHome, refresh
from ca.step_ca_probes import Subject, examine

TIMEOUT: Final = 10.0
"""Seconds for each question to the server."""


@dataclass(frozen=True, slots=True)
class Wish:
    """Which step-ca. `files`: the folder for-ledger. None: see the settings of these names."""

    url: str
    files: Path
    fingerprint: str | None
    password_file: Path | None
    arc: str

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """What the settings ask for; None if it is no step-ca."""
        if settings.ca != KIND or settings.ca_url is None or settings.ca_files is None:
            return None
        return cls(
            settings.ca_url.rstrip("/"), settings.ca_files, settings.ca_root_fingerprint,
            settings.ca_password_file, settings.arc,
        )  # fmt: skip


def keep(home: Path, wish: Wish, clock: Callable[[], datetime]) -> StepCaAuthority:
    """Return the authority of this step-ca in this home, after making its folder if there is none.

    A new key of the provisioner, or another issuing certificate, makes a new authority: the one
    before it finishes what was begun with it. Where the server does not answer, or its files were
    taken away, what is in the home will do.

    Raises:
        WiringError: the server or the files cannot be relied on; nothing was changed.
        OSError: the file system said no.
    """
    given = _Given.read(wish)
    known = _known(home, wish)
    if given is None:
        if known is None:
            raise WiringError(f"{wish.files / PROVISIONER_KEY} is missing: see FEDLEDGER_CA_FILES")
        return known
    try:
        root = fetch_root(wish.url, given.fingerprint, timeout=TIMEOUT)
        issuing = fetch_issuing(wish.url, root, timeout=TIMEOUT)
    except (LookupError, ValueError) as error:
        raise WiringError(f"this is not the CA that was asked for: {error}") from error
    except AuthorityUnavailable as error:
        if known is not None and known.home.key.public_key() == given.key.public_key():
            return known
        raise WiringError(f"the CA cannot be asked: {error.detail}") from error
    found = _same(home, wish, given, (issuing, root))
    if found is not None:
        return found
    _refuse_unreliable(wish, given, (issuing, root), clock)
    first = home / authorities.FOLDER
    folder = authorities.free_folder(home, 2)[1] if first.exists() else first
    StepCaHome.make(
        folder, url=wish.url, provisioner=PROVISIONER, root=root, issuing=issuing,
        encrypted_key=given.encrypted, password=given.kept,
    )  # fmt: skip
    return StepCaAuthority.open(folder)


@dataclass(frozen=True, slots=True)
class _Given:
    """The files that were given. `kept`: the password, or the file it stays in."""

    fingerprint: str
    encrypted: str
    key: ec.EllipticCurvePrivateKey
    password: bytes = field(repr=False)
    kept: bytes | Path = field(repr=False)

    @classmethod
    def read(cls, wish: Wish) -> Self | None:
        """Read them; None if they were taken away."""
        path = wish.files / PROVISIONER_KEY
        if not path.exists():
            return None
        try:
            with explained(wish.files):
                password = read_password(wish.password_file or wish.files / PROVISIONER_PASSWORD)
                key = read_provisioner_key(path, password)
                encrypted = private_files.read(path).decode("ascii").strip()
        except SetUpError as error:
            raise WiringError(str(error)) from error
        noted = wish.files / FINGERPRINT
        if wish.fingerprint is None and not noted.exists():
            raise WiringError(f"{noted} is missing: give FEDLEDGER_CA_ROOT_FINGERPRINT")
        fingerprint = wish.fingerprint or noted.read_text("ascii").strip()
        return cls(fingerprint, encrypted, key, password, wish.password_file or password)


_Chain = tuple[x509.Certificate, x509.Certificate]


def _described(home: Path, wish: Wish) -> Iterator[tuple[Path, Description]]:
    """The folders of this home about this server, the newest first."""
    for folder in reversed(authorities.folders(home)):
        with suppress(AuthorityFilesError):  # another kind's, or broken
            description = Description.read(folder)
            if (description.url, description.provisioner) == (wish.url, PROVISIONER):
                yield folder, description


def _known(home: Path, wish: Wish) -> StepCaAuthority | None:
    """The newest authority about this server that can be used as it is."""
    for folder, description in _described(home, wish):
        fingerprint = description.root.fingerprint(hashes.SHA256()).hex()
        if wish.fingerprint in (None, fingerprint):
            with suppress(AuthorityFilesError):
                return StepCaAuthority.open(folder)
    return None


def _same(home: Path, wish: Wish, given: _Given, chain: _Chain) -> StepCaAuthority | None:
    """The authority with this key and chain; one whose key no longer opens is given this one."""
    closed: list[Path] = []
    for folder, description in _described(home, wish):
        if (description.issuing, description.root) != chain:
            continue
        try:
            authority = StepCaAuthority.open(folder)
        except AuthorityFilesError:
            closed.append(folder)
        else:
            if authority.home.key.public_key() == given.key.public_key():
                return authority
    if not closed:
        return None
    refresh(closed[0], given.encrypted, given.kept)
    return StepCaAuthority.open(closed[0])


def _refuse_unreliable(
    wish: Wish, given: _Given, chain: _Chain, clock: Callable[[], datetime]
) -> None:
    issuing, root = chain
    subject = Subject(
        url=wish.url, provisioner=PROVISIONER, root=root, issuing=issuing,
        key=given.key.public_key(), passwords=[given.password], arc=wish.arc,
    )  # fmt: skip
    for finding in examine(subject, clock, timeout=TIMEOUT):
        if finding.status == "fail":
            raise WiringError(f"{finding.id}: {finding.detail}. {finding.hint}")
