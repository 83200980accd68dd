"""One PostgreSQL for the whole test run, and a database of its own for every test.

The run's first process chooses a folder; every worker that needs a database becomes a client of
the cluster there (the product's own `Embedded`), so it starts when first needed and ends with
its last client, killed or not. Tests never skip for want of PostgreSQL: they fail.
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier, Literal

from migrations import runner
from migrations.embedded import OWNER, SERVICE, Embedded
from migrations.server import SUPERUSER
from support import folders

_PREFIX = "fedledger-tests-"
_TEMPLATE = "template_migrated"


@dataclass(frozen=True)
class Database:
    """A fresh database; its DSNs differ in the role only and hold no secret."""

    name: str
    owner_dsn: str
    service_dsn: str
    superuser_dsn: str


def bindir() -> Path | None:
    """The programs to test with: .ci/run names an older PostgreSQL's here."""
    named = os.environ.get("FEDLEDGER_PG_BINDIR")  # noqa: TID251 -- the product's settings are not under test here
    return Path(named) if named else None


def make_home(*, on_disk: bool = False) -> Path:
    """A folder for a cluster, named so that another run can tell whose it is."""
    return folders.make(f"{_PREFIX}{os.getpid()}-", on_disk=on_disk)


def remove_home(home: Path, postgres: Embedded | None = None) -> None:
    (postgres or Embedded(home, bindir=bindir(), durable=False)).stop()
    shutil.rmtree(home, ignore_errors=True)


def remove_abandoned_homes() -> None:
    """What killed runs have left; their servers ended with them.

    Another run may be at work, and between two starts of its server no lock of a home is held:
    what belongs to a live process is left alone.
    """
    left = (home for place in (folders.DISK, folders.MEMORY) for home in place.glob(_PREFIX + "*"))
    for home in left:
        if Path("/proc", home.name.removeprefix(_PREFIX).partition("-")[0]).exists():
            continue
        try:
            handle = os.open(home / "watch.lock", os.O_RDWR)
        except OSError:
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(home, ignore_errors=True)
        except BlockingIOError:
            pass  # alive
        finally:
            os.close(handle)


class Cluster:
    """The run's PostgreSQL, seen from one worker."""

    def __init__(self, postgres: Embedded) -> None:
        self._postgres = postgres
        self._ensure_template(_TEMPLATE, "template1", self._found)

    def database(self, *, migrated: bool = True) -> AbstractContextManager[Database]:
        return self._copy(_TEMPLATE if migrated else "template1")

    def filled(
        self, name: str, fill: Callable[[Database], object]
    ) -> AbstractContextManager[Database]:
        """A migrated database that holds what `fill` writes into the first one of this name: for
        what takes long to make and comes out the same every time."""
        template = f"template_{name}"
        self._ensure_template(template, _TEMPLATE, fill)
        return self._copy(template)

    @contextmanager
    def _copy(self, template: str) -> Iterator[Database]:
        name = f"t_{secrets.token_hex(6)}"
        self._create(name, template)
        try:
            yield self._describe(name)
        finally:
            self._execute("DROP DATABASE {name} WITH (FORCE)", name=name)

    def _describe(self, name: str) -> Database:
        postgres = self._postgres
        return Database(
            name,
            make_conninfo(postgres.owner_dsn, dbname=name),
            make_conninfo(postgres.service_dsn, dbname=name),
            make_conninfo(postgres.superuser_dsn, dbname=name),
        )

    def _ensure_template(
        self, name: str, template: str, fill: Callable[[Database], object]
    ) -> None:
        """Fill it once per run; a template may not be in use, so it is closed afterwards."""
        with psycopg.connect(self._postgres.superuser_dsn, autocommit=True) as connection:
            connection.execute("SELECT pg_advisory_lock(hashtext(%s))", (name,))
            ready = "SELECT FROM pg_database WHERE datname = %s AND datistemplate"
            if connection.execute(ready, (name,)).fetchone() is not None:
                return
            self._execute("DROP DATABASE IF EXISTS {name}", name=name)
            self._create(name, template)
            fill(self._describe(name))
            self._execute(
                "ALTER DATABASE {name} IS_TEMPLATE true ALLOW_CONNECTIONS false", name=name
            )

    def _found(self, database: Database) -> None:
        self._ease_logins()
        runner.migrate(database.owner_dsn)

    def _ease_logins(self) -> None:
        """Let the server check the roles' passwords as they are, but hashed once instead of 4096
        times: of each of a test's dozen connections that is nearly all of its processor time."""
        with psycopg.connect(self._postgres.superuser_dsn, autocommit=True) as connection:
            if connection.info.server_version < 160_000:  # which knows no other number
                return
            connection.execute("SET scram_iterations = 1")
            for role in (SUPERUSER, OWNER, SERVICE):
                line = self._postgres._passwords.file(role).read_text()
                password = Literal(line.strip().rpartition(":")[2])
                statement = SQL("ALTER ROLE {} PASSWORD {}")
                connection.execute(statement.format(Identifier(role), password))

    def _create(self, name: str, template: str) -> None:
        # In memory, by the log, which is how it is done unless told otherwise, takes half as long again.
        self._execute(
            "CREATE DATABASE {name} OWNER {owner} TEMPLATE {template} STRATEGY file_copy",
            name=name, owner=OWNER, template=template,
        )  # fmt: skip

    def _execute(self, statement: str, **names: str) -> None:
        with psycopg.connect(self._postgres.superuser_dsn, autocommit=True) as connection:
            identifiers = {key: Identifier(name) for key, name in names.items()}
            connection.execute(SQL(statement).format(**identifiers))
