"""One PostgreSQL for the whole test run, and a database of its own for every test.

The run's first process chooses a folder; every worker that needs a database becomes a client of
the cluster there (the product's own `Embedded`), so it starts when first needed and ends with
its last client, killed or not. Tests never skip for want of PostgreSQL: they fail.
"""

import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from migrations import runner
from migrations.embedded import OWNER, Embedded

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


def make_home() -> Path:
    """A folder for a cluster: short, and open to the server's account, unlike tmp_path as root."""
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir="/tmp"))


def remove_home(home: Path, postgres: Embedded | None = None) -> None:
    (postgres or Embedded(home, bindir=bindir(), durable=False)).stop()
    shutil.rmtree(home, ignore_errors=True)


def remove_abandoned_homes() -> None:
    """What killed runs have left; their servers ended with them.

    Another run may be at work, and between two starts of its server no lock of a home is held:
    what belongs to a live process is left alone.
    """
    for home in Path("/tmp").glob(_PREFIX + "*"):
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
        self._ensure_template()

    @contextmanager
    def database(self, *, migrated: bool = True) -> Iterator[Database]:
        name = f"t_{secrets.token_hex(6)}"
        template = _TEMPLATE if migrated else "template1"
        self._execute(
            "CREATE DATABASE {name} OWNER {owner} TEMPLATE {template}",
            name=name, owner=OWNER, template=template,
        )  # fmt: skip
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

    def _ensure_template(self) -> None:
        """Migrate once per run; a template may not be in use, so it is closed afterwards."""
        with psycopg.connect(self._postgres.superuser_dsn, autocommit=True) as connection:
            connection.execute("SELECT pg_advisory_lock(1)")
            ready = "SELECT FROM pg_database WHERE datname = %s AND datistemplate"
            if connection.execute(ready, (_TEMPLATE,)).fetchone() is not None:
                return
            self._execute("DROP DATABASE IF EXISTS {name}", name=_TEMPLATE)
            self._execute("CREATE DATABASE {name} OWNER {owner}", name=_TEMPLATE, owner=OWNER)
            runner.migrate(self._describe(_TEMPLATE).owner_dsn)
            self._execute(
                "ALTER DATABASE {name} IS_TEMPLATE true ALLOW_CONNECTIONS false", name=_TEMPLATE
            )

    def _execute(self, statement: str, **names: str) -> None:
        with psycopg.connect(self._postgres.superuser_dsn, autocommit=True) as connection:
            identifiers = {key: Identifier(name) for key, name in names.items()}
            connection.execute(SQL(statement).format(**identifiers))
