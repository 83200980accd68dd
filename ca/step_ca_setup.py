"""Makes what a step-ca needs to serve the ledger, in the layout that `step ca init` uses.

    certs/root_ca.crt  certs/intermediate_ca.crt
    secrets/root_ca_key  secrets/intermediate_ca_key  secrets/password    the CA's, encrypted
    for-ledger/provisioner.jwe  provisioner.password  root_fingerprint    to be given to the ledger
    config/ca.json  db/

Run again it brings what is there up to date. Each file is written whole or not at all, ca.json
last: cut short anywhere, the next run goes on, and until then step-ca has nothing to start with. It
never replaces a key or a password (`ca/step_ca_rotation.py` does), and starts nothing.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from ca import jose, private_files
from ca.hierarchy import Issuer, new_issuing, new_issuing_key, new_root, new_root_key
from ca.step_ca_config import Document, Site, provisioner_in, up_to_date
from ca.step_ca_files import (
    Place,
    SetUpError,
    alone,
    encrypted,
    locked,
    new_password,
    next_to,
    read_ca_key,
    read_config,
    read_password,
    read_provisioner_key,
    unlocked,
    write_config,
)


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for; None: what is there, or the default.

    `name`: what new CA certificates' names begin with. `password`, `provisioner_password`: files
    that hold them; None: one is made. `seen_as`: the directory as the server will see it.
    """

    name: str = "Mosaic federation"
    names: tuple[str, ...] | None = None
    address: str | None = None
    arc: str | None = None
    password: Path | None = None
    provisioner_password: Path | None = None
    seen_as: Path | None = None


@dataclass(frozen=True, slots=True)
class SetUp:
    """What there is now. `done`: what this run changed, for people; empty if nothing.

    `fingerprint`: SHA-256 of the root, 64 hex. `kid`: of the provisioner's key.
    """

    config: Path
    root: Path
    fingerprint: str
    kid: str
    for_ledger: Path
    done: tuple[str, ...]


def set_up(
    directory: Path,
    wish: Wish,
    now: datetime,
    randomness: Callable[[int], bytes] = secrets.token_bytes,
) -> SetUp:
    """Make a step-ca in `directory`, or bring it up to date. `now` is aware.

    Raises:
        SetUpError: what is there does not fit together, or lies open to others.
        OSError: the file system said no.
    """
    with alone(directory, make=True) as place:
        return _Run(place, wish, now, randomness).all()


class _Run:
    """One run of `set_up`, in the order of its steps."""

    def __init__(
        self, place: Place, wish: Wish, now: datetime, randomness: Callable[[int], bytes]
    ) -> None:
        self._place = place
        self._wish = wish
        self._now = now
        self._randomness = randomness
        self._done: list[str] = []

    def all(self) -> SetUp:
        place = self._place
        for path in (place.password, place.provisioner_key, place.provisioner_password):
            if next_to(path).exists():
                raise SetUpError("a rotation was begun here: finish it with rotate-step-ca")
        config = read_config(place.config)
        entry = provisioner_in(config) if config is not None else None  # refused before a write
        if config is not None and not place.root.exists():
            # Made anew it would be another CA beside the one that ca.json names.
            raise SetUpError(
                f"{place.root} is missing: put it there, in the layout of `step ca init`"
            )
        password = self._password(
            self._wish.password,
            place.password,
            needed=place.root_key.exists() or place.root.exists(),
        )
        root = self._root(password)
        self._issuing(root, password)
        jwk = self._provisioner(entry, password)
        fingerprint = root.fingerprint(hashes.SHA256()).hex()
        self._keep(place.fingerprint, f"{fingerprint}\n".encode())
        self._config(config, jwk)
        return SetUp(
            place.config, place.root, fingerprint, str(jwk["kid"]), place.for_ledger,
            tuple(self._done),
        )  # fmt: skip

    def _password(self, given: Path | None, own: Path, *, needed: bool) -> bytes:
        if given is not None:
            return read_password(given)
        if not own.exists():
            if needed:
                raise SetUpError(f"{own} is missing: put it back, or say where the password is")
            self._new(own, new_password())
        return read_password(own)

    # ---- the CA's own keys and certificates -----------------------------------------------------

    def _root(self, password: bytes) -> x509.Certificate:
        place = self._place
        if not place.root.exists():
            if place.issuing.exists():
                raise SetUpError(f"{place.root} is missing: put it back")
            key = self._ca_key(place.root_key, password, new_root_key)
            made = new_root(self._wish.name, 1, self._now, self._randomness, key)
            self._new(place.root, made.certificate.public_bytes(Encoding.PEM), private_files.PUBLIC)
        root = x509.load_pem_x509_certificate(place.root.read_bytes())
        root.verify_directly_issued_by(root)
        return root

    def _issuing(self, root: x509.Certificate, password: bytes) -> None:
        place = self._place
        if not place.issuing.exists():
            if not place.root_key.exists():
                raise SetUpError(f"{place.root_key} is missing: put it back, for this one run")
            root_key = read_ca_key(place.root_key, password)
            if root_key.public_key() != root.public_key():
                raise SetUpError(f"{place.root_key} is not the key of {place.root}")
            key = self._ca_key(place.issuing_key, password, new_issuing_key)
            made = new_issuing(
                self._wish.name, 1, Issuer(root, root_key), self._now, self._randomness, key
            )
            content = made.certificate.public_bytes(Encoding.PEM)
            self._new(place.issuing, content, private_files.PUBLIC)
        issuing = x509.load_pem_x509_certificate(place.issuing.read_bytes())
        issuing.verify_directly_issued_by(root)
        if not place.issuing_key.exists():
            raise SetUpError(f"{place.issuing_key} is missing: put it back")
        if read_ca_key(place.issuing_key, password).public_key() != issuing.public_key():
            raise SetUpError(f"{place.issuing_key} is not the key of {place.issuing}")

    def _ca_key(
        self, path: Path, password: bytes, make: Callable[[], ec.EllipticCurvePrivateKey]
    ) -> ec.EllipticCurvePrivateKey:
        """The key that an earlier run made, cut short before its certificate, or a new one."""
        if not path.exists():
            self._new(path, encrypted(make(), password))
        return read_ca_key(path, password)

    # ---- the provisioner ------------------------------------------------------------------------

    def _provisioner(self, entry: Document | None, ca_password: bytes) -> Document:
        """Return the public key as a JWK, after seeing to its private half."""
        place = self._place
        if entry is None:
            key = self._provisioner_key(None, ca_password)
            return dict(jose.public_jwk(key.public_key()))
        public = jose.read_public_jwk(entry.get("key"))
        if place.provisioner_key.exists() or "encryptedKey" in entry:
            key = self._provisioner_key(entry.get("encryptedKey"), ca_password)
            if key.public_key() != public:
                raise SetUpError(
                    f"{place.provisioner_key} is not the key of the provisioner in "
                    f"{place.config}: put the right one back"
                )
        # Else it was given to the ledger and taken away from here: as it should be.
        return dict(entry["key"])

    def _provisioner_key(
        self, served: str | None, ca_password: bytes
    ) -> ec.EllipticCurvePrivateKey:
        """The key in its own file: as it is there, as the server gave it to everybody, or new."""
        place = self._place
        there = place.provisioner_key.exists()
        given = self._wish.provisioner_password
        password = self._password(given, place.provisioner_password, needed=there)
        if password == ca_password:
            raise SetUpError("the CA and its provisioner need different passwords")
        if there:
            return read_provisioner_key(place.provisioner_key, password)
        if served is None:
            key = ec.generate_private_key(ec.SECP256R1())
        else:
            key = _unlock(served, (password, ca_password))  # `step ca init` has one for both
        self._new(place.provisioner_key, locked(key, password))
        return key

    # ---- ca.json --------------------------------------------------------------------------------

    def _config(self, config: Document | None, jwk: Document) -> None:
        wish = self._wish
        seen_as = str((wish.seen_as or self._place.directory).absolute())
        site = Site(seen_as, wish.names, wish.address, moved=wish.seen_as is not None)
        try:
            wanted, changes = up_to_date(config, site, jwk, wish.arc)
        except ValueError as error:
            raise SetUpError(str(error)) from error
        if changes:
            write_config(self._place.config, wanted)
            self._done += changes

    def _new(self, path: Path, content: bytes, mode: int = private_files.PRIVATE) -> None:
        private_files.write_new(path, content, mode)
        self._done.append(f"{path.relative_to(self._place.directory)} made")

    def _keep(self, path: Path, content: bytes) -> None:
        if not path.exists() or path.read_bytes() != content:
            private_files.replace(path, content)
            self._done.append(f"{path.relative_to(self._place.directory)} written")


def _unlock(token: str, passwords: tuple[bytes, ...]) -> ec.EllipticCurvePrivateKey:
    """Open the provisioner's key with the first password that fits."""
    *others, last = passwords
    for password in others:
        try:
            return unlocked(token, password)
        except jose.JoseError:
            continue
    return unlocked(token, last)
