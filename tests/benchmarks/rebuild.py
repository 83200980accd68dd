"""Rebuilding: events a second and memory of one process, beside COPY and the library's ProjectionRunner.

Each rebuild is a process of its own, so that its memory is its own: `python tests/benchmarks/rebuild.py
DSN SOURCE` rebuilds and prints one JSON object.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import psycopg  # noqa: E402
from contenders import runner_rate  # noqa: E402
from measuring import verdict  # noqa: E402
from psycopg import sql  # noqa: E402

from projections.rebuild import rebuild  # noqa: E402
from projections.registry import INLINE, SOURCES  # noqa: E402
from support.databases import Cluster  # noqa: E402
from support.past import generate  # noqa: E402

RATE: Final = (200_000.0, 100_000.0)  # events a second of the processor's time: goal, floor
OF_RUNNER: Final = 40.0  # times the library's ProjectionRunner
MEMORY: Final = 300.0  # MiB
PAUSE: Final = 100.0  # milliseconds


def rates(cluster: Cluster, sizes: Sequence[int], library_events: int) -> None:
    """Print figures for pasts of these many events, and how memory grows with them."""
    for size in sizes:
        with cluster.database() as database:
            print(f"\nRebuilding a past of {size} events", flush=True)
            generate(database.owner_dsn, size)
            runner = runner_rate(database.superuser_dsn, library_events)
            for source in SOURCES:
                _print(source.name, _measured(database.owner_dsn, source.name), runner)
            copy = _copying(database.owner_dsn)
            print(f"  COPY alone of the same present rows, without indexes: {copy:.2f} s")


def _print(name: str, found: dict[str, Any], runner: float) -> None:
    wall, cpu = found["events"] / found["seconds"], found["events"] / found["cpu"]
    print(
        f"  {name}: {found['seconds']:.1f} s, {wall:.0f} events/s ({cpu:.0f} a second of its own "
        f"processor time), {found['rows']} rows, {found['memory']:.0f} MiB, swap {found['pause']:.0f} ms "
        f"in {found['attempts']} attempts; the library's runner: {runner:.0f} events/s",
        flush=True,
    )
    if name == "present":
        verdict("events a second of processor time", cpu, *RATE)
        verdict("x the library's ProjectionRunner", wall / runner, OF_RUNNER, OF_RUNNER)
    verdict("MiB", found["memory"], MEMORY, MEMORY, most=True)
    verdict("ms, the pause of the swap", found["pause"], PAUSE, PAUSE, most=True)


def _measured(dsn: str, source: str) -> dict[str, Any]:
    said = subprocess.run(
        [sys.executable, __file__, dsn, source], capture_output=True, text=True, check=True
    ).stdout
    found: dict[str, Any] = json.loads(said)
    return found


def _copying(dsn: str) -> float:
    """Seconds to COPY the rows of the present tables in, as they come from COPY."""
    took = 0.0
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        for table in INLINE:
            name, beside = sql.Identifier(table.table), sql.Identifier(f"copy_of_{table.table}")
            connection.execute(sql.SQL("CREATE TABLE {} (LIKE {})").format(beside, name))
            with connection.cursor().copy(sql.SQL("COPY {} TO STDOUT").format(name)) as out:
                blocks = [bytes(block) for block in out]
            began = time.perf_counter()
            with connection.cursor().copy(sql.SQL("COPY {} FROM STDIN").format(beside)) as into:
                for block in blocks:
                    into.write(block)
            took += time.perf_counter() - began
            connection.execute(sql.SQL("DROP TABLE {}").format(beside))
    return took


def main(dsn: str, name: str) -> None:
    source = next(each for each in SOURCES if each.name == name)
    before = time.process_time()
    done = rebuild(dsn, source)
    found = {
        "events": done.events,
        "rows": done.rows,
        "seconds": done.seconds,
        "cpu": time.process_time() - before,
        "pause": done.pause * 1000,
        "attempts": done.attempts,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
