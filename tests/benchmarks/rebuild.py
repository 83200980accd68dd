"""Rebuilding: events a second and memory of one process, beside COPY and the library's ProjectionRunner.

They take turns, so that a busy machine slows all alike; then it is done once more while others append.
Each rebuild is a process of its own, with those it starts, so that its memory is its own:
`python tests/benchmarks/rebuild.py DSN SOURCE` rebuilds and prints one JSON object. A rate per process
is that of a second of their processor time, whichever of them spent it.
"""

import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryFile
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import psycopg  # noqa: E402 - found by the path above
from contenders import runner_times  # noqa: E402 - found by the path above
from measuring import Round, of_latencies, table, verdict  # noqa: E402 - found by the path above
from psycopg import sql  # noqa: E402 - found by the path above

from ledger.store import Store  # noqa: E402 - found by the path above
from projections import progress  # noqa: E402 - found by the path above
from projections.beside import schema_for  # noqa: E402 - found by the path above
from projections.copying import processes_for  # noqa: E402 - found by the path above
from projections.rebuild import rebuild  # noqa: E402 - found by the path above
from projections.registry import SOURCES  # noqa: E402 - found by the path above
from projections.sources import Source  # noqa: E402 - found by the path above
from support.appending import register, store_on  # noqa: E402 - found by the path above
from support.databases import Cluster, Database  # noqa: E402 - found by the path above
from support.past import generate  # noqa: E402 - found by the path above

RATE: Final = (200_000.0, 100_000.0)  # events a second of the processor's time: goal, floor
OF_RUNNER: Final = 40.0  # times the library's ProjectionRunner
MEMORY: Final = 300.0  # MiB
PAUSE: Final = 100.0  # milliseconds
_EVERY: Final = 0.005  # seconds between two appends meanwhile
_BLOCK: Final = 2**16  # octets


def rates(cluster: Cluster, sizes: Sequence[int], library_events: int, rounds: int) -> None:
    """Print figures for pasts of these many events, and how memory grows with them."""
    for size in sizes:
        with cluster.database() as database:
            print(f"\nRebuilding a past of {size} events, {rounds} rounds", flush=True)
            generate(database.owner_dsn, size)
            _side_by_side(database, library_events, rounds)
            _while_appending(database)


@dataclass(frozen=True)
class _Turn:
    """One round: each of the contenders once, one right after the other."""

    rebuilt: dict[str, Any]
    copied: float  # seconds
    runner: tuple[float, float]  # seconds an event: of the wall clock, of the processor

    @property
    def of_runner(self) -> float:
        """How many times as fast, an event: the runner is given fewer of them."""
        return self.runner[0] * self.rebuilt["events"] / self.rebuilt["seconds"]


def _side_by_side(database: Database, library_events: int, rounds: int) -> None:
    for source in SOURCES:
        turns = [
            _Turn(
                _measured(database.owner_dsn, source.name),
                _copying(database.owner_dsn, source),
                runner_times(database.superuser_dsn, library_events),
            )
            for _ in range(rounds)
        ]
        for turn in turns:
            _print(source.name, turn)
        cpu = median(turn.rebuilt["events"] / turn.rebuilt["cpu"] for turn in turns)
        if source.name == "present":
            verdict("events a second of processor time", cpu, *RATE)
            times = median(turn.of_runner for turn in turns)
            verdict("x the library's ProjectionRunner", times, OF_RUNNER, OF_RUNNER)
        memory = max(turn.rebuilt["memory"] for turn in turns)
        verdict("MiB", memory, MEMORY, MEMORY, most=True)
        pause = max(turn.rebuilt["pause"] for turn in turns)
        verdict("ms, the pause of the swap", pause, PAUSE, PAUSE, most=True)


def _print(name: str, turn: _Turn) -> None:
    found, (wall, cpu) = turn.rebuilt, turn.runner
    events, seconds = found["events"], found["seconds"]
    print(
        f"  {name}: {seconds:.1f} s, {events / seconds:.0f} events/s ({events / found['cpu']:.0f} a "
        f"second of its own processor time), {found['rows']} rows, {found['processes']} processes, "
        f"{found['memory']:.0f} MiB in all, swap {found['pause']:.0f} ms in {found['attempts']} attempts\n"
        f"    {turn.of_runner:.1f} x the library's runner, which makes {1 / wall:.0f} events/s "
        f"({1 / cpu:.0f} a second of processor time)\n"
        f"    {seconds / turn.copied:.1f} x the time of COPY alone of the same rows, without indexes: "
        f"{turn.copied:.2f} s",
        flush=True,
    )


def _while_appending(database: Database) -> None:
    """Print the worst append before, and while the present tables are rebuilt and swapped.

    Once they are copied there is a checkpoint. A long rebuild has one anyway, and it is the hardest moment
    for an append: left to chance, it would come in one run and not in the next. As the server makes its
    own, spread over time, it is held against the limit; one that somebody asks for at once is told of.
    """
    with closing(store_on(database.service_dsn)) as store:
        _appends(store, _until(time.monotonic() + 1))  # connections, prepared statements
        before = _appends(store, _until(time.monotonic() + 3))
        spread, swapped = _rebuilt_beside(database, store, _spread_checkpoint)
        at_once, _ = _rebuilt_beside(database, store, _checkpoint)
    rows = {"before": before, "meanwhile": spread, "and a checkpoint at once": at_once}
    table({f"appends {name}": [one] for name, one in rows.items()})
    print(f"  the swap among them: {swapped['pause']:.0f} ms in {swapped['attempts']} attempts")
    verdict("ms, the worst append meanwhile", spread.worst, PAUSE, PAUSE, most=True)


def _rebuilt_beside(
    database: Database, store: Store, checkpoint: Callable[[psycopg.Connection[Any]], object]
) -> tuple[Round, dict[str, Any]]:
    """Append until the present tables are rebuilt; the checkpoint begins once they are copied."""
    with ThreadPoolExecutor(2) as beside:
        done = beside.submit(_measured, database.owner_dsn, "present")
        asked = beside.submit(_once_copied, database, done.done, checkpoint)
        meanwhile = _appends(store, done.done)
        asked.result()
        return meanwhile, done.result()


def _once_copied(
    database: Database,
    over: Callable[[], bool],
    checkpoint: Callable[[psycopg.Connection[Any]], object],
) -> None:
    with psycopg.connect(database.superuser_dsn, autocommit=True) as connection:
        while not over():
            now = progress.read(connection, schema_for("present"))
            if now is not None and now.phase != "copying":
                checkpoint(connection)
                return
            time.sleep(0.05)


def _checkpoint(connection: psycopg.Connection[Any]) -> None:
    connection.execute("CHECKPOINT")


def _spread_checkpoint(connection: psycopg.Connection[Any]) -> None:
    """As a timed one, and as every backup begins; in the shortest time the server can be told."""
    connection.execute("ALTER SYSTEM SET checkpoint_timeout = '30s'")
    connection.execute("SELECT pg_reload_conf()")
    try:
        connection.execute("SELECT pg_backup_start('benchmark', fast => false)")
        connection.execute("SELECT pg_backup_stop(wait_for_archive => false)")
    finally:
        connection.execute("ALTER SYSTEM RESET checkpoint_timeout")
        connection.execute("SELECT pg_reload_conf()")


def _until(moment: float) -> Callable[[], bool]:
    return lambda: time.monotonic() >= moment


def _appends(store: Store, over: Callable[[], bool]) -> Round:
    """Append now and then until it is over: as fast as it goes, the rebuild could only run behind."""
    latencies: list[float] = []
    first = time.perf_counter()
    while not over() or not latencies:
        began = time.perf_counter()
        register(store)
        latencies.append(time.perf_counter() - began)
        time.sleep(_EVERY)
    return of_latencies(latencies, time.perf_counter() - first)


def _measured(dsn: str, source: str) -> dict[str, Any]:
    said = subprocess.run(
        [sys.executable, __file__, dsn, source], capture_output=True, text=True, check=True
    ).stdout
    found: dict[str, Any] = json.loads(said)
    return found


def _copying(dsn: str, source: Source) -> float:
    """Seconds to COPY the rows of the source's tables in, as they come from COPY."""
    took = 0.0
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        for each in source.tables:
            name, beside = sql.Identifier(each.table), sql.Identifier(f"copy_of_{each.table}")
            connection.execute(sql.SQL("CREATE TABLE {} (LIKE {})").format(beside, name))
            # By way of a file: this process stays small, and what is timed does no more than copy.
            with TemporaryFile() as rows:
                with connection.cursor().copy(sql.SQL("COPY {} TO STDOUT").format(name)) as out:
                    rows.writelines(out)
                rows.seek(0)
                began = time.perf_counter()
                with connection.cursor().copy(sql.SQL("COPY {} FROM STDIN").format(beside)) as into:
                    while block := rows.read(_BLOCK):
                        into.write(block)
                took += time.perf_counter() - began
            connection.execute(sql.SQL("DROP TABLE {}").format(beside))
    return took


def main(dsn: str, name: str) -> None:
    source = next(each for each in SOURCES if each.name == name)
    before = time.process_time()
    done = rebuild(dsn, source)
    others = resource.getrusage(resource.RUSAGE_CHILDREN)
    processes = processes_for(source, done.events)
    found = {
        "events": done.events,
        "rows": done.rows,
        "seconds": done.seconds,
        "cpu": time.process_time() - before + others.ru_utime + others.ru_stime,
        "pause": done.pause * 1000,
        "attempts": done.attempts,
        "processes": processes,
        # As if each of the others were as large as the largest of them.
        "memory": _peak() + (processes - 1) * others.ru_maxrss / 1024,
    }
    print(json.dumps(found))


def _peak() -> float:
    """The largest resident set of this process, in MiB.

    `getrusage` tells that of the process it was started from, where it was larger (execve(2) keeps it).
    """
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) / 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
