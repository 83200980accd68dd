"""The composition root: where the parts are chosen and put together, and nowhere else.

It holds no rule. It creates nothing that lasts either: `api/init.py` does, once.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import psycopg

from api import authorities, loglines, tables
from api.app import build
from api.credentials import Credentials
from api.denials import Denials
from api.exchange import Clock, Services
from api.export_places import Exports
from api.following import Following
from api.handlers.table import HANDLERS
from api.health import Unready
from api.holders import Holder, Holders
from api.last_seen import LastSeen
from api.log_key import LOG_KEY, LogKey
from api.maintenance import Maintenance
from api.metrics import Metrics
from api.one_processor import on_one_processor
from api.operations import OPERATIONS
from api.reading import Reader
from api.readings import Readings
from api.server import serve as serve_http
from api.settings import Settings
from api.tail import Tail
from api.throttle import Throttle
from ca.issuance import IssuanceCycle
from ca.publishing import RevocationLists
from ca.reconciler import Reconciler
from ca.signers import Adopted
from ledger.application import Ledger
from ledger.authorities import Authority
from ledger.errors import LedgerError
from ledger.events import LEDGER_ID
from ledger.folds import FOLDS
from ledger.identity import Identity
from ledger.sequencer import Observer
from migrations import runner
from migrations.embedded import Embedded
from projections import operators
from projections.follower import Follower
from projections.registry import FOLLOWED, INLINE, RELEASE
from projections.search import Search

_POWER: Final = """SELECT r.rolsuper OR pg_has_role(c.relowner, 'USAGE')
    FROM pg_roles r, pg_class c
    WHERE r.rolname = current_user AND c.oid = 'ledger_events'::regclass"""


class WiringError(Exception):
    """The parts that were found cannot be put together; the text says what to do, no secret."""


class LostHistoryError(WiringError):
    """The database is not the one this home has seen before, grown."""


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


def open_ledger(
    dsn: str, clock: Clock, *, pool_size: int = 4, observer: Observer | None = None
) -> Ledger:
    """The ledger of a database, with the tables that travel with each append."""
    return Ledger(
        dsn,
        clock=clock,
        folds=FOLDS,
        inline=INLINE,
        pool_size=pool_size,
        projections_version=RELEASE,
        observer=observer,
    )


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that runs; `close` ends it in order."""

    app: Any
    services: Services
    maintenance: Maintenance
    following: Following
    follower: Follower
    reader: Reader
    denials: Denials

    def start(self) -> None:
        """Begin what nobody asks for."""
        self.maintenance.start()
        self.following.start()

    def close(self) -> None:
        """End without losing what is still to be written down."""
        self.following.stop()
        self.maintenance.stop()
        self.follower.close()
        self.services.tail.close()
        self.denials.flush(everything=True)
        self.services.readings.flush(everything=True)
        self.services.issuance.rejections.flush(everything=True)
        self.services.issuance.signers.close()
        self.reader.close()
        self.services.ledger.close()


def compose(
    dsn: str,
    settings: Settings,
    *,
    clock: Clock = system_clock,
    seconds: Callable[[], float] = time.monotonic,
) -> Parts:
    """Put the parts together on a database that is initialised and up to date."""
    metrics = Metrics()
    ledger = open_ledger(dsn, clock, pool_size=settings.threads, observer=metrics)
    follower = Follower(dsn, FOLLOWED, release=RELEASE)
    reader = Reader(dsn, size=settings.threads, clock=clock, reach=follower.reach)
    signers = Adopted(reader.glance, partial(authorities.usable, settings.home))
    issuance = IssuanceCycle(ledger, signers, reader.glance, arc=settings.arc)
    lists = RevocationLists(ledger, signers, reader.glance)
    denials = Denials(ledger.note, seconds)
    readings = Readings(ledger.note, seconds)

    def look(accessors: Sequence[str]) -> Mapping[str, operators.CredentialOfOperator]:
        with reader.glance() as connection:
            return operators.credentials(connection, accessors)

    def find_holder(presented: str, at: datetime) -> Holder | None:
        form = settings.client_certificates
        return None if form == "off" else Holders(ledger, reader.glance, form).find(presented, at)

    services = Services(
        ledger=ledger,
        issuance=issuance,
        lists=lists,
        read=reader.snapshot,
        clock=clock,
        version=version("fedledger"),
        bad_credentials=Throttle(settings.bad_credentials_per_minute, seconds),
        enrollments=Throttle(settings.enrollments_per_minute, seconds),
        readings=readings,
        search=Search(ledger.record, reader.view),
        exports=Exports(LogKey(settings.home / LOG_KEY)),
        tail=Tail(
            ledger.listen, lambda: ledger.record.head().size, most=max(1, settings.threads // 4)
        ),
        metrics=metrics,
        unready=partial(_unready, ledger, reader, runner.load()),
        pools=lambda: {"ledger": ledger.connections, "tables": reader.connections},
        reach=follower.reach,
    )
    find = Credentials(look).find
    app = build(OPERATIONS, HANDLERS, services, find, find_holder, denials)
    reconciler = Reconciler(ledger, issuance, reader.glance, dsn)
    last_seen = LastSeen(settings.home, ledger.record)
    maintenance = Maintenance(
        reconciler, lists, denials, readings, last_seen, ledger.stop_writing, clock
    )
    following = Following(dsn, follower)
    return Parts(app, services, maintenance, following, follower, reader, denials)


def _unready(ledger: Ledger, reader: Reader, migrations: list[runner.Migration]) -> Unready | None:
    """Why requests cannot be served; None when they can."""
    try:
        if ledger.lost_history is None:
            ledger.record.head()  # which notices a loss
        with reader.glance() as connection:
            pending = runner.pending_in(connection, migrations)
            other = not pending and tables.of_other_releases(connection)
    except runner.MigrationError:
        return "schema"
    except LedgerError as error:
        return "lost-history" if error.code == "lost-history" else "storage-unavailable"
    except psycopg.Error:
        return "storage-unavailable"
    if ledger.lost_history is not None:
        return "lost-history"
    if pending:
        return "schema"
    return "projections-version" if other else None


def serve(settings: Settings, announce: Callable[[str], object]) -> None:
    """Serve until SIGTERM. Creates and migrates nothing.

    Raises:
        WiringError: nothing is initialised, or the role could change facts.
        MigrationError: the schema is another release's ("run fedledger migrate").
        OtherReleaseError: the tables are; every append would be refused.
        EmbeddedError: the private PostgreSQL cannot be had.
    """
    loglines.configure(settings.log_level)
    with ExitStack() as stack:
        dsns = stack.enter_context(database(settings))
        runner.check(dsns.service)
        refuse_power(dsns.service)
        refuse_other_tables(dsns.service)
        parts = compose(dsns.service, settings)
        stack.callback(parts.close)
        refuse_unknown(parts.services.ledger, settings.home)
        refuse_lost_history(parts.services.ledger, settings.home)
        parts.start()
        if settings.processors == "one":
            stack.enter_context(on_one_processor())
        serve_http(parts.app, settings, announce, parts.services.tail.stop)


def refuse_lost_history(ledger: Ledger, home: Path) -> None:
    """Refuse to serve a database that is behind what this home has seen, or another than it.

    Raises:
        LostHistoryError: positions would be given twice.
    """
    last_seen = LastSeen(home, ledger.record)
    if objection := last_seen.objection():
        raise LostHistoryError(f"{objection}. {last_seen.advice()}")


def refuse_unknown(ledger: Ledger, home: Path) -> None:
    """Refuse to serve a ledger that was never made, or with authorities it does not know.

    Raises:
        WiringError: run `fedledger init`, or put the right files back.
        AuthorityFilesError: the files of an authority cannot be used.
    """
    if ledger.load(Identity, LEDGER_ID) is None:
        raise WiringError("this database holds no ledger yet: run fedledger init")
    here = authorities.open_all(home)
    objection = authorities.objection(here, lambda one: ledger.load(Authority, one))
    if objection:
        raise WiringError(objection)


def refuse_other_tables(dsn: str) -> None:
    """Refuse to serve with tables of another release: nothing could be appended.

    Raises:
        OtherReleaseError: it says what to run.
    """
    with psycopg.connect(dsn, connect_timeout=10) as connection:
        others = tables.of_other_releases(connection)
    if others:
        raise tables.OtherReleaseError(tables.advice(others))


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
