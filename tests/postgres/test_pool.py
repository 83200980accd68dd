"""The pool of connections for reading: one of before a restart is never given out."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from ledger.database import Pool, conninfo
from support.databases import Database
from support.waiting import wait_until

pytestmark = pytest.mark.postgres

_NAME = "fedledger pool under test"
_KILL = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"


@pytest.fixture
def pool(database: Database) -> Iterator[Pool]:
    dsn = make_conninfo(database.service_dsn, application_name=_NAME)
    with Pool(
        conninfo(dsn), checked=True, min_size=3, max_size=3, kwargs={"autocommit": True}, open=True
    ) as made:
        made.wait(10)
        yield made


def test_a_connection_whose_server_ended_is_never_given_out(pool: Pool, database: Database) -> None:
    with psycopg.connect(database.superuser_dsn, autocommit=True) as server:
        assert len(server.execute(_KILL, [_NAME]).fetchall()) == 3
        wait_until(lambda: server.execute(_KILL, [_NAME]).fetchall() == [], "all have ended")
    for _ in range(6):
        with pool.connection() as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_looking_costs_no_round_trip(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(_: object) -> None:
        pytest.fail("the server was asked")

    monkeypatch.setattr(Pool, "check_connection", staticmethod(asked))
    with pool.connection() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_notice_is_not_taken_for_the_end(pool: Pool, database: Database) -> None:
    """Something to read, and the connection lives: then the server is asked."""
    with pool.connection() as connection:
        connection.execute("LISTEN something")
        number = connection.info.backend_pid
    with psycopg.connect(database.superuser_dsn, autocommit=True) as server:
        server.execute("NOTIFY something")
    seen = set()
    for _ in range(6):
        with pool.connection() as connection:
            seen.add(connection.info.backend_pid)
    assert number in seen
