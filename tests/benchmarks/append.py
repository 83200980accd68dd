"""How fast events are appended: a bare insert, the library's own recorder, and ours.

Run `python tests/benchmarks/append.py --help`. Rounds are interleaved, so that a busy machine slows
all three alike; medians and ratios are printed. It asserts nothing.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import psycopg  # noqa: E402
from eventsourcing.application import Application  # noqa: E402
from eventsourcing.utils import Environment, EnvType  # noqa: E402
from psycopg.conninfo import conninfo_to_dict  # noqa: E402

from ledger.events import CallDenied, Event  # noqa: E402
from ledger.mapper import EventMapper  # noqa: E402
from migrations.binaries import find_binaries  # noqa: E402
from migrations.embedded import Embedded  # noqa: E402
from support import databases  # noqa: E402
from support.appending import event_of, register, store_on  # noqa: E402
from support.databases import Database  # noqa: E402

GOALS: Final = {1: 2.0, 4: 3.0, 16: 6.0}
"""Ours ÷ the library's, by threads. Ours ÷ bare insert at 16 threads: 0.4."""

FACT: Final = CallDenied(operation="GET /v1/events", problem="forbidden", count=1)

BARE: Final = """CREATE TABLE bare (stream_id uuid NOT NULL, version bigint NOT NULL,
    topic text NOT NULL, body bytea NOT NULL, position bigserial,
    PRIMARY KEY (stream_id, version)); CREATE UNIQUE INDEX ON bare (position)"""
INSERT: Final = """INSERT INTO bare (stream_id, version, topic, body) VALUES (%s, %s, %s, %s)
    RETURNING position"""


def event() -> Event:
    return event_of(uuid4(), 1, FACT)


@dataclass(frozen=True)
class Round:
    """`rate` in events a second, `p50` and `p99` in milliseconds."""

    rate: float
    p50: float
    p99: float


def timed(work: list[Callable[[], object]], seconds: float) -> Round:
    """Run each of `work` in a thread of its own, over and over."""
    ready = threading.Barrier(len(work) + 1)
    latencies: list[list[float]] = [[] for _ in work]
    end = [0.0]

    def run(number: int) -> None:
        each, mine = work[number], latencies[number]
        each()
        ready.wait()
        ready.wait()
        while (start := time.perf_counter()) < end[0]:
            each()
            mine.append(time.perf_counter() - start)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(work))]
    for thread in threads:
        thread.start()
    ready.wait()
    began = time.perf_counter()
    end[0] = began + seconds
    ready.wait()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    merged = sorted(value for each in latencies for value in each)
    return Round(
        len(merged) / took,
        1000 * merged[len(merged) // 2],
        1000 * merged[int(len(merged) * 0.99)],
    )


class Bare:
    """A psycopg loop, one connection per thread: one committed row per event."""

    name = "bare insert"

    def __init__(self, dsn: str, stack: ExitStack) -> None:
        self._connections = [
            stack.enter_context(psycopg.connect(dsn, autocommit=True)) for _ in range(16)
        ]
        self._connections[0].execute(BARE)
        self._body = EventMapper().to_stored_event(event()).state

    def workers(self, threads: int) -> list[Callable[[], object]]:
        def worker(connection: psycopg.Connection[Any]) -> Callable[[], object]:
            def insert() -> None:
                values = (uuid4(), 1, "call.denied.v1", self._body)
                connection.execute(INSERT, values, prepare=True).fetchone()

            return insert

        return [worker(connection) for connection in self._connections[:threads]]


class LibraryRecorder:
    """The library's own Postgres recorder behind its Application.save, with our mapper."""

    name = "library's save"

    def __init__(self, dsn: str, stack: ExitStack) -> None:
        self._app = _LibraryApplication(dsn)
        stack.callback(self._app.close)

    def workers(self, threads: int) -> list[Callable[[], object]]:
        return [lambda: self._app.save(event())] * threads


class _LibraryApplication(Application[UUID]):
    name = "library"

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        super().__init__()

    def construct_env(self, name: str, env: EnvType | None = None) -> Environment:
        given = conninfo_to_dict(self._dsn)
        return Environment(
            name,
            {
                "PERSISTENCE_MODULE": "eventsourcing.postgres",
                "POSTGRES_DBNAME": str(given["dbname"]),
                "POSTGRES_HOST": str(given["host"]),
                "POSTGRES_PORT": str(given.get("port", 5432)),
                "POSTGRES_USER": str(given["user"]),
                "POSTGRES_PASSWORD": password_of(given),
                "POSTGRES_POOL_SIZE": "20",
            },
        )

    def construct_mapper(self) -> EventMapper:
        return EventMapper()


def password_of(given: dict[str, Any]) -> str:
    """The library knows no password file."""
    if "passfile" not in given:
        return str(given.get("password", ""))
    return Path(given["passfile"]).read_text().strip().rsplit(":", 1)[1]


class OursSave:
    """Store.save: the library's API over our recorder; head, leaf and tree included."""

    name = "ours: save"

    def __init__(self, dsn: str, stack: ExitStack) -> None:
        self.store = store_on(dsn)
        stack.callback(self.store.close)

    def workers(self, threads: int) -> list[Callable[[], object]]:
        return [lambda: self.store.save(event())] * threads


class OursDecide(OursSave):
    """A whole command: decided on what it reads, with its claim and its current-state row."""

    name = "ours: decide"

    def workers(self, threads: int) -> list[Callable[[], object]]:
        return [lambda: register(self.store)] * threads


class Pgbench:
    """PostgreSQL's own benchmark: one committed single-row insert per event."""

    name = "pgbench"

    def __init__(self, database: Database, program: Path) -> None:
        self._program = program
        self._dsn = database.superuser_dsn
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute(BARE)

    def round(self, threads: int, seconds: float) -> Round:
        body = EventMapper().to_stored_event(event()).state.hex()
        script = (
            "INSERT INTO bare (stream_id, version, topic, body) VALUES"
            f" (gen_random_uuid(), 1, 'call.denied.v1', '\\x{body}') RETURNING position;"
        )
        with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
            file.write(script)
            file.flush()
            said = subprocess.run(
                [self._program, "-n", "-M", "prepared", "-c", str(threads), "-j",
                 str(min(threads, 2)), "-T", str(max(1, round(seconds))), "-f", file.name,
                 self._dsn],
                capture_output=True, text=True, check=True,
            ).stdout  # fmt: skip
        tps, latency = (
            float(re.search(pattern, said)[1])
            for pattern in (r"tps = ([0-9.]+)", r"latency average = ([0-9.]+)")
        )
        return Round(tps, latency, float("nan"))


Measure = Callable[[int, float], Round]


def contenders(database: Database, program: Path, stack: ExitStack) -> dict[str, Measure]:
    """Name → one round, given threads and seconds. The first is the bare insert."""
    found: dict[str, Measure] = {}
    if program.exists():
        found[Pgbench.name] = Pgbench(database, program).round
    else:
        bare = Bare(database.superuser_dsn, stack)
        found[Bare.name] = lambda threads, seconds: timed(bare.workers(threads), seconds)
    for each in (
        LibraryRecorder(database.superuser_dsn, stack),
        OursSave(database.service_dsn, stack),
        OursDecide(database.service_dsn, stack),
    ):
        found[each.name] = lambda threads, seconds, e=each: timed(e.workers(threads), seconds)
    return found


def compare(measures: dict[str, Measure], threads: int, rounds: int, seconds: float) -> None:
    results: dict[str, list[Round]] = {name: [] for name in measures}
    names = list(measures)
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            results[name].append(measures[name](threads, seconds))
    bare = names[0]
    print(f"\n{threads} thread{'s' if threads > 1 else ''}, {rounds} rounds of {seconds:g} s")
    for name in names:
        rates = [one.rate for one in results[name]]
        print(
            f"  {name:<15} {statistics.median(rates):>8.0f}/s"
            f"  ({min(rates):.0f} to {max(rates):.0f})"
            f"  p50 {statistics.median(one.p50 for one in results[name]):6.2f} ms"
            f"  p99 {statistics.median(one.p99 for one in results[name]):6.2f} ms"
            f"  x library {ratio(results, name, LibraryRecorder.name):5.2f}"
            f"  x bare {ratio(results, name, bare):5.2f}"
        )
    print(f"  goal of ours: save: x library {GOALS[threads]:g}" if threads in GOALS else "")


def ratio(results: dict[str, list[Round]], name: str, base: str) -> float:
    """The median of the ratios of rounds that ran side by side."""
    pairs = zip(results[name], results[base], strict=True)
    return statistics.median(one.rate / other.rate for one, other in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a round")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument(
        "--no-sync", action="store_true", help="fsync off: what the processors can do"
    )
    given = parser.parse_args()
    home = databases.make_home()
    try:
        with ExitStack() as stack:
            postgres = Embedded(home, bindir=databases.bindir(), durable=not given.no_sync)
            stack.enter_context(postgres)
            database = stack.enter_context(databases.Cluster(postgres).database())
            program = find_binaries(databases.bindir()) / "pgbench"
            measures = contenders(database, program, stack)
            for threads in given.threads:
                compare(measures, threads, given.rounds, given.seconds)
    finally:
        databases.remove_home(home)


if __name__ == "__main__":
    main()
