"""One consistent view of the tables, for the length of one answer. It writes nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from psycopg import Connection, IsolationLevel

from ledger.database import Pool, conninfo

_SESSION: Final = "-c statement_timeout=10s -c timezone=UTC -c default_transaction_read_only=on"
# Here and not through `Record`: position and rows must be of one transaction.
_HEAD: Final = "SELECT size FROM ledger_head"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A read-only transaction. `position`: the ledger's in it; `at`: the clock's time."""

    connection: Connection[Any]
    position: int
    at: datetime


class Reader:
    """A pool of connections that can only read."""

    def __init__(
        self,
        dsn: str,
        *,
        size: int,
        clock: Callable[[], datetime],
    ) -> None:
        self._clock = clock
        self._pool = Pool(
            conninfo(dsn, options=_SESSION),
            min_size=1,
            max_size=size,
            kwargs={"autocommit": True},  # a single look is one round trip, not three
            configure=_isolate,
            checked=True,
            name="fedledger-read",
            open=True,
        )

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """A view in which position and tables belong together."""
        with self._pool.connection() as connection, connection.transaction():
            row = connection.execute(_HEAD).fetchone()
            yield Snapshot(connection, row[0] if row else 0, self._clock())

    @contextmanager
    def view(self) -> Iterator[Connection[Any]]:
        """A connection for statements that see one and the same state of the tables."""
        with self._pool.connection() as connection, connection.transaction():
            yield connection

    @contextmanager
    def glance(self) -> Iterator[Connection[Any]]:
        """A connection for a single statement."""
        with self._pool.connection() as connection:
            yield connection

    @property
    def connections(self) -> tuple[int, int]:
        """How many connections are in use, and how many are open."""
        return self._pool.use

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()


def _isolate(connection: Connection[Any]) -> None:
    # Of the transactions of `snapshot`: what is read in one belongs together.
    connection.isolation_level = IsolationLevel.REPEATABLE_READ
