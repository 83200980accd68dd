"""The writer's connection: its session, its statements, and what their failures mean.

It decides nothing: whom a failure concerns and what to do next is the writer's business.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple, NoReturn

import psycopg
from psycopg import sql
from psycopg.errors import Diagnostic, UniqueViolation, error_from_result
from psycopg.pq import ExecStatus, Format

from ledger import packing
from ledger.appends import (
    Append,
    ClaimTakenError,
    IdempotencyTakenError,
    VersionConflictError,
)
from ledger.database import conninfo
from ledger.errors import UnavailableError
from ledger.plan import Head, Plan
from ledger.statement import REFUSAL
from ledger.tlog.merkle import Frontier

# Only unique indexes are used here, and the tables may be empty when the plans are made.
# Who vanishes in mid-transaction must not keep the head locked.
_SESSION: Final = """
    SET default_transaction_isolation = 'read committed';
    SET timezone = 'UTC';
    SET plan_cache_mode = 'force_generic_plan';
    SET enable_seqscan = off;
    SET lock_timeout = '5s';
    SET idle_in_transaction_session_timeout = '5s';
    SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') = 'off'
"""

_HEAD: Final = sql.SQL("""SELECT size, frontier, last_recorded_at, projections_version
    FROM ledger_head WHERE one{lock}; SELECT leaf FROM ledger_events WHERE position = {anchor}""")
_LEAF: Final = "SELECT leaf FROM ledger_events WHERE position = $1"
_CLAIMS: Final = """SELECT c.kind, c.key, c.stream_id
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS u(kind, key, number)
    JOIN ledger_claims c ON c.kind = u.kind AND c.key = u.key ORDER BY u.number LIMIT 1"""


_PREPARED: Final = 256
"""How many statements a session keeps prepared; beyond, it begins anew. Each holds memory there."""


class ConnectionLostError(Exception):
    """The connection is gone; what was asked last may or may not have happened."""


class StatementError(Exception):
    """A statement failed and had no effect; the connection lives."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause

    @property
    def constraint(self) -> str | None:
        """The unique constraint that was violated."""
        if isinstance(self.cause, UniqueViolation):
            return self.cause.diag.constraint_name
        return None

    @property
    def position_taken(self) -> bool:
        return self.constraint in ("ledger_events_position", "ledger_nodes_pkey")


class Refusal(NamedTuple):
    """Why the statement appended nothing; if neither, the head was not as we knew it."""

    clock_good: bool
    moved: Sequence[int]  # numbers of the reads that have moved on, from 1


@dataclass(frozen=True, slots=True)
class HeadRow:
    """`head` is None when the frontier does not fit the size."""

    size: int
    head: Head | None
    projections_version: int
    anchor_leaf: bytes | None


class WriterConnection:
    """One session. Every method raises ConnectionLostError, or StatementError, or nothing."""

    def __init__(self, dsn: str, projections_version: int, clock_skew: float) -> None:
        """Connect. `clock_skew` in seconds. Raises psycopg.Error."""
        self._clock_skew = clock_skew
        self._fixed = (packing.integer(projections_version), packing.real(clock_skew))
        self._warned = False
        self._connection = psycopg.connect(
            conninfo(dsn), autocommit=True, cursor_factory=psycopg.RawCursor
        )
        self._prepared: dict[bytes, bytes] = {}  # the texts' names in the session
        self._connection.add_notice_handler(self._notice)
        try:
            self._connection.execute(_SESSION, prepare=False)
        except psycopg.Error:
            self._connection.close()
            raise
        # Binary results need the extended protocol, several commands in one text the simple one.
        self._binary = self._connection.cursor(binary=True)
        self._plain = self._connection.cursor()

    def close(self) -> None:
        self._connection.close()

    def append(self, planned: Plan) -> bool:
        """Execute the statement; return whether it appended. Outside a transaction it commits.

        Raises:
            UnavailableError: `commit-outcome-unknown`, when a synchronous standby was not waited
                for: recorded here, but perhaps not where it will be after a failover.
        """
        return self._executed(planned.statement, [*self._fixed, *planned.values]).ntuples == 1

    def refusal(self, planned: Plan, now: datetime) -> Refusal:
        """Say why the statement appended nothing."""
        streams, versions = zip(*planned.reads, strict=True) if planned.reads else ((), ())
        values = [now, self._clock_skew, list(streams), list(versions)]
        (row,) = self._run(REFUSAL.encode(), values).fetchall()
        return Refusal(*row)

    def _executed(self, text: bytes, values: Sequence[Any]) -> psycopg.pq.abc.PGresult:
        """Execute a prepared statement in one call of libpq, which waits outside the interpreter.

        `values`: bytes, or None for NULL, which psycopg takes here and its types do not say.

        psycopg's own way leaves and enters it step by step, and among many threads it takes long each
        time until it is our turn again: all that time nothing is committed.
        """
        self._warned = False
        server = self._connection.pgconn
        try:
            name = self._prepared.get(text) or self._prepare(text)
            result = server.exec_prepared(
                name, values, [Format.BINARY] * len(values), Format.BINARY
            )
        except psycopg.Error as error:
            self._fail(error)
        if result.status != ExecStatus.TUPLES_OK:
            self._fail(error_from_result(result))
        self._check_standby()
        return result

    def _prepare(self, text: bytes) -> bytes:
        if len(self._prepared) >= _PREPARED:
            self._run(b"DEALLOCATE ALL", None)
            self._prepared.clear()
        name = b"append_%d" % len(self._prepared)
        result = self._connection.pgconn.prepare(name, text)
        if result.status != ExecStatus.COMMAND_OK:
            raise error_from_result(result)
        self._prepared[text] = name
        return name

    def head(self, anchor: int, lock: Sequence[str] | None) -> HeadRow | None:
        """Read the head row and the leaf at `anchor`.

        With `lock`, begin a transaction, lock the tables in that order, then the row. Tables first: a rebuild that swaps them takes its locks in this order too.
        """
        query = _HEAD.format(
            lock=sql.SQL(" FOR UPDATE" if lock is not None else ""), anchor=sql.Literal(anchor)
        )
        if lock:
            names = sql.SQL(", ").join(map(sql.Identifier, lock))
            query = sql.SQL("LOCK TABLE {} IN ROW EXCLUSIVE MODE; ").format(names) + query
        if lock is not None:
            query = sql.SQL("BEGIN; ") + query
        cursor = self._run(query.as_bytes(), None)
        rows = [found.fetchone() for found in cursor.results() if found.description]
        row, leaf = rows
        if row is None:
            return None
        try:
            head = Head(Frontier(row[0], row[1]), row[2])
        except ValueError:
            head = None
        return HeadRow(row[0], head, row[3], leaf and leaf[0])

    def leaf(self, position: int) -> bytes | None:
        row = self._run(_LEAF.encode(), [position]).fetchone()
        return row and row[0]

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Around a transaction begun by `head`: rolled back unless `commit` was called in it."""
        try:
            yield
        finally:
            if self._connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                # What it was about is known by now; a lost connection shows at the next use.
                with suppress(ConnectionLostError, StatementError):
                    self._run(b"ROLLBACK", None)

    def commit(self) -> None:
        """Commit the transaction. Raises UnavailableError as `append` does."""
        self._run(b"COMMIT", None)

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """A part of a transaction whose failure leaves the rest alone."""
        self._run(b"SAVEPOINT one", None)
        try:
            yield
        except StatementError:
            self._run(b"ROLLBACK TO SAVEPOINT one", None)
            raise
        self._run(b"RELEASE SAVEPOINT one", None)

    def explain(self, error: StatementError, append: Append) -> Exception | None:
        """What a violated constraint means to the append alone in the statement; None: no idea."""
        if error.constraint == "ledger_events_stream":
            return VersionConflictError()
        if error.constraint == "ledger_idempotency_once":
            return IdempotencyTakenError()
        if error.constraint == "ledger_claims_once":
            kinds = [claim.kind for claim in append.claims]
            keys = [claim.key for claim in append.claims]
            row = self._run(_CLAIMS.encode(), [kinds, keys]).fetchone()
            if row is not None:
                return ClaimTakenError(*row)
        return None

    def _run(self, text: bytes, values: Sequence[Any] | None) -> psycopg.Cursor[Any]:
        self._warned = False
        cursor = self._plain if values is None else self._binary
        try:
            cursor.execute(text, values, prepare=False)
        except (psycopg.Error, ValueError, TypeError, OverflowError) as error:
            self._fail(error)
        self._check_standby()
        return cursor

    def _fail(self, error: Exception) -> NoReturn:
        if self._connection.closed:
            raise ConnectionLostError from error
        raise StatementError(error) from error

    def _check_standby(self) -> None:
        if self._warned:
            raise UnavailableError("a standby was not waited for", code="commit-outcome-unknown")

    def _notice(self, notice: Diagnostic) -> None:
        # "canceling wait for synchronous replication due to user request" is a plain warning.
        if notice.sqlstate == "01000":
            self._warned = True
