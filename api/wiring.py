"""The composition root: where the parts are chosen and put together, and nowhere else.

It holds no rule. It creates nothing that lasts either: `api/init.py` does, once.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import psycopg

from api import loglines
from api.app import build
from api.denials import Denials
from api.exchange import Clock, Services
from api.handlers.table import HANDLERS
from api.maintenance import Maintenance
from api.operations import OPERATIONS
from api.reading import Reader
from api.readings import Readings
from api.server import serve as serve_http
from api.settings import Settings
from api.throttle import Throttle
from ca.authority import Authority
from ca.issuance import IssuanceCycle
from ca.local import LocalAuthority
from ca.reconciler import Reconciler
from ledger import authorities
from ledger.application import Ledger
from ledger.errors import LedgerError
from ledger.events import LEDGER_ID
from ledger.folds import FOLDS
from ledger.identity import Identity
from migrations import runner
from migrations.embedded import Embedded
from projections import operators
from projections.registry import INLINE

AUTHORITY_FOLDER: Final = "authority"

_POWER: Final = """SELECT r.rolsuper OR pg_has_role(c.relowner, 'USAGE')
    FROM pg_roles r, pg_class c
    WHERE r.rolname = current_user AND c.oid = 'ledger_events'::regclass"""


class WiringError(Exception):
    """The parts that were found cannot be put together; the text says what to do, no secret."""


class SystemClock:
    """The machine's clock in UTC, which never goes back within this process."""

    def __init__(self) -> None:
        self._last = datetime.min.replace(tzinfo=UTC)
        self._lock = threading.Lock()

    def __call__(self) -> datetime:
        """The present, aware."""
        with self._lock:
            self._last = max(self._last, datetime.now(UTC))  # noqa: TID251 - here it is chosen
            return self._last


system_clock: Final[Clock] = SystemClock()


@dataclass(frozen=True, slots=True)
class Dsns:
    """libpq connection strings. `owner` is None where only serving is possible."""

    service: str
    owner: str | None


@contextmanager
def database(settings: Settings, *, create: bool = False) -> Iterator[Dsns]:
    """The database the settings name, or the private one. Only with `create` is one made.

    Raises:
        WiringError: there is none.
        EmbeddedError: the private one cannot be had.
    """
    if not settings.embedded:
        if settings.dsn is None:
            raise WiringError("FEDLEDGER_DSN is missing: it names the role that serves")
        owner = settings.owner_dsn
        yield Dsns(settings.dsn.get_secret_value(), owner.get_secret_value() if owner else None)
        return
    if not create and not (settings.home / "data" / "PG_VERSION").exists():
        raise WiringError(f"there is no ledger in {settings.home}: run fedledger init")
    with Embedded(settings.home, bindir=settings.pg_bindir) as postgres:
        yield Dsns(postgres.service_dsn, postgres.owner_dsn)


def open_ledger(dsn: str, clock: Clock, *, pool_size: int = 4) -> Ledger:
    """The ledger of a database, with the tables that travel with each append."""
    return Ledger(dsn, clock=clock, folds=FOLDS, inline=INLINE, pool_size=pool_size)


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that runs; `close` ends it in order."""

    app: Any
    services: Services
    maintenance: Maintenance
    reader: Reader
    denials: Denials

    def close(self) -> None:
        """End without losing what is still to be written down."""
        self.maintenance.stop()
        self.denials.flush(everything=True)
        self.services.issuance.rejections.flush(everything=True)
        self.reader.close()
        self.services.ledger.close()


def compose(
    dsn: str,
    authority: Authority,
    settings: Settings,
    *,
    clock: Clock = system_clock,
    seconds: Callable[[], float] = time.monotonic,
) -> Parts:
    """Put the parts together on a database that is initialised and up to date."""
    ledger = open_ledger(dsn, clock, pool_size=settings.threads)
    reader = Reader(dsn, size=settings.threads, clock=clock)
    issuance = IssuanceCycle(ledger, [authority], reader.glance)
    denials = Denials(ledger.note, seconds)

    def ready() -> bool:
        try:
            ledger.record.head()
        except LedgerError:
            return False
        return ledger.lost_history is None

    def find_credential(accessor: str) -> operators.CredentialOfOperator | None:
        with reader.glance() as connection:
            return operators.credential(connection, accessor)

    services = Services(
        ledger=ledger,
        issuance=issuance,
        read=reader.snapshot,
        clock=clock,
        version=version("fedledger"),
        bad_credentials=Throttle(settings.bad_credentials_per_minute, seconds),
        enrollments=Throttle(settings.enrollments_per_minute, seconds),
        readings=Readings(ledger.note, seconds),
        ready=ready,
    )
    app = build(OPERATIONS, HANDLERS, services, find_credential, denials)
    reconciler = Reconciler(ledger, issuance, reader.glance, dsn)
    maintenance = Maintenance(reconciler, denials, clock)
    return Parts(app, services, maintenance, reader, denials)


def serve(settings: Settings, announce: Callable[[str], object]) -> None:
    """Serve until SIGTERM. Creates and migrates nothing.

    Raises:
        WiringError: nothing is initialised, or the role could change facts.
        MigrationError: the schema is another release's ("run fedledger migrate").
        EmbeddedError: the private PostgreSQL cannot be had.
    """
    loglines.configure(settings.log_level)
    with ExitStack() as stack:
        dsns = stack.enter_context(database(settings))
        runner.check(dsns.service)
        refuse_power(dsns.service)
        authority = open_authority(settings.home)
        parts = compose(dsns.service, authority, settings)
        stack.callback(parts.close)
        refuse_unknown(parts.services.ledger, authority)
        parts.maintenance.start()
        serve_http(parts.app, settings, announce)


def open_authority(home: Path) -> LocalAuthority:
    """The local authority of this home. Raises WiringError, LocalAuthorityError."""
    folder = home / AUTHORITY_FOLDER
    if not folder.exists():
        raise WiringError(f"there is no authority in {folder}: run fedledger init")
    return LocalAuthority.open(folder)


def refuse_unknown(ledger: Ledger, authority: Authority) -> None:
    """Refuse to serve a ledger that was never made, or with an authority it does not know.

    Raises:
        WiringError: run `fedledger init`, or put the right files back.
    """
    if ledger.load(Identity, LEDGER_ID) is None:
        raise WiringError("this database holds no ledger yet: run fedledger init")
    adopted = ledger.load(authorities.Authority, UUID(authority.id))
    if adopted is None or adopted.chain != authority.chain():
        raise WiringError("the authority of this home was never adopted by this ledger")


def refuse_power(dsn: str) -> None:
    """Refuse to serve as a role that could change or remove facts.

    Raises:
        WiringError: the role is a superuser or owns the tables.
    """
    with psycopg.connect(dsn, connect_timeout=10) as connection:
        row = connection.execute(_POWER).fetchone()
    if row is None or row[0]:
        raise WiringError(
            "the role of FEDLEDGER_DSN is a superuser or owns the tables: serve with a login role "
            "that is a member of fedledger_service only"
        )
