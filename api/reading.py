"""One consistent view of the tables, as they are or as they were, for the length of one answer.

It writes nothing. The past is read with the SELECTs of the present: the schema `as_of` has views of
the tables' names that show the rows of one position (`migrations/sql/0003_history.sql`).
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

import orjson
from psycopg import Connection
from psycopg.types.json import set_json_loads

from api.problems import Issue
from ledger.database import Pool, conninfo
from ledger.errors import InvalidError
from projections import as_of
from projections.history import HISTORY
from projections.holding import begin_held

_SESSION: Final = (
    "-c statement_timeout=10s -c timezone=UTC -c default_transaction_read_only=on "
    # A page is found by walking an index. Where the planner takes that for long, it would start
    # processes and compile, which takes longer than any page.
    "-c max_parallel_workers_per_gather=0 -c jit=off"
)
# Here and not through `Record`: position and rows must be of one transaction.
_HEAD: Final = "SELECT size FROM ledger_head"


@dataclass(frozen=True, slots=True)
class Moment:
    """Of when a view is: the present; or a time, and all that was recorded by then; or a position,
    at the time it was recorded. With both, what stood at the position, judged at the time."""

    time: datetime | None = None
    position: int | None = None

    @property
    def past(self) -> bool:
        """Whether it is not the present."""
        return self.time is not None or self.position is not None


NOW: Final = Moment()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A read-only transaction. `position`: of the ledger in it; `at`: the time to judge by.

    Of the past, both are of the moment asked for.
    """

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
        reach: Callable[[str, int], None],
    ) -> None:
        """`reach` returns once what is followed under a name holds all up to a position."""
        self._clock = clock
        self._reach = reach
        self._pool = Pool(
            conninfo(dsn, options=_SESSION),
            min_size=1,
            max_size=size,
            kwargs={"autocommit": True},  # a single look is one round trip, not three
            configure=partial(set_json_loads, orjson.loads),  # most of the time a page took
            checked=True,
            name="fedledger-read",
            open=True,
        )

    @contextmanager
    def snapshot(self, moment: Moment = NOW) -> Iterator[Snapshot]:
        """A view in which position and tables belong together.

        Raises:
            InvalidError: `as-of`, the moment lies in the future.
            UnavailableError: `catching-up`, the past is not told that far yet.
        """
        with ExitStack() as stack:
            if not moment.past:
                connection = self._begin(stack)
                row = connection.execute(_HEAD).fetchone()
                yield Snapshot(connection, row[0] if row else 0, self._clock())
                return
            if moment.time is not None and moment.time > self._clock():
                raise _in_the_future("as_of")
            yield self._back_then(stack, moment)

    def _back_then(self, stack: ExitStack, moment: Moment) -> Snapshot:
        while True:
            connection = self._begin(stack)
            found = as_of.resolve(connection, moment.time, moment.position)
            if found.position > found.size or found.at is None:
                raise _in_the_future("as_of_position")
            if found.told >= found.position:
                as_of.go_back(connection, found.position)
                return Snapshot(connection, found.position, found.at)
            # A transaction sees what was there when it began: wait outside of it.
            stack.close()
            self._reach(HISTORY, found.position)

    def _begin(self, stack: ExitStack) -> Connection[Any]:
        connection = stack.enter_context(self._pool.connection())
        begin_held(connection)
        return connection  # the pool ends the transaction when it gets it back

    @contextmanager
    def view(self) -> Iterator[Connection[Any]]:
        """A connection for statements that see one and the same state of the tables."""
        with ExitStack() as stack:
            yield self._begin(stack)

    def glance(self) -> AbstractContextManager[Connection[Any]]:
        """A connection for a single statement, which sees what is there once it has its tables."""
        return self._pool.lent()

    @property
    def connections(self) -> tuple[int, int]:
        """How many connections are in use, and how many are open."""
        return self._pool.use

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()


def _in_the_future(parameter: str) -> InvalidError:
    return InvalidError(
        "that moment has not been yet",
        code="as-of",
        issues=(Issue("must not lie behind the present", parameter=parameter),),
    )
