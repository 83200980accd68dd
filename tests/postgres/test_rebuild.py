"""Rebuilding beside and swapping: the same tables afterwards, whoever reads, writes or dies meanwhile."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg
import pytest

from api.reading import Reader
from api.settings import without_real_ledger
from ledger.audit import Violation
from ledger.errors import UnavailableError
from ledger.folds import FOLDS
from ledger.peers import Peer
from ledger.store import Store
from projections import peers
from projections.follower import Followed, Follower
from projections.history import HISTORY, Histories, HistoryWriter
from projections.progress import Progress
from projections.rebuild import RebuildAbortedError, RebuildError, Rebuilt, abort, rebuild
from projections.registry import FOLLOWED, INLINE, RELEASE, SOURCES
from projections.shape import Shape, shape_of
from projections.sources import Past, Present
from projections.verify import check_ledger
from projections.verify_tables import check_tables
from support.appending import assert_right, checked_store, real_clock, register, store_on, update
from support.databases import Cluster, Database
from support.installation import FEDLEDGER
from support.past import generate
from support.waiting import wait_until

pytestmark = pytest.mark.postgres

PRESENT, HISTORIES = SOURCES
SLOW = {"pause": 10.0}  # seconds: on a busy machine the swap is slow, and that is not under test


def follow(database: Database) -> int:
    """Bring the histories up to date; return their position."""
    follower = Follower(database.service_dsn, FOLLOWED)
    follower.follow()
    position = follower.position(HISTORY)
    follower.close()
    return position


def wrong(database: Database) -> list[Violation]:
    found: list[Violation] = []
    for source in SOURCES:
        check_tables(database.service_dsn, source, found.append)
    return found


def right(database: Database) -> None:
    """The record, the present and the past are what the events say, and nothing is left over."""
    assert_right(database)
    assert wrong(database) == []
    with psycopg.connect(database.owner_dsn) as connection:
        left = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'fedledger%'"
        assert connection.execute(left).fetchall() == []


def shapes(database: Database) -> dict[str, Shape]:
    with psycopg.connect(database.owner_dsn) as connection:
        return {
            table.table: shape_of(connection, table.table)
            for source in SOURCES
            for table in source.tables
        }


def views(database: Database) -> list[tuple[Any, ...]]:
    query = """SELECT viewname, definition, has_table_privilege('fedledger_service',
        format('%I.%I', schemaname, viewname), 'SELECT') FROM pg_views
        WHERE schemaname = 'as_of' ORDER BY 1"""
    with psycopg.connect(database.owner_dsn) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture
def past(cluster: Cluster) -> Iterator[Database]:
    """A ledger with a past of some two thousand events, its histories up to date."""

    def fill(database: Database) -> None:
        generate(database.owner_dsn, 2000)
        follow(database)

    with cluster.filled("past_2000_followed", fill) as database:
        yield database


@pytest.mark.parametrize("source", SOURCES, ids=[source.name for source in SOURCES])
def test_altered_tables_are_right_again_and_the_same_in_everything_else(
    past: Database, source: Any
) -> None:
    with psycopg.connect(past.owner_dsn, autocommit=True) as connection:
        # What a table may have been given by hand has to survive, too.
        name = source.tables[0].table
        for gift in (
            f"COMMENT ON TABLE {name} IS 'a table''s comment'",
            f"COMMENT ON COLUMN {name}.id IS 'a column''s'",
            f"ALTER TABLE {name} SET (autovacuum_vacuum_scale_factor = 0.05)",
            f"ALTER TABLE {source.tables[1].table} SET (autovacuum_enabled = off)",
            f"CREATE INDEX by_hand ON {name} (kind) WHERE kind <> 'ON public.x USING'",
            "COMMENT ON INDEX by_hand IS 'an index''s'",
            f"GRANT SELECT ON {name} TO PUBLIC",
        ):
            connection.execute(gift.encode())
        before, before_views = shapes(past), views(past)
        for table in source.tables:
            connection.execute(
                f"DELETE FROM {table.table} WHERE ctid IN (SELECT ctid FROM {table.table} LIMIT 3)".encode()
            )
    assert wrong(past)
    told: list[str] = []
    done = rebuild(
        past.owner_dsn, source, chunk=300, tell=lambda now: told.append(now.phase), **SLOW
    )
    assert (done.position, done.events, done.resumed) == (2000, 2000, False)
    assert done.rows > 500
    assert list(dict.fromkeys(told)) == ["copying", "indexing", "catching-up", "swapped"]
    right(past)
    assert (shapes(past), views(past)) == (before, before_views)
    if source is HISTORIES:
        with checked_store(past) as store:
            register(store)
        assert follow(past) == 2001, "the follower goes on where the rebuild ended"
        right(past)


def test_nobody_who_reads_or_writes_meanwhile_fails(past: Database) -> None:
    """Prepared statements of before go on afterwards, by all three roads: reads, appends, as of."""
    store = store_on(past.service_dsn)
    peer = register(store).value
    over = threading.Event()
    failures: list[Exception] = []
    counts = dict.fromkeys(("append", "read", "as of"), 0)

    def keep(name: str, work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                # Not as fast as they can: the one stream is folded whole whenever it has moved.
                while not over.wait(0.01) or counts[name] < 5:
                    work()
                    counts[name] += 1
            except Exception as error:  # noqa: BLE001 - it is what must not happen
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def append() -> None:
        update(store, peer.id, f"https://{counts['append']}.example")

    with (
        psycopg.connect(past.service_dsn, autocommit=True, prepare_threshold=0) as present,
        psycopg.connect(past.service_dsn, autocommit=True, prepare_threshold=0) as before,
    ):
        before.execute("SET search_path = as_of, public")
        before.execute("SET fedledger.position = 2001")

        def read() -> None:
            found = peers.by_id(present, peer.id)
            assert found is not None, "a read found no row"

        def read_as_of() -> None:
            assert peers.by_id(before, peer.id) == first

        follow(past)
        first = peers.by_id(before, peer.id)
        threads = [keep("append", append), keep("read", read), keep("as of", read_as_of)]
        for _ in range(2):
            for source in SOURCES:
                rebuild(past.owner_dsn, source, chunk=500, **SLOW)
        over.set()
        for thread in threads:
            thread.join(60)
        assert failures == []
        found = peers.by_id(present, peer.id)
        assert found is not None
        assert found.base_url == f"https://{counts['append'] - 1}.example", "the last append shows"
    store.close()
    follow(past)
    right(past)


# They wait for the transaction that swaps.
_WAIT: Final = """SELECT count(*) FROM pg_stat_activity
    WHERE wait_event_type = 'Lock' AND datname = current_database()"""


def test_whoever_begins_to_read_during_the_swap_sees_nothing_older_than_it_says(
    past: Database,
) -> None:
    """The rows of the last round of catching up are written by the swap itself: a transaction that had
    looked before it and found the tables after it would miss them."""
    with ExitStack() as stack:
        store = store_on(past.service_dsn)
        stack.callback(store.close)
        peer = register(store).value
        reader = Reader(
            past.service_dsn, size=2, clock=real_clock, reach=lambda name, position: None
        )
        stack.callback(reader.close)
        others = stack.enter_context(ThreadPoolExecutor(2))
        watching = stack.enter_context(psycopg.connect(past.superuser_dsn, autocommit=True))
        urls = iter(("https://first.example", "https://last.example"))
        seen: list[Future[Any]] = []

        def read() -> tuple[int, str]:
            with reader.snapshot() as snapshot:
                found = peers.by_id(snapshot.connection, peer.id)
                assert found is not None, "a read found no row"
                return snapshot.position, found.base_url

        def tell(now: Progress) -> None:
            if now.phase == "catching-up" and (url := next(urls, None)) is not None:
                update(store, peer.id, url)  # the second one is left to the swap
            if now.phase == "swapped":
                seen.extend((others.submit(read), others.submit(check_ledger, past.service_dsn)))
                wait_until(lambda: watching.execute(_WAIT).fetchone() == (2,), "both wait")

        done = rebuild(past.owner_dsn, PRESENT, tell=tell, pause=60)
        assert (done.position, done.attempts) == (2003, 1)
        assert seen[0].result(60) == (2003, "https://last.example")
        report = seen[1].result(60)
        assert report.ok, str(report)
    follow(past)
    right(past)


@contextmanager
def rebuilding(
    database: Database, source: str, chunk: int, processes: int = 1
) -> Iterator[subprocess.Popen[str]]:
    """A process that rebuilds a step for each line it is sent."""
    errand = [database.owner_dsn, source, str(chunk), str(processes)]
    with subprocess.Popen(
        [sys.executable, "-m", "support.rebuilding", *errand],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},  # noqa: TID251
        cwd=Path(__file__).parents[2],
    ) as process:
        try:
            yield process
        finally:
            process.kill()


_ABORTING: Final = "SELECT aborting FROM fedledger_rebuild_present.progress"


def steps(process: subprocess.Popen[str], count: int) -> list[str]:
    """Let it take so many steps; return what it said of each. It stands still after the last."""
    assert process.stdout
    assert process.stdin
    said = []
    for number in range(count):
        if number:
            process.stdin.write("\n")
            process.stdin.flush()
        said.append(process.stdout.readline().strip())
    return said


@pytest.mark.parametrize(
    ("source", "killed_after"),
    [*((PRESENT, step) for step in (1, 3, 6, 7)), (HISTORIES, 3), (HISTORIES, 7)],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_killed_anywhere_it_goes_on(past: Database, source: Any, killed_after: int) -> None:
    """Two thousand events in chunks of 500: four or five steps of copying, then indexing and so on."""
    with rebuilding(past, source.name, 500) as process:
        said = steps(process, killed_after)
    assert wrong(past) == [], "the live tables are whole all the time"
    with checked_store(past) as store:
        register(store)
    follow(past)
    done = rebuild(past.owner_dsn, source, chunk=500, **SLOW)
    # What it told of last was still within its transaction: it died, and that is undone.
    assert (done.resumed, done.events, done.position) == (True, 2000, 2001), said
    right(past)


def test_a_running_rebuild_is_given_up_on_request(past: Database) -> None:
    assert not abort(past.owner_dsn, PRESENT), "there is none"
    with rebuilding(past, PRESENT.name, 300) as process:
        steps(process, 2)
        asking = threading.Thread(target=abort, args=(past.owner_dsn, PRESENT))
        asking.start()
        with pytest.raises(RebuildError, match="another rebuild is running"):
            rebuild(past.owner_dsn, PRESENT)
        assert process.stdin
        with psycopg.connect(past.owner_dsn, autocommit=True) as connection:
            wait_until(
                lambda: connection.execute(_ABORTING).fetchone() == (True,), "abort asks for it"
            )
        process.stdin.write("\n" * 50)
        process.stdin.flush()
        assert process.stdout
        assert process.stdout.read().splitlines()[-1] == "aborted"
        asking.join(60)
    right(past)


def test_what_a_dead_rebuild_left_is_removed_on_request(past: Database) -> None:
    with rebuilding(past, PRESENT.name, 300) as process:
        steps(process, 3)
    assert abort(past.owner_dsn, PRESENT)
    right(past)
    assert not rebuild(past.owner_dsn, PRESENT, **SLOW).resumed


def test_a_rebuild_of_another_shape_is_begun_anew(past: Database) -> None:
    with rebuilding(past, PRESENT.name, 300) as process:
        steps(process, 3)
    with psycopg.connect(past.owner_dsn, autocommit=True) as connection:
        connection.execute("ALTER TABLE federation_peers ADD COLUMN colour text")
        assert not rebuild(past.owner_dsn, PRESENT, **SLOW).resumed
        connection.execute("SELECT colour FROM federation_peers LIMIT 1")
        connection.execute("ALTER TABLE federation_peers DROP COLUMN colour")
    right(past)


def test_older_releases_write_nothing_after_a_newer_ones_rebuild(past: Database) -> None:
    older, newer = (
        store_on(past.service_dsn),
        store_on(past.service_dsn, projections_version=RELEASE + 1),
    )
    register(older)
    with pytest.raises(UnavailableError) as caught:
        register(newer)
    assert caught.value.code == "projections-version"
    rebuild(past.owner_dsn, PRESENT, release=RELEASE + 1, **SLOW)
    register(newer)
    with pytest.raises(UnavailableError) as caught:
        register(older)
    assert caught.value.code == "projections-version"
    with pytest.raises(RebuildError, match="newer release"):
        rebuild(past.owner_dsn, PRESENT)
    older.close()
    newer.close()
    follow(past)
    right(past)


def test_whoever_reads_for_long_is_not_waited_for_and_whoever_writes_does_not_wait(
    past: Database,
) -> None:
    """All that a swap has locked already it gives back after 50 ms: else the appends, which are behind
    it, would go on only with the reader, who here waits for them."""
    with (
        psycopg.connect(past.superuser_dsn, autocommit=True) as watching,
        ExitStack() as after,
        ThreadPoolExecutor(1) as other,
        psycopg.connect(past.service_dsn) as reader,
    ):
        store = store_on(past.service_dsn)
        after.callback(store.close)
        reader.execute("SELECT FROM federation_policy LIMIT 1")  # the last that is locked
        with pytest.raises(RebuildError, match="quieter time"):
            rebuild(past.owner_dsn, PRESENT, patience=1)
        trying = other.submit(rebuild, past.owner_dsn, PRESENT, **SLOW)
        for _ in range(3):
            wait_until(lambda: watching.execute(_WAIT).fetchone() == (1,), "the swap waits")
            register(store)
        reader.rollback()
        done = trying.result(60)
    assert (done.resumed, done.position, done.attempts > 1) == (True, 2003, True)
    follow(past)
    right(past)


def test_a_vacuum_that_takes_for_ever_does_not_keep_the_swap_waiting(past: Database) -> None:
    slow = "autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1"
    vacuumed = "SELECT 1 FROM pg_stat_progress_vacuum WHERE datname = current_database()"
    with psycopg.connect(past.superuser_dsn, autocommit=True) as connection:

        def under_way() -> bool:
            return connection.execute(vacuumed.encode()).fetchone() is not None

        connection.execute(
            f"""ALTER TABLE federation_certificates SET ({slow}, autovacuum_vacuum_threshold = 0,
                autovacuum_vacuum_scale_factor = 0)""".encode()
        )
        connection.execute("DELETE FROM federation_certificates WHERE state = 'issued'")
        try:
            connection.execute("ALTER SYSTEM SET autovacuum_naptime = 1")
            connection.execute("SELECT pg_reload_conf()")
            wait_until(under_way, "an autovacuum")
            done = rebuild(past.owner_dsn, PRESENT, patience=20.0, **SLOW)
        finally:
            connection.execute("ALTER SYSTEM RESET autovacuum_naptime")
            connection.execute("SELECT pg_reload_conf()")
    assert done.attempts < 5
    right(past)


def test_a_swap_that_reads_for_too_long_is_given_up(past: Database) -> None:
    """It holds every lock there is while it reads what was appended last."""
    with psycopg.connect(past.superuser_dsn) as holding:

        def tell(now: Progress) -> None:
            if now.phase == "catching-up" and not holding.info.transaction_status:
                holding.execute("LOCK TABLE ledger_events IN ACCESS EXCLUSIVE MODE")

        with pytest.raises(RebuildError, match="quieter time"):
            rebuild(past.owner_dsn, PRESENT, patience=0.5, tell=tell)
    assert rebuild(past.owner_dsn, PRESENT, **SLOW).resumed
    right(past)


_PHASE: Final = "SELECT phase FROM fedledger_rebuild_present.progress"


def test_ended_from_outside_it_leaves_nothing_half_made_and_goes_on(
    past: Database, tmp_path: Path
) -> None:
    """The command itself. It stands still because the test holds what it needs next."""
    environment = {
        **without_real_ledger(),
        "FEDLEDGER_HOME": str(tmp_path),
        "FEDLEDGER_DSN": past.service_dsn,
        "FEDLEDGER_OWNER_DSN": past.owner_dsn,
    }
    line = [FEDLEDGER, "projections", "rebuild", "--only", "present", "--pause", "10000", "--json"]

    @contextmanager
    def begun() -> Iterator[subprocess.Popen[str]]:
        pipe = subprocess.PIPE
        with subprocess.Popen(
            line, env=environment, text=True, stdout=pipe, stderr=pipe
        ) as process:
            try:
                yield process
            finally:
                process.kill()  # or a failure would wait for it, and it for what the test holds

    def end(process: subprocess.Popen[str], number: int) -> None:
        process.send_signal(number)
        assert process.communicate(timeout=60)[1].endswith("interrupted\n")
        assert process.returncode == 130

    with (
        psycopg.connect(past.superuser_dsn, autocommit=True) as watching,
        psycopg.connect(past.superuser_dsn) as holding,
    ):
        holding.execute("LOCK TABLE ledger_events IN ACCESS EXCLUSIVE MODE")
        with begun() as process:
            wait_until(lambda: watching.execute(_WAIT).fetchone() == (1,), "it copies")
            end(process, signal.SIGINT)
        assert watching.execute(_PHASE).fetchone() == ("copying",)
        holding.rollback()
        assert wrong(past) == [], "the live tables are whole"
        holding.execute("LOCK TABLE federation_policy IN ACCESS SHARE MODE")
        with begun() as process:
            wait_until(lambda: watching.execute(_WAIT).fetchone() == (1,), "it swaps")
            end(process, signal.SIGTERM)
        assert watching.execute(_PHASE).fetchone() == ("catching-up",)
        holding.rollback()
        assert wrong(past) == []
        with begun() as process:
            told = json.loads(process.communicate(timeout=60)[0])["present"]
        assert (process.returncode, told["resumed"], told["position"]) == (0, True, 2000)
    right(past)


def test_a_stream_that_does_not_fold_stops_it_and_the_live_tables_stay(past: Database) -> None:
    with psycopg.connect(past.superuser_dsn, autocommit=True) as connection:
        connection.execute("ALTER TABLE ledger_events DISABLE TRIGGER ALL")
        row = connection.execute(
            "SELECT position, stream_id, topic FROM ledger_events WHERE topic = 'grant.proposed.v1' LIMIT 1"
        ).fetchone()
        assert row is not None
        position, stream_id, topic = row
        change = "UPDATE ledger_events SET topic = %s WHERE position = %s"
        connection.execute(change, ["grant.suspended.v1", position])
        with pytest.raises(RebuildError, match=str(stream_id)):
            rebuild(past.owner_dsn, PRESENT, processes=3)  # whichever of them it is that finds it
        assert not check_ledger(past.owner_dsn).ok
        connection.execute(change, [topic, position])
    assert rebuild(past.owner_dsn, PRESENT, **SLOW).position == 2000
    right(past)


# ---- several processes -------------------------------------------------------------------------

# The slice that another process copies, held by the test: that process waits for it.
_HOLD: Final = "SELECT pg_advisory_lock(hashtext('fedledger_rebuild_present'), 1)"
_LEAVE: Final = "SELECT pg_advisory_unlock_all()"
_OWNERS: Final = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'fedledger_owner'"


def copying(parent: int) -> list[int]:
    """The processes that a process has started to copy."""
    started = Path(f"/proc/{parent}/task").glob("*/children")
    found = [int(one) for each in started for one in each.read_text().split()]
    return [
        one for one in found if b"projections.copying" in Path(f"/proc/{one}/cmdline").read_bytes()
    ]


def runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


@contextmanager
def held(database: Database) -> Iterator[psycopg.Connection[Any]]:
    """The second slice is held until the block ends, or before: its connection is given."""
    with psycopg.connect(database.superuser_dsn, autocommit=True) as connection:
        connection.execute(_HOLD)
        yield connection


@pytest.mark.parametrize("source", SOURCES, ids=[source.name for source in SOURCES])
def test_several_processes_copy_the_same_tables(past: Database, source: Any) -> None:
    told: list[int] = []
    done = rebuild(
        past.owner_dsn,
        source,
        chunk=300,
        processes=3,
        tell=lambda now: told.append(now.events),
        **SLOW,
    )
    assert (done.position, done.events, done.resumed) == (2000, 2000, False)
    assert (told, told[-1]) == (sorted(told), 2000)
    right(past)


def test_killed_it_takes_its_processes_along_and_goes_on_with_as_many(past: Database) -> None:
    with held(past) as holding:
        with rebuilding(past, PRESENT.name, 300, 2) as process:
            steps(process, 2)
            (other,) = wait_until(lambda: copying(process.pid), "another process copies")
            wait_until(lambda: holding.execute(_WAIT).fetchone() == (1,), "it waits")
        wait_until(lambda: not runs(other), "it ends with the one that started it")
        holding.execute(_LEAVE)
        wait_until(
            lambda: holding.execute(_OWNERS).fetchone() == (0,), "and so does its connection"
        )
    assert wrong(past) == []
    done = rebuild(past.owner_dsn, PRESENT, chunk=300, **SLOW)
    assert (done.resumed, done.events, done.position) == (True, 2000, 2000)
    right(past)


@contextmanager
def trying_in_vain(database: Database) -> Iterator[tuple[Future[Rebuilt], int]]:
    """A rebuild by two processes, and the second one, which does not get its slice."""
    with held(database) as holding, ThreadPoolExecutor(1) as working:
        trying = working.submit(rebuild, database.owner_dsn, PRESENT, processes=2, **SLOW)
        (other,) = wait_until(lambda: copying(os.getpid()), "another process copies")
        wait_until(lambda: holding.execute(_WAIT).fetchone() == (1,), "it waits")
        yield trying, other


def test_a_process_that_dies_is_told_of_and_what_it_had_copied_is_kept(past: Database) -> None:
    with trying_in_vain(past) as (trying, other):
        os.kill(other, signal.SIGKILL)
        with pytest.raises(RebuildError, match=r"has ended \(-9\); call it again"):
            trying.result(60)
    done = rebuild(past.owner_dsn, PRESENT, **SLOW)
    assert (done.resumed, done.events) == (True, 2000)
    right(past)


def test_given_up_on_request_it_ends_its_processes(past: Database) -> None:
    with trying_in_vain(past) as (trying, other):
        assert abort(past.owner_dsn, PRESENT)
        with pytest.raises(RebuildAbortedError):
            trying.result(60)
        assert not runs(other)
    right(past)


def test_the_whole_of_every_table_is_rebuilt() -> None:
    assert {table.table for table in PRESENT.tables} == {table.table for table in INLINE}
    assert len(HISTORIES.tables) == len(INLINE)


def _rows_with_host(peer: Peer) -> list[tuple[object, ...]]:
    (row,) = peers.rows(peer)
    return [(*row, urlsplit(peer.base_url).hostname)]


def test_a_new_column_goes_live_as_the_how_to_says(past: Database) -> None:
    """The steps of docs/how-to/change-a-projection.md, with the older service running all the time."""
    older = store_on(past.service_dsn)
    register(older)
    with psycopg.connect(past.owner_dsn, autocommit=True) as connection:
        connection.execute("ALTER TABLE federation_peers ADD COLUMN host text")  # 1.
        connection.execute("ALTER TABLE federation_peers_history ADD COLUMN host text")
        row = connection.execute("SELECT pg_get_viewdef('as_of.federation_peers')").fetchone()
        assert row is not None
        view = row[0].replace("\n   FROM", ",\n    host\n   FROM", 1)
        connection.execute(f"CREATE OR REPLACE VIEW as_of.federation_peers AS {view}".encode())
    table = replace(  # 2.
        peers.PROJECTION,
        columns=(*peers.PROJECTION.columns, ("host", "text")),
        rows=_rows_with_host,
    )
    inline = [table if one is peers.PROJECTION else one for one in INLINE]
    sources = (Present(inline), Past(inline, HISTORY))
    register(older)
    for source in sources:  # 3. and 4.
        # However many are wanted: another process would copy what the registry has.
        rebuild(past.owner_dsn, source, release=RELEASE + 1, processes=2, **SLOW)
    newer = Store(
        past.service_dsn,
        clock=real_clock,
        folds=FOLDS,
        inline=inline,
        projections_version=RELEASE + 1,
    )
    register(newer)  # 5.
    with pytest.raises(UnavailableError):
        register(older)
    behind = Follower(past.service_dsn, FOLLOWED, release=RELEASE)
    behind.follow()
    assert behind.position(HISTORY) == newer.record.head().size - 1, "of the release before"
    behind.close()
    followed = Followed(HISTORY, lambda: HistoryWriter(Histories(inline)))
    follower = Follower(past.service_dsn, [followed], release=RELEASE + 1)
    follower.follow()
    follower.close()
    for source in sources:  # 6.
        found: list[Violation] = []
        check_tables(past.service_dsn, source, found.append)
        assert found == []
    with psycopg.connect(past.service_dsn) as connection:
        for name in ("federation_peers", "federation_peers_history"):
            query = f"SELECT count(*), count(host) FROM {name}"
            row = connection.execute(query.encode()).fetchone()
            assert row is not None
            assert row[0] == row[1] > 3
    older.close()
    newer.close()
