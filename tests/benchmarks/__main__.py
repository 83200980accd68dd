"""How fast and how large: `python tests/benchmarks [--quick] [SECTION ...]`.

One private PostgreSQL with fsync on; pgbench, the library's own recorder and ours stand on it, and
their rounds are interleaved, so that a busy machine slows all alike. Medians and ratios are printed
and judged against the goals; it asserts nothing and ends with 0. The section `issuance` needs the
step-ca that tests/step_ca/build.sh builds.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import append  # noqa: E402
import forensics  # noqa: E402
import grants  # noqa: E402
import issuance  # noqa: E402
import moments  # noqa: E402
import past  # noqa: E402
import rebuild  # noqa: E402

from api import loglines  # noqa: E402
from migrations.binaries import find_binaries  # noqa: E402
from migrations.embedded import Embedded  # noqa: E402
from support import databases  # noqa: E402

SECTIONS: Final = (
    "append", "vacuum", "grants", "memory", "past", "moments", "issuance", "forensics",
    "rebuild",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python tests/benchmarks", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--quick", action="store_true", help="two minutes: rough figures only")
    parser.add_argument("--rounds", type=int, help="of each contender")
    parser.add_argument("--seconds", type=float, help="length of a round")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--events", type=int, help="in the table that is vacuumed")
    parser.add_argument("--past", type=int, help="events in the made-up past")
    parser.add_argument("--certificates", type=int, help="in a round of issuance")
    parser.add_argument("--requests", type=int, help="whose memory is watched")
    parser.add_argument(
        "--no-sync", action="store_true", help="fsync off: what the processors can do"
    )
    given = parser.parse_args()
    if unknown := set(given.sections) - set(SECTIONS):
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    quick = given.quick
    rounds = given.rounds or (3 if quick else 7)
    seconds = given.seconds or (1.0 if quick else 3.0)
    events = given.events or (20_000 if quick else 200_000)
    requests = given.requests or (5_000 if quick else 100_000)
    chosen = given.sections or SECTIONS
    loglines.configure("error")  # of this process; the service logs as it always does
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} at the start", flush=True)
    with _server(durable=not given.no_sync) as (cluster, program):
        if "append" in chosen:
            append.rates(cluster, program, given.threads, rounds, seconds)
        if "vacuum" in chosen:
            with cluster.database() as database:
                append.vacuumed(database, given.threads, events, max(3, rounds // 2), seconds)
        if "grants" in chosen:
            with cluster.database() as database, tempfile.TemporaryDirectory() as home:
                grants.compare(database, Path(home), rounds, seconds)
        if "memory" in chosen:
            with cluster.database() as database, tempfile.TemporaryDirectory() as home:
                grants.memory(database, Path(home), requests)
        if "rebuild" in chosen:
            sizes = [given.past] if given.past else [20_000] if quick else [1_000_000, 3_000_000]
            rebuild.rates(
                cluster, sizes, 1000 if quick else 5000, given.rounds or (1 if quick else 3)
            )
        if "issuance" in chosen:
            with cluster.database() as database:
                issuance.compare(database, rounds, given.certificates or (100 if quick else 400))
        if "past" in chosen:
            with cluster.database() as database:
                past.rate(database, given.past or (50_000 if quick else 1_000_000))
        if {"moments", "forensics"} & set(chosen):
            with cluster.database() as database, tempfile.TemporaryDirectory() as home:
                size = given.past or (50_000 if quick else 1_000_000)
                made = past.furnished(database, Path(home), size)
                if "moments" in chosen:
                    moments.measure(database, Path(home), made, 20 if quick else 150)
                if "forensics" in chosen:
                    forensics.pages(database, Path(home), made, 30 if quick else 200)


@contextmanager
def _server(*, durable: bool) -> Iterator[tuple[databases.Cluster, Path]]:
    """The private PostgreSQL, and where its pgbench would be."""
    home = databases.make_home(on_disk=True)
    try:
        with Embedded(home, bindir=databases.bindir(), durable=durable) as postgres:
            program = find_binaries(databases.bindir()) / "pgbench"
            yield databases.Cluster(postgres), program
    finally:
        databases.remove_home(home)


if __name__ == "__main__":
    main()
