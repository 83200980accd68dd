"""Makes what a ledger needs, once: schema, keys, the first events, two operators.

Interrupted, it goes on where it stopped when run again; it never overwrites a key or a token, and
once finished it changes nothing any more. It serves nothing.
"""

import fcntl
import os
import re
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from psycopg import sql

from api import authorities, step_ca, tables
from api.exchange import Clock
from api.log_key import LOG_KEY
from api.settings import Settings
from api.tables import Tell
from api.wiring import Dsns, WiringError, database, open_ledger, system_clock
from ca.local import LocalAuthority
from ca.private_files import write_new
from ledger.application import Ledger
from ledger.authorities import Authority
from ledger.bearer import parse, same_digest
from ledger.events import LEDGER_ID, Actor
from ledger.identity import Identity
from ledger.operators import Operator
from ledger.policy import DEFAULT
from ledger.store import Call
from ledger.tlog.note import verifier_key
from migrations import runner
from projections import authorities as on_record
from projections import certificates, operators

ROLES: Final = ("admin", "approver")

_UNFINISHED: Final = "init.unfinished"
_CREDENTIAL_LIFE: Final = timedelta(days=365)
_SERVICE: Final = "fedledger_service"


def _tell_nobody(what: str, done: int, total: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Initialised:
    """What there is now. `made` is False when everything was there before.

    `adopted`: a ledger that was there before has got another authority.
    """

    made: bool
    adopted: bool
    origin: str
    log_key: str  # the verifier key, to be given to others
    authority_id: str
    authority_kind: str
    home: Path
    tokens: dict[str, Path]  # role → file; never the token


def initialise(
    settings: Settings, clock: Clock = system_clock, tell: Tell = _tell_nobody
) -> Initialised:
    """Make the ledger of these settings, or finish making it.

    `tell`: of tables that are rebuilt or filled, as in `api/tables.py`.

    Raises:
        WiringError: what is there does not fit together.
        MigrationError, EmbeddedError, AuthorityFilesError: as their names say.
        OtherReleaseError, RebuildError: see `api/tables.py`.
    """
    _make_home(settings.home)
    with alone(settings.home), database(settings, create=True) as dsns:
        migrate(dsns, tell)
        wish = step_ca.Wish.of(settings)
        return furnish(dsns.service, settings.home, settings.origin, clock, wish)


def migrate(dsns: Dsns, tell: Tell = _tell_nobody) -> list[str]:
    """Bring the database up to this release: its schema, the service role's rights, and the tables
    made from the events. Return the names of the migrations applied and of the tables rebuilt.

    Raises:
        WiringError: the owner's DSN is missing, or the service role cannot be given its rights.
        MigrationError: see `migrations/runner.py`.
        OtherReleaseError, RebuildError, LedgerError: see `api/tables.py`.
    """
    if dsns.owner is None:
        raise WiringError("FEDLEDGER_OWNER_DSN is missing: only the owning role can migrate")
    applied = runner.migrate(dsns.owner)
    _admit(dsns.owner, dsns.service)
    applied += (f"{name}, built anew" for name in tables.bring(dsns.owner, tell))
    tables.catch_up(dsns.service, tell)
    return applied


def furnish(
    dsn: str, home: Path, origin: str | None, clock: Clock, wish: step_ca.Wish | None = None
) -> Initialised:
    """Make the keys, the first events and the operators in an empty ledger.

    `wish`: the step-ca to issue with; None: an authority of its own, or whatever there is.

    Raises:
        WiringError: a key or token does not belong to the ledger of this database; the step-ca
            cannot be relied on.
    """
    unfinished = home / _UNFINISHED
    with closing(open_ledger(dsn, clock)) as ledger:
        identity = ledger.load(Identity, LEDGER_ID)
        made = identity is None or unfinished.exists()
        if identity is None:
            unfinished.touch(0o600)
        key = _log_key(home, make=identity is None)
        if identity is None:
            identity = _create(ledger, key, origin or default_origin())
        elif identity.log_key != verifier_key(identity.origin, key):
            raise WiringError(
                f"{home / LOG_KEY} is not the key of this ledger: put the right one back"
            )
        authority = (
            step_ca.keep(home, wish, clock)
            if wish
            else _authority(home, identity.origin, clock, make=made)
        )
        tokens = {role: home / f"{role}.token" for role in ROLES}
        if made:
            ledger.change_policy(_call(), **_defaults())
            _adopt(ledger, authority)
            for role, path in tokens.items():
                _operator(ledger, dsn, role, path)
            unfinished.unlink()
        adopted = wish is not None and not made and _replace(ledger, dsn, authority)
        return Initialised(
            made, adopted, identity.origin, identity.log_key, authority.id, authority.kind, home,
            tokens,
        )  # fmt: skip


def _adopt(ledger: Ledger, authority: authorities.Held) -> None:
    """Issue with it from the next order on; a running service needs no restart."""
    chain, end = authority.chain(), authority.not_after
    ledger.adopt_authority(_call(), UUID(authority.id), authority.kind, chain, end)


def _replace(ledger: Ledger, dsn: str, authority: authorities.Held) -> bool:
    """Adopt it if it is new, and retire those before it with which nothing is open."""
    known = ledger.load(Authority, UUID(authority.id))
    if known is None:
        _adopt(ledger, authority)
    with psycopg.connect(dsn) as connection:
        idle = [
            row.id
            for row in on_record.everything(connection)
            if row.retired_at is None
            and str(row.id) != authority.id
            and not certificates.open_with(connection, row.id)
        ]
    for one in idle:
        ledger.retire_authority(_call(), one)
    return known is None


def default_origin() -> str:
    """A ledger's name where none was chosen: this machine's."""
    name = re.sub(r"[^a-z0-9.-]+", "-", socket.gethostname().lower()).strip("-.")
    return f"{name or 'localhost'}/fedledger"


# ---- the home -------------------------------------------------------------------------------


def _make_home(home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    # As root the private PostgreSQL's account must pass through, and can see nothing.
    home.chmod(0o711 if os.geteuid() == 0 else 0o700)


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """Be the one process that changes what is in this home; waits for its turn."""
    handle = os.open(home / "init.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _log_key(home: Path, *, make: bool) -> bytes:
    """The public half of the log key, 32 bytes."""
    path = home / LOG_KEY
    if not path.exists():
        if not make:
            # A new key would make every earlier checkpoint worthless to those who kept them.
            raise WiringError(f"{path} is missing: put the ledger's log key back")
        content = Ed25519PrivateKey.generate().private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        write_new(path, content)
    key = load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise WiringError(f"{path} is not an Ed25519 key: put the ledger's log key back")
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def _authority(home: Path, origin: str, clock: Clock, *, make: bool) -> authorities.Held:
    folder = home / authorities.FOLDER
    if folder.exists():
        return authorities.open_one(folder)
    if not make:
        raise WiringError(f"{folder} is missing: put the authority's folder back")
    name = re.sub(r"[^A-Za-z0-9 ._-]", " ", origin)[:48].strip()
    return LocalAuthority.create(folder, name=name, now=clock())


# ---- the first events -----------------------------------------------------------------------


def _call() -> Call:
    actor = Actor(kind="local", id=f"uid:{os.getuid()}", auth="local")
    return Call(actor=actor, correlation_id=str(uuid4()), reason="init")


def _create(ledger: Ledger, key: bytes, origin: str) -> Identity:
    text = verifier_key(origin, key)
    return ledger.create_ledger(_call(), origin, text, _version()).value


def _version() -> str:
    from importlib.metadata import version

    return version("fedledger")


def _defaults() -> dict[str, object]:
    """The defaults of this release, written down: a later one's may differ."""
    known = asdict(DEFAULT)
    return {name: known[name] for name in known if name not in {"id", "version", "changed_at"}}


def _operator(ledger: Ledger, dsn: str, role: str, path: Path) -> None:
    if path.exists():
        _check_token(dsn, path)
        return
    with psycopg.connect(dsn) as connection:
        found = operators.enabled_with_role(connection, role)
    operator_id = (
        found[0].id if found else ledger.register_operator(_call(), "person", [role]).value.id
    )
    operator = ledger.load(Operator, operator_id)
    for accessor, credential in (operator.credentials if operator else {}).items():
        if credential.revoked_at is None:
            # Of a run that was interrupted before the file was written: nobody has its text.
            ledger.revoke_credential(_call(), operator_id, accessor)
    issued = ledger.issue_credential(_call(), operator_id, ttl=_CREDENTIAL_LIFE).value
    write_new(path, f"{issued.text}\n".encode())


def _check_token(dsn: str, path: Path) -> None:
    token = parse(path.read_text("ascii", "replace").strip())
    with psycopg.connect(dsn) as connection:
        known = operators.credential(connection, token.accessor) if token else None
    if token is None or known is None or not same_digest(token.digest, known.token_sha256):
        raise WiringError(f"{path} belongs to another ledger: move it away")


def _admit(owner_dsn: str, service_dsn: str) -> None:
    """Make the serving login role a member of the role that the tables' rights are given to."""
    with psycopg.connect(service_dsn, connect_timeout=10) as connection:
        row = connection.execute(
            "SELECT current_user::text, pg_has_role(current_user, %s, 'USAGE')", (_SERVICE,)
        ).fetchone()
    if row is None or row[1]:
        return
    grant = sql.SQL("GRANT {} TO {}").format(sql.Identifier(_SERVICE), sql.Identifier(row[0]))
    try:
        with psycopg.connect(owner_dsn, connect_timeout=10) as connection:
            connection.execute(grant)
    except psycopg.errors.InsufficientPrivilege:
        raise WiringError(
            f"the owner may not do it itself: as a superuser, {grant.as_string(None)}"
        ) from None
