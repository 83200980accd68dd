"""SELECTs that are asked with nearly every request: prepared once a session, answered in one call.

psycopg's own way leaves and enters the interpreter at every step and takes three times as long
(`docs/adr/0018-what-the-committing-thread-does-not-do.md`). It holds no statement: who owns the table
does. It is for what a server answers at once: an interrupt (Ctrl-C) waits for the answer.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Final, LiteralString
from weakref import WeakSet

import psycopg
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result
from psycopg.pq import DiagnosticField, ExecStatus, Format, TransactionStatus
from psycopg.pq.abc import PGresult

_NO_SUCH_NAME: Final = b"26000"  # invalid_sql_statement_name


class Lookup:
    """One SELECT. Thread-safe, as long as each connection has one thread at a time."""

    def __init__(self, text: LiteralString) -> None:
        """`text`: with its values as $1, $2 and so on."""
        self._text: Final = text.encode()
        self._name: Final = b"lookup_" + sha256(self._text).hexdigest()[:16].encode()
        self._prepared: WeakSet[psycopg.Connection[Any]] = WeakSet()

    def rows(self, connection: psycopg.Connection[Any], *values: bytes) -> list[tuple[Any, ...]]:
        """Return all rows. `values`: in PostgreSQL's binary form, as `ledger/packing.py` writes it.

        Raises:
            psycopg.Error: an OperationalError if the connection is lost.
        """
        try:
            result = self._asked(connection, values)
        except psycopg.Error as error:
            if connection.closed:
                raise psycopg.OperationalError("the connection is lost") from error
            raise
        read = Transformer(connection)
        read.set_pgresult(result)
        return read.load_rows(0, result.ntuples, tuple)

    def _asked(self, connection: psycopg.Connection[Any], values: Sequence[bytes]) -> PGresult:
        server = connection.pgconn
        formats = [Format.BINARY] * len(values)
        if server.transaction_status != TransactionStatus.IDLE:
            # A name that is gone would end the transaction.
            result = server.exec_params(self._text, values, None, formats, Format.BINARY)
        else:
            if connection not in self._prepared:
                self._prepare(connection)
            result = server.exec_prepared(self._name, values, formats, Format.BINARY)
            if result.error_field(DiagnosticField.SQLSTATE) == _NO_SUCH_NAME:
                # With a transaction that is rolled back psycopg lets go of all that was prepared.
                self._prepare(connection)
                result = server.exec_prepared(self._name, values, formats, Format.BINARY)
        _require(result, ExecStatus.TUPLES_OK)
        return result

    def _prepare(self, connection: psycopg.Connection[Any]) -> None:
        _require(connection.pgconn.prepare(self._name, self._text), ExecStatus.COMMAND_OK)
        self._prepared.add(connection)


def _require(result: PGresult, status: ExecStatus) -> None:
    if result.status != status:
        raise error_from_result(result)
