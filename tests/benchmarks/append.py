"""Appending: events a second and their latencies, at rest and while the table is vacuumed."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import psycopg
from contenders import Library, LibraryAsItComes, Ours, OursDeciding, OursWhole, bare_insert, event
from measuring import Round, interleaved, median, ratio, table, timed, verdict
from psycopg import sql

from support.databases import Cluster, Database

GOALS: Final = {1: (2.0, 1.5), 4: (3.0, 2.2), 16: (6.0, 4.5)}
"""Threads → ours divided by the library's rate: the goal, and the floor."""
OF_PGBENCH: Final = (0.4, 0.25)  # at 16 threads
P99_OF_LIBRARY: Final = 0.3  # at 16 threads
WORST: Final = 50.0  # milliseconds, while the table is vacuumed and analysed
_FILL: Final = 500  # events per append when a table is filled


def rates(
    cluster: Cluster, program: Path, threads: Sequence[int], rounds: int, seconds: float
) -> None:
    """Print all contenders side by side for each number of threads."""
    with ExitStack() as stack:

        def database() -> Database:
            # One each: to a ledger the other contender would be another process that appends.
            return stack.enter_context(cluster.database())

        contenders = [
            bare_insert(database(), program, stack),
            *(kind(database().superuser_dsn, stack) for kind in (Library, LibraryAsItComes)),
            *(kind(database().service_dsn, stack) for kind in (Ours, OursWhole, OursDeciding)),
        ]
        for count in threads:
            measures = {each.name: partial(each.measure, count, seconds) for each in contenders}
            results = interleaved(measures, rounds)
            print(f"\nAppending, {count} threads, {rounds} rounds of {seconds:g} s")
            table(results)
            _judge(results, contenders[0].name, count)


def _judge(results: Mapping[str, Sequence[Round]], bare: str, threads: int) -> None:
    # The faster of the two: whether threads on one processor help it depends on how many there are.
    library = max(
        (results[kind.name] for kind in (Library, LibraryAsItComes)),
        key=lambda rounds: median(rounds, lambda r: r.rate),
    )
    for name in (Ours.name, OursWhole.name, OursDeciding.name):
        print(
            f"  {name} is {ratio(results[name], library):.2f} x the library,"
            f" {ratio(results[name], results[bare]):.2f} x {bare}"
        )
    ours = results[OursWhole.name]
    if threads in GOALS:
        verdict("whole save, x library", ratio(ours, library), *GOALS[threads])
    if threads == max(GOALS):
        verdict(f"whole save, x {bare}", ratio(ours, results[bare]), *OF_PGBENCH)
        share = ratio(ours, library, lambda r: r.p99)
        verdict("p99, share of the library's", share, P99_OF_LIBRARY, P99_OF_LIBRARY, most=True)


# ---- while the table is kept busy -------------------------------------------------------------


def vacuumed(
    database: Database, threads: Sequence[int], events: int, rounds: int, seconds: float
) -> None:
    """Print the worst append with and without VACUUM and ANALYZE running all the time."""
    with ExitStack() as stack:
        contenders: list[Ours | Library] = [
            Ours(database.service_dsn, stack),
            Library(database.superuser_dsn, stack),
        ]
        for each in contenders:
            _fill(each, events)
        for count in threads:
            measures = {
                f"{each.name}{', vacuum' if busy else ''}": partial(
                    _round, each, database, count, seconds, busy
                )
                for each in contenders
                for busy in (False, True)
            }
            results = interleaved(measures, rounds)
            print(
                f"\nAppending to {events} events, {count} threads, {rounds} rounds of {seconds:g} s;"
                " 'vacuum': VACUUM and ANALYZE of the events in turn, without a pause"
            )
            table(results)
            worst = median(results[f"{Ours.name}, vacuum"], lambda r: r.worst)
            verdict(
                "ms, worst append during vacuum (median of rounds)", worst, WORST, WORST, most=True
            )


def _fill(contender: Ours | Library, events: int) -> None:
    for _ in range(events // _FILL):
        contender.app.save(*(event() for _ in range(_FILL)))


def _round(
    contender: Ours | Library, database: Database, threads: int, seconds: float, busy: bool
) -> Round:
    if not busy:
        return timed(contender.workers(threads), seconds)
    with _maintenance(database.superuser_dsn, contender.table):
        return timed(contender.workers(threads), seconds)


@contextmanager
def _maintenance(dsn: str, name: str) -> Iterator[None]:
    """Whole VACUUMs, which read every page, and ANALYZE, one after the other."""
    over = threading.Event()
    named = sql.Identifier(name)
    commands = [
        sql.SQL("VACUUM (DISABLE_PAGE_SKIPPING) {}").format(named),
        sql.SQL("ANALYZE {}").format(named),
    ]

    def work(connection: psycopg.Connection[Any]) -> None:
        while not over.is_set():
            for command in commands:
                connection.execute(command)

    with psycopg.connect(dsn, autocommit=True) as connection:
        thread = threading.Thread(target=work, args=(connection,))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
