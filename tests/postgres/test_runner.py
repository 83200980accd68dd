"""The migration runner on a real PostgreSQL: concurrency, edits, crashes, releases out of order."""

import hashlib
import subprocess
import sys

import psycopg
import pytest

from migrations import runner
from migrations.runner import Migration, MigrationError
from support.databases import Database
from support.waiting import wait_until

pytestmark = pytest.mark.postgres

MIGRATE = "import sys; from migrations import runner; print(*runner.migrate(sys.argv[1]))"


def migration(version: int, name: str, sql: str) -> Migration:
    return Migration(version, name, sql, hashlib.sha256(sql.encode()).hexdigest())


FIRST = migration(1, "first", "CREATE TABLE first (percent text DEFAULT '100%'); SELECT 1")
SECOND = migration(2, "second", "CREATE TABLE second ()")
BROKEN = migration(2, "second", "CREATE TABLE half (); SELECT 1/0")


def tables(database: Database) -> set[str]:
    with psycopg.connect(database.superuser_dsn) as connection:
        rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return {name for (name,) in rows}


def test_a_database_is_brought_up_to_the_release_once(empty_database: Database) -> None:
    everything = [str(m) for m in runner.load()]
    assert runner.pending(empty_database.owner_dsn) == everything
    assert runner.migrate(empty_database.owner_dsn) == everything
    assert runner.migrate(empty_database.owner_dsn) == []
    assert runner.pending(empty_database.owner_dsn) == []
    runner.check(empty_database.service_dsn)  # the service's role can see that all is well


def test_serve_is_told_to_migrate(empty_database: Database) -> None:
    with pytest.raises(MigrationError, match="run fedledger migrate"):
        runner.check(empty_database.service_dsn)


def test_six_starts_at_once_all_come_up(empty_database: Database) -> None:
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", MIGRATE, empty_database.owner_dsn],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    answers = [(start.communicate(timeout=120), start.returncode) for start in starts]
    assert [code for _, code in answers] == [0] * 6, answers
    everything = " ".join(str(m) for m in runner.load())
    assert sorted(output.strip() for (output, _), _ in answers) == [""] * 5 + [everything]


def test_only_what_is_missing_is_applied(empty_database: Database) -> None:
    dsn = empty_database.owner_dsn
    assert runner.migrate(dsn, [FIRST]) == ["0001_first"]
    assert runner.migrate(dsn, [FIRST, SECOND]) == ["0002_second"]
    with psycopg.connect(dsn) as connection:
        query = "SELECT version, name, sha256, applied_by FROM schema_migration ORDER BY version"
        rows = connection.execute(query).fetchall()
    assert rows == [
        (1, "first", FIRST.sha256, "fedledger_owner"),
        (2, "second", SECOND.sha256, "fedledger_owner"),
    ]


def test_an_edited_file_is_refused(empty_database: Database) -> None:
    dsn = empty_database.owner_dsn
    runner.migrate(dsn, [FIRST])
    edited = migration(1, "first", FIRST.sql + " -- harmless")
    for act in (runner.pending, runner.check, runner.migrate):
        with pytest.raises(MigrationError, match="0001_first was edited"):
            act(dsn, [edited, SECOND])
    assert "second" not in tables(empty_database)


def test_an_older_release_refuses_a_newer_database(empty_database: Database) -> None:
    dsn = empty_database.owner_dsn
    runner.migrate(dsn, [FIRST, SECOND])
    for act in (runner.pending, runner.check, runner.migrate):
        with pytest.raises(MigrationError, match=r"0002_second.*newer release"):
            act(dsn, [FIRST])


def test_a_failing_file_leaves_no_trace_and_keeps_those_before(empty_database: Database) -> None:
    dsn = empty_database.owner_dsn
    with pytest.raises(MigrationError, match=r"0002_second failed, nothing was changed.*zero"):
        runner.migrate(dsn, [FIRST, BROKEN])
    assert tables(empty_database) == {"schema_migration", "first"}
    assert runner.migrate(dsn, [FIRST, SECOND]) == ["0002_second"]


def test_a_locked_table_is_not_waited_for_for_ever(empty_database: Database) -> None:
    dsn = empty_database.owner_dsn
    runner.migrate(dsn, [FIRST])
    alter = migration(2, "alter", "SET LOCAL lock_timeout = '50ms'; ALTER TABLE first ADD c int")
    with psycopg.connect(dsn) as reader:
        reader.execute("SELECT FROM first")
        with pytest.raises(MigrationError, match="stayed locked"):
            runner.migrate(dsn, [FIRST, alter])
    assert runner.migrate(dsn, [FIRST, alter]) == ["0002_alter"]


def test_waiting_for_another_process_has_an_end(empty_database: Database) -> None:
    dsn = empty_database.owner_dsn
    with psycopg.connect(dsn, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", (runner._LOCK,))
        with pytest.raises(MigrationError, match="another process"):
            runner.migrate(dsn, [FIRST], wait=0)
    assert runner.migrate(dsn, [FIRST]) == ["0001_first"]


def test_kill_in_the_middle_leaves_nothing_to_clear(empty_database: Database) -> None:
    dsn = empty_database.owner_dsn
    slow = migration(2, "second", "CREATE TABLE half (); SELECT pg_sleep(600)")
    program = f"from migrations import runner\nfrom migrations.runner import Migration\nrunner.migrate({dsn!r}, [{FIRST!r}, {slow!r}])"
    process = subprocess.Popen([sys.executable, "-c", program])
    with psycopg.connect(empty_database.superuser_dsn, autocommit=True) as watch:
        query = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND wait_event = 'PgSleep'"
        )

        def sleeping() -> bool:
            return watch.execute(query, (empty_database.name,)).fetchone() == (1,)

        wait_until(sleeping, "the migration is under way")
        process.kill()
        process.wait()
        # The server notices within a second, though its statement would last ten minutes.
        assert runner.migrate(dsn, [FIRST, SECOND], wait=20) == ["0002_second"]
    assert tables(empty_database) == {"schema_migration", "first", "second"}


def test_an_unreachable_database_is_one_error_without_the_dsn(empty_database: Database) -> None:
    with pytest.raises(MigrationError, match="cannot be reached") as raised:
        runner.pending("host=/nonexistent user=u password=hunter2 dbname=d")
    assert "hunter2" not in str(raised.value)
