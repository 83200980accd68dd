"""A new release on an older one's database: tables are brought along, or it is said what to run."""

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from api import loglines, tables, wiring
from api.cli import run
from api.cli.exits import CommandError, Exit
from api.cli.machine import explained
from api.settings import load
from migrations import runner
from projections.registry import RELEASE
from support.appending import assert_right, register, store_on
from support.databases import Database
from support.past import generate

pytestmark = pytest.mark.postgres

Environment = Callable[[Database], None]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Environment:
    """Let the command line work with a test's database."""

    def work_with(database: Database) -> None:
        monkeypatch.setenv("FEDLEDGER_HOME", str(tmp_path))
        monkeypatch.setenv("FEDLEDGER_DSN", database.service_dsn)
        monkeypatch.setenv("FEDLEDGER_OWNER_DSN", database.owner_dsn)
        monkeypatch.setattr(loglines, "configure", lambda level: None)

    return work_with


def of_release(database: Database, release: int, *followed: str) -> None:
    """Let the tables, or only what is followed under these names, be those of this release."""
    with psycopg.connect(database.owner_dsn) as connection:
        if not followed:
            connection.execute("UPDATE ledger_head SET projections_version = %s", [release])
            followed = ("history", "event-terms")
        change = "UPDATE projection_progress SET release = %s WHERE name = ANY(%s)"
        connection.execute(change, [release, list(followed)])


def damage(database: Database) -> None:
    """Let all that is of another release be wrong."""
    with psycopg.connect(database.owner_dsn) as connection:
        for name in ("federation_grants", "federation_grants_history", "event_terms"):
            some = f"DELETE FROM {name} WHERE ctid IN (SELECT ctid FROM {name} LIMIT 9)"
            connection.execute(some.encode())


def test_the_tables_of_an_older_release_are_rebuilt_by_migrate(
    database: Database, environment: Environment, capfd: pytest.CaptureFixture[str]
) -> None:
    environment(database)
    generate(database.owner_dsn, 300)
    tables.catch_up(database.service_dsn, lambda *_: None)
    damage(database)
    of_release(database, RELEASE - 1)
    with pytest.raises(CommandError) as caught, explained():
        wiring.serve(load(), lambda line: pytest.fail(line))
    assert caught.value.exit is Exit.REFUSED
    assert caught.value.detail == (
        f"the tables are those of release {RELEASE - 1}, this program writes those of {RELEASE}: "
        "run fedledger migrate with the owner's rights, then start again"
    )
    assert run(["migrate"]) == Exit.OK
    told = capfd.readouterr().err
    for name in ("present", "history", "words"):
        assert f"applied {name}, built anew" in told
    assert_right(database)
    store = store_on(database.service_dsn)
    register(store)
    store.close()
    # Interrupted between two of them, the next call does what was left.
    of_release(database, RELEASE - 1, "history")
    assert tables.bring(database.owner_dsn, lambda *_: None) == ["history"]
    assert tables.bring(database.owner_dsn, lambda *_: None) == []
    of_release(database, RELEASE + 1)
    assert run(["migrate"]) == Exit.REFUSED
    assert "install the newer program" in capfd.readouterr().err


def test_events_of_before_the_histories_are_told_by_migrate(
    empty_database: Database, environment: Environment, capfd: pytest.CaptureFixture[str]
) -> None:
    environment(empty_database)
    runner.migrate(empty_database.owner_dsn, runner.load()[:2])
    generate(empty_database.owner_dsn, 300)
    assert run(["migrate"]) == Exit.OK
    told = capfd.readouterr().err
    assert "applied 0003_history" in told
    assert "history: 300 of 300 events" in told
    assert_right(empty_database)
    with psycopg.connect(empty_database.service_dsn) as connection:
        found = connection.execute("SELECT name, position FROM projection_progress ORDER BY name")
        assert found.fetchall() == [("event-terms", 300), ("history", 300)]
