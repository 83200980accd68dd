"""SELECTs prepared once a session, whatever becomes of the session's other statements."""

import psycopg

from ledger.lookups import Lookup
from ledger.packing import integer
from support.databases import Database

LOOKUP = Lookup("SELECT $1::int8 + 1")


def test_it_answers_after_psycopg_let_go_of_all_that_was_prepared(database: Database) -> None:
    with psycopg.connect(database.service_dsn, autocommit=True) as connection:
        assert LOOKUP.rows(connection, integer(1)) == [(2,)]
        connection.execute("SELECT 1 / %s::int", [1], prepare=True)
        with connection.transaction():
            raise psycopg.Rollback
        names = connection.execute("SELECT name FROM pg_prepared_statements").fetchall()
        assert names == []  # else this test shows nothing
        assert LOOKUP.rows(connection, integer(2)) == [(3,)]
        assert LOOKUP.rows(connection, integer(3)) == [(4,)]


def test_it_answers_within_a_transaction_and_leaves_it_whole(database: Database) -> None:
    with psycopg.connect(database.service_dsn, autocommit=True) as connection:
        assert LOOKUP.rows(connection, integer(1)) == [(2,)]
        connection.execute("DEALLOCATE ALL")
        with connection.transaction():
            assert LOOKUP.rows(connection, integer(1)) == [(2,)]
            assert connection.execute("SELECT 7").fetchone() == (7,)
