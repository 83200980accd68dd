"""Who is measured: bare inserts, the library's own recorder, and ours, on one server.

Every contender stores the same event in committed single appends; it measures nothing itself.
"""

import re
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import psycopg
from eventsourcing.application import Application
from eventsourcing.persistence import ApplicationRecorder, Tracking
from eventsourcing.postgres import PostgresFactory, PostgresTrackingRecorder
from eventsourcing.projection import Projection, ProjectionRunner
from eventsourcing.utils import Environment, EnvType
from measuring import Round, Work, of_latencies, timed
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from ledger.appends import Claim, Idempotency
from ledger.events import POLICY_ID, CallDenied, Event, PeerRegistered
from ledger.mapper import EventMapper
from ledger.peers import claimed_name, evolve
from projections.peers import PROJECTION
from support.appending import event_of, register, store_on
from support.databases import Database

FACT: Final = CallDenied(operation="GET /v1/events", problem="forbidden", count=1)

_BARE: Final = """CREATE TABLE bare (stream_id uuid NOT NULL, version bigint NOT NULL,
    topic text NOT NULL, body bytea NOT NULL, position bigserial,
    PRIMARY KEY (stream_id, version)); CREATE UNIQUE INDEX ON bare (position)"""
_INSERT: Final = """INSERT INTO bare (stream_id, version, topic, body) VALUES (%s, %s, %s, %s)
    RETURNING position"""
_DIGEST: Final = "0" * 64
_TRIES: Final = 5
MOST_THREADS: Final = 16


def event() -> Event:
    return event_of(uuid4(), 1, FACT)


class Bare:
    """A psycopg loop, one connection per thread: what Python can do where pgbench is missing."""

    name = "bare insert"
    table = "bare"

    def __init__(self, dsn: str, stack: ExitStack) -> None:
        self._connections = [
            stack.enter_context(psycopg.connect(dsn, autocommit=True)) for _ in range(MOST_THREADS)
        ]
        self._body = EventMapper().to_stored_event(event()).state

    def workers(self, threads: int) -> list[Work]:
        def worker(connection: psycopg.Connection[Any]) -> Work:
            def insert() -> None:
                values = (uuid4(), 1, "call.denied.v1", self._body)
                connection.execute(_INSERT, values, prepare=True).fetchone()

            return insert

        return [worker(connection) for connection in self._connections[:threads]]

    def measure(self, threads: int, seconds: float) -> Round:
        return timed(self.workers(threads), seconds)


class Pgbench:
    """PostgreSQL's own benchmark: one committed single-row insert per event, written in C."""

    name = "pgbench"

    def __init__(self, dsn: str, program: Path) -> None:
        self._program = program
        self._dsn = dsn

    def measure(self, threads: int, seconds: float) -> Round:
        for doubled in range(_TRIES):
            if found := self._round(threads, seconds * 2**doubled):
                return found
        raise RuntimeError(f"pgbench did nothing in {_TRIES} rounds")

    def _round(self, threads: int, seconds: float) -> Round | None:
        """One round; None if nothing was done in it, as on a machine that is very busy."""
        body = EventMapper().to_stored_event(event()).state.hex()
        script = (
            "INSERT INTO bare (stream_id, version, topic, body) VALUES"
            f" (gen_random_uuid(), 1, 'call.denied.v1', '\\x{body}') RETURNING position;"
        )
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "insert.sql")
            file.write_text(script)
            said = subprocess.run(
                [self._program, "-n", "-M", "prepared", "-c", str(threads), "-j",
                 str(min(threads, 2)), "-T", str(max(1, round(seconds))), "-f", file,
                 "-l", "--log-prefix", Path(folder, "log"), self._dsn],
                capture_output=True, text=True, check=True,
            ).stdout  # fmt: skip
            # A line of the log: client, transaction, microseconds, ...
            latencies = [
                int(line.split()[2]) / 1e6
                for log in Path(folder).glob("log.*")
                for line in log.read_text().splitlines()
            ]
        found = re.search(r"tps = ([0-9.]+)", said)
        if found is None or not latencies:
            return None
        return of_latencies(latencies, len(latencies) / float(found[1]))


class Library:
    """The library's own Postgres recorder behind its Application.save, with our mapper."""

    name = "library: save"
    table = "library_events"

    def __init__(self, dsn: str, stack: ExitStack) -> None:
        self.app = _LibraryApplication(dsn)
        stack.callback(self.app.close)

    def workers(self, threads: int) -> list[Work]:
        return [lambda: self.app.save(event())] * threads

    def measure(self, threads: int, seconds: float) -> Round:
        return timed(self.workers(threads), seconds)


class LibraryAsItComes(Library):
    """Its threads where the system puts them, as with whoever does not use our service."""

    name = "library: as it comes"

    def measure(self, threads: int, seconds: float) -> Round:
        return timed(self.workers(threads), seconds, placed=False)


class _LibraryApplication(Application[UUID]):
    name = "library"

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        super().__init__()

    def construct_env(self, name: str, env: EnvType | None = None) -> Environment:
        return library_environment(name, self._dsn)

    def construct_mapper(self) -> EventMapper:
        return EventMapper()


def library_environment(name: str, dsn: str) -> Environment:
    """What the library wants to hear of a database: more connections than threads that ask."""
    given = conninfo_to_dict(dsn)
    return Environment(
        name,
        {
            "PERSISTENCE_MODULE": "eventsourcing.postgres",
            "POSTGRES_DBNAME": str(given["dbname"]),
            "POSTGRES_HOST": str(given["host"]),
            "POSTGRES_PORT": str(given.get("port", 5432)),
            "POSTGRES_USER": str(given["user"]),
            "POSTGRES_PASSWORD": _password_of(given),
            "POSTGRES_POOL_SIZE": "20",
        },
    )


def library_recorder(dsn: str) -> ApplicationRecorder:
    """The library's recorder alone, on a table `library_events` of its own."""
    return PostgresFactory(library_environment("library", dsn)).application_recorder()


def _password_of(given: dict[str, Any]) -> str:
    """The library knows no password file."""
    if "passfile" not in given:
        return str(given.get("password", ""))
    return Path(given["passfile"]).read_text().strip().rsplit(":", 1)[1]


class Ours:
    """Store.save: the library's API over our recorder; head, leaf and tree included."""

    name = "ours: save"
    table = "ledger_events"

    def __init__(self, dsn: str, stack: ExitStack) -> None:
        self.app = store_on(dsn)
        stack.callback(self.app.close)

    def workers(self, threads: int) -> list[Work]:
        return [lambda: self.app.save(event())] * threads

    def measure(self, threads: int, seconds: float) -> Round:
        return timed(self.workers(threads), seconds)


class OursWhole(Ours):
    """The same with everything in: what was read, a claim, a current-state row, a call's record."""

    name = "ours: save, whole"

    def workers(self, threads: int) -> list[Work]:
        return [self._save] * threads

    def _save(self) -> None:
        stream = uuid4()
        fact = PeerRegistered(name=f"peer {stream.hex[:12]}", base_url="https://peer.example")
        new = event_of(stream, 1, fact)
        self.app.save(
            new,
            reads={POLICY_ID: 0},
            claims=[Claim(*claimed_name(fact.name), 0)],
            rows={PROJECTION: PROJECTION.changed(None, evolve(None, new))},
            idempotency=Idempotency("benchmark", "POST", "/v1/peers", stream.hex, _DIGEST),
        )


class OursDeciding(Ours):
    """A command: decided on what it reads, with its claim and its current-state row."""

    name = "ours: decide"

    def workers(self, threads: int) -> list[Work]:
        return [lambda: register(self.app)] * threads


def bare_insert(database: Database, program: Path, stack: ExitStack) -> Pgbench | Bare:
    """pgbench, or its likeness in Python where the server comes without it."""
    with psycopg.connect(database.superuser_dsn, autocommit=True) as connection:
        connection.execute(_BARE)
    if program.exists():
        return Pgbench(database.superuser_dsn, program)
    return Bare(database.superuser_dsn, stack)


# ---- the library's way to fill a table after the commit -----------------------------------------


class _View(PostgresTrackingRecorder):
    """One row per stream, with the library's tracking beside it."""

    def __init__(self, datastore: Any, **more: Any) -> None:
        super().__init__(datastore, **more)
        self.sql_create_statements.append(
            sql.SQL(
                "CREATE TABLE IF NOT EXISTS runner_rows (stream_id uuid PRIMARY KEY, version bigint)"
            )
        )

    def put(self, event: Event, tracking: Tracking) -> None:
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            cursor.execute(
                "INSERT INTO runner_rows VALUES (%s, %s) ON CONFLICT (stream_id) "
                "DO UPDATE SET version = excluded.version",
                (event.originator_id, event.originator_version),
            )


class _Filling(Projection[_View]):
    name = "runner"

    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        self.view.put(domain_event, tracking)


class _RunnerApplication(Application[UUID]):
    name = "library"

    def construct_mapper(self) -> EventMapper:
        return EventMapper()


def runner_times(dsn: str, events: int) -> tuple[float, float]:
    """Seconds an event, and of this process's processor time, of the library's ProjectionRunner.

    With our mapper, one row an event. `events` more are written first; only they are timed.
    """
    env = library_environment("library", dsn)
    app = _RunnerApplication(env=env)
    first = app.recorder.max_notification_id() or 0
    for _ in range(events // 100):
        app.save(*(event() for _ in range(100)))
    last = app.recorder.max_notification_id() or 0
    began, cpu = time.perf_counter(), time.process_time()
    with ProjectionRunner(
        application_class=_RunnerApplication,
        projection_class=_Filling,
        view_class=_View,
        env=env,
    ) as runner:
        runner.wait(last, timeout=600)
        took, worked = time.perf_counter() - began, time.process_time() - cpu
    app.close()
    return took / (last - first), worked / (last - first)
