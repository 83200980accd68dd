"""How this room connects to PostgreSQL: a DSN with safe defaults, and what an error means.

It holds the pool all reading goes through; it runs no statement of its own and knows no table.
"""

import logging
import select
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any, Final, LiteralString

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import Composed
from psycopg_pool import ConnectionPool, PoolTimeout

from ledger.errors import InvalidError, UnavailableError
from ledger.lookups import Lookup

_logger: Final = logging.getLogger(__name__)

# A peer that vanished without a word is noticed in seconds, not after the system's two hours.
_DEFAULTS: Final = {
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",  # milliseconds
    "application_name": "fedledger",
}

_WAIT: Final = 5.0  # seconds for a free connection
_TRY: Final = 0.5  # seconds for a try to connect; all there is while the database is away

# SQLSTATE classes in which the value is at fault: data, constraint, program limit (PostgreSQL
# documentation, appendix A). Everything else is the server's condition.
_VALUE_AT_FAULT: Final = ("22", "23", "54")


# Every read of the record is of a few places in an index. Taken for dear, they are passed over for a walk
# through all positions, which has no end where a topic stopped occurring long ago.
_READING: Final = (
    "-c default_transaction_read_only=on -c timezone=UTC -c jit=off -c random_page_cost=1.1"
)


def conninfo(dsn: str, options: str = "") -> str:
    """Return the libpq connection string `dsn` with our defaults where it says nothing.

    `options`: server settings of the session, as `-c name=value`, added to those of the DSN.
    """
    given = {key: str(value) for key, value in conninfo_to_dict(dsn).items() if value is not None}
    if options:
        # The DSN's own options stay; of two settings of one name the last one counts.
        given["options"] = f"{given.get('options', '')} {options}".strip()
    return make_conninfo("", **{**_DEFAULTS, **given, "client_encoding": "UTF8"})


def storage_unavailable() -> UnavailableError:
    return UnavailableError("the database does not answer", code="storage-unavailable")


def condition_of(error: Exception) -> UnavailableError:
    """What a failure says about the server's condition."""
    if isinstance(error, psycopg.errors.LockNotAvailable):
        return UnavailableError("another writer holds the head", code="busy")
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    if isinstance(error, psycopg.errors.DiskFull):
        _logger.error("the database's disk is full")
        return UnavailableError("the database's disk is full", code="storage-full")
    if state is not None:
        # The class and the code only: a message of PostgreSQL quotes values.
        _logger.error("the database refuses: %s (SQLSTATE %s)", type(error).__name__, state)
    return storage_unavailable()


def error_of(error: Exception) -> InvalidError | UnavailableError:
    """What the failure of one statement means to the caller whose values it had."""
    if isinstance(error, psycopg.Error):
        # Without a SQLSTATE the client raised it: a DataError when it could not write the value.
        state = error.sqlstate
        if not (state or "").startswith(_VALUE_AT_FAULT) and not (
            state is None and isinstance(error, psycopg.DataError)
        ):
            return condition_of(error)
    return InvalidError("the database cannot hold a value of this")


class Pool(ConnectionPool[psycopg.Connection[Any]]):
    """Connections to a database that may go away and come back.

    While it is away the callers wait briefly: else they would take up every thread there is, and
    who needs no database (`/livez`) would wait behind them.
    """

    def __init__(self, dsn: str, *, checked: bool = False, **options: Any) -> None:
        """`dsn` as `conninfo` makes it; `checked`: a connection is given out only if it lives;
        `options` of ConnectionPool."""
        # The pool's own tries to reconnect pause twice as long each time: after an hour's outage
        # the next would be an hour away. So it gives up at once, and whoever asks begins anew.
        super().__init__(dsn, timeout=_WAIT, reconnect_timeout=0.0, **options)
        self._checked = checked
        self._is_away = False

    def getconn(self, timeout: float | None = None) -> psycopg.Connection[Any]:
        """As ConnectionPool's. Raises PoolTimeout."""
        if timeout is None:
            timeout = _TRY if self._is_away else _WAIT
        deadline = monotonic() + timeout
        while True:
            left = deadline - monotonic()
            try:
                connection = super().getconn(max(0.001, min(_TRY, left)))
            except PoolTimeout:
                if left > _TRY:
                    continue
                self._is_away = True
                raise
            if self._checked and not self._lives(connection):
                # Of before a restart, as the next may be: no pause, unlike the pool's own check.
                self.putconn(connection)
                continue
            self._is_away = False
            return connection

    def _lives(self, connection: psycopg.Connection[Any]) -> bool:
        try:
            # A server that went away has closed its end, and that can be read. Where there is
            # nothing to read, nobody is asked: it would be a round trip for every request.
            if _says_something(connection.fileno()):
                self.check_connection(connection)
        except psycopg.Error:
            return False
        return True

    @contextmanager
    def lent(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection for single statements; `connection` ends a transaction after it, too."""
        connection = self.getconn()
        try:
            yield connection
        finally:
            self.putconn(connection)

    @property
    def use(self) -> tuple[int, int]:
        """How many connections are in use, and how many are open."""
        found = self.get_stats()
        size, free = found.get("pool_size", 0), found.get("pool_available", 0)
        return size - free, size


def _says_something(socket: int) -> bool:
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(0))


class Reads:
    """A pool of connections that only read. Opened with the first read; thread-safe."""

    def __init__(self, dsn: str, size: int) -> None:
        """`size`: how many connections at most."""
        self._pool = Pool(
            conninfo(dsn, _READING),
            min_size=1,
            max_size=size,
            open=False,
            kwargs={"autocommit": True},
            name="fedledger-reads",
        )

    def rows(
        self,
        query: LiteralString | Composed,
        values: Sequence[object] | Mapping[str, object] = (),
    ) -> list[tuple[Any, ...]]:
        """Return all rows of one SELECT.

        Raises:
            UnavailableError: `storage-unavailable`.
        """

        def ask(connection: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
            cursor = connection.cursor(binary=True)
            return cursor.execute(query, values, prepare=True).fetchall()

        return self._answered(ask)

    def look(self, lookup: Lookup, *values: bytes) -> list[tuple[Any, ...]]:
        """Return all rows of a SELECT that is asked again and again. Raises as `rows` does."""
        return self._answered(lambda connection: lookup.rows(connection, *values))

    def _answered(
        self, ask: Callable[[psycopg.Connection[Any]], list[tuple[Any, ...]]]
    ) -> list[tuple[Any, ...]]:
        try:
            self._pool.open()
            try:
                with self._pool.lent() as connection:
                    return ask(connection)
            except PoolTimeout:
                raise  # it is away: asking again at once would only double the wait
            except (psycopg.OperationalError, psycopg.InterfaceError):
                # The server was restarted, and this connection is of before. A read may be repeated.
                self._pool.check()
                with self._pool.lent() as connection:
                    return ask(connection)
        except psycopg.Error as error:
            raise condition_of(error) from None

    @property
    def connections(self) -> tuple[int, int]:
        """How many connections are in use, and how many are open."""
        return self._pool.use

    def close(self) -> None:
        self._pool.close()
