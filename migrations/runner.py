"""Bring a database up to this release's schema: numbered SQL files, each applied once.

It does not create databases or login roles, undo anything, or choose a DSN. The files
`sql/NNNN_name.sql` are plain enough for psql and are never edited after a release: the SHA-256
kept beside each applied one makes an edit visible.
"""

import hashlib
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

import psycopg
from psycopg.rows import TupleRow

OLDEST_SERVER = 15

_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_TRANSACTION_CONTROL = re.compile(r"^\s*(BEGIN|COMMIT|ROLLBACK)\s*;", re.IGNORECASE | re.MULTILINE)
_LOCK = int.from_bytes(hashlib.sha256(b"fedledger.migrations").digest()[:8], "big", signed=True)
_TABLE = """CREATE TABLE IF NOT EXISTS schema_migration (
    version    integer     NOT NULL PRIMARY KEY,
    name       text        NOT NULL,
    sha256     text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    applied_by text        NOT NULL DEFAULT current_user,
    millis     integer     NOT NULL)"""

Connection = psycopg.Connection[TupleRow]


class MigrationError(Exception):
    """The schema and this release do not fit; the text says what to do. It never holds a DSN."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One SQL file. `sha256` is lower-case hex, over the text with LF line ends."""

    version: int
    name: str
    sql: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.version:04}_{self.name}"


def load(folder: Traversable | None = None) -> list[Migration]:
    """The release's migrations in order; `folder` only for tests. Raises MigrationError."""
    folder = folder or resources.files("migrations").joinpath("sql")
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    found = [parse(file.name, file.read_bytes()) for file in files]
    if not found:
        raise MigrationError(f"no migrations in {folder}: the installation is incomplete")
    if [m.version for m in found] != list(range(1, len(found) + 1)):
        names = ", ".join(map(str, found))
        raise MigrationError(f"migrations must be numbered 0001, 0002, ... without gaps: {names}")
    return found


def parse(file_name: str, content: bytes) -> Migration:
    """One file's migration. Raises MigrationError."""
    match = _NAME.fullmatch(file_name)
    if match is None:
        raise MigrationError(f"{file_name} is not named NNNN_lower_case.sql")
    try:
        # A checkout with CRLF line ends is the same migration.
        sql = content.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise MigrationError(f"{file_name} is not UTF-8") from None
    if _TRANSACTION_CONTROL.search(sql):
        # It would end the transaction that makes file and record one step.
        raise MigrationError(f"{file_name} must not begin or end transactions")
    return Migration(int(match[1]), match[2], sql, hashlib.sha256(sql.encode()).hexdigest())


def pending(dsn: str, files: list[Migration] | None = None) -> list[str]:
    """Names of the migrations this database lacks. Read-only; the service role may ask.

    Raises MigrationError when the database has one unknown here, or a changed one.
    """
    files = load() if files is None else files
    with _connect(dsn) as connection:
        return pending_in(connection, files)


def pending_in(connection: Connection, files: list[Migration]) -> list[str]:
    """As `pending`, over a connection that is open: cheap enough for `/readyz`."""
    return [str(m) for m in _missing(_applied(connection), files)]


def check(dsn: str, files: list[Migration] | None = None) -> None:
    """Raise MigrationError unless the schema is exactly this release's. For `serve`."""
    if names := pending(dsn, files):
        raise MigrationError(
            f"the database lacks {', '.join(names)}: run fedledger migrate, then start again"
        )


def migrate(dsn: str, files: list[Migration] | None = None, wait: float = 60.0) -> list[str]:
    """Apply what is missing and return its names; safe to run many times and many at once.

    `dsn` is the owner's. Waits up to `wait` seconds for another process that is migrating.
    A file that fails leaves no trace, those before it stay. Raises MigrationError.
    """
    files = load() if files is None else files
    with _connect(dsn) as connection:
        if not _missing(_applied(connection), files):
            return []  # the usual start: no lock, nothing written
        _take_lock(connection, wait)
        connection.execute(_TABLE)
        missing = _missing(_applied(connection), files)  # again: the one before us may have done it
        for migration in missing:
            _apply(connection, migration)
        return [str(m) for m in missing]


@contextmanager
def _connect(dsn: str) -> Iterator[Connection]:
    try:
        with psycopg.connect(dsn, autocommit=True, application_name="fedledger migrate") as opened:
            if opened.info.server_version < OLDEST_SERVER * 10000:
                raise MigrationError(
                    f"PostgreSQL {OLDEST_SERVER} or newer is needed, "
                    f"the server is {opened.info.server_version // 10000}"
                )
            # When this process is killed the server must not work on, holding the lock.
            opened.execute("SET client_connection_check_interval = '1s'")
            yield opened
    except psycopg.OperationalError as error:
        raise MigrationError(f"the database failed or cannot be reached: {error}") from error


def _applied(connection: Connection) -> dict[int, tuple[str, str]]:
    """Version to (name, sha256) of what this database has had; empty for an empty database."""
    found = connection.execute("SELECT to_regclass('schema_migration')").fetchone()
    if found is None or found[0] is None:
        return {}
    rows = connection.execute("SELECT version, name, sha256 FROM schema_migration ORDER BY version")
    return {version: (name, sha256) for version, name, sha256 in rows}


def _missing(applied: dict[int, tuple[str, str]], files: Iterable[Migration]) -> list[Migration]:
    known = {migration.version: migration for migration in files}
    for version, (name, sha256) in applied.items():
        if version not in known:
            raise MigrationError(
                f"the database has migration {version:04}_{name}, which this release does not "
                "know: a newer release was here; install that one, or restore a backup"
            )
        if known[version].sha256 != sha256:
            raise MigrationError(
                f"migration {version:04}_{name} was edited after it was applied to this database: "
                "restore the file and put the change into a new one"
            )
    return [m for m in known.values() if m.version not in applied]


def _take_lock(connection: Connection, wait: float) -> None:
    """Polled, not awaited in the server: so the wait has an end and holds no snapshot open.

    The lock belongs to the session: a killed process leaves nothing to clear.
    """
    deadline = time.monotonic() + wait
    while True:
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,)).fetchone()
        if row is not None and row[0]:
            return
        if time.monotonic() > deadline:
            raise MigrationError(
                f"another process has been migrating this database for {wait:.0f} s: "
                "wait for it to end, then run fedledger migrate again"
            )
        time.sleep(0.1)


def _apply(connection: Connection, migration: Migration) -> None:
    """The file and its record in one transaction."""
    begun = time.monotonic()
    try:
        with connection.transaction():
            # Behind a long query, DDL would queue up every reader after it.
            connection.execute("SET LOCAL lock_timeout = '5s'")
            # Without parameters psycopg sends many statements at once and leaves '%' alone.
            connection.execute(migration.sql.encode())
            connection.execute(
                "INSERT INTO schema_migration (version, name, sha256, millis) VALUES (%s, %s, %s, %s)",
                (
                    migration.version,
                    migration.name,
                    migration.sha256,
                    int((time.monotonic() - begun) * 1000),
                ),
            )
    except psycopg.errors.LockNotAvailable:
        raise MigrationError(
            f"migration {migration}: a table stayed locked for 5 s; nothing was changed. "
            "Stop the services that use this database, then run fedledger migrate again"
        ) from None
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        raise MigrationError(
            f"migration {migration} failed, nothing was changed: {error}"
        ) from error
