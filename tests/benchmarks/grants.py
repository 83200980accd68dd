"""Creating grants over HTTP: the service on our recorder and on the library's, and its memory.

Service and clients are processes of their own; both services stand on one server and are asked in
turn. What is printed of the memory is the service's resident set alone, not PostgreSQL's.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import psycopg
from contenders import library_recorder
from measuring import Round, interleaved, of_latencies, ratio, table, verdict

from support.databases import Database
from support.http import house

GOAL: Final = 2.0
"""Ours divided by the same handler's rate on the library's recorder."""
MEMORY: Final = 150.0  # MiB
_FLAT: Final = 0.02  # share by which the second half of the requests may add and be called flat
_HERE: Final = Path(__file__).parent
_COPY: Final = """INSERT INTO library_events
    (originator_id, originator_version, topic, state)
    SELECT stream_id, version, topic, body FROM ledger_events ORDER BY position"""


@dataclass(frozen=True)
class Service:
    """A service that runs, and what its clients send."""

    pid: int
    port: int
    token: Path
    body: bytes

    def requests(self, *, seconds: float | None = None, count: int | None = None) -> Round:
        length = ["--count", str(count)] if count else ["--seconds", str(seconds)]
        done = subprocess.run(
            [sys.executable, _HERE / "clients.py", str(self.port), self.token, *length],
            input=self.body, capture_output=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stderr.decode())
        found = json.loads(done.stdout)
        return of_latencies(found["latencies"], found["seconds"])

    @property
    def memory(self) -> float:
        """The resident set in MiB."""
        return self._status("VmRSS")

    @property
    def peak_memory(self) -> float:
        """The largest resident set there was, or was since `forget_peak`, in MiB."""
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")  # proc_pid_clear_refs(5)

    def _status(self, name: str) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.findall(rf"{name}:\s+(\d+) kB", status)[0]) / 1024


def compare(database: Database, home: Path, rounds: int, seconds: float) -> None:
    """Print both services' rates, side by side."""
    body = _furnish(database, home)
    library_recorder(database.superuser_dsn)  # makes its table
    with psycopg.connect(database.superuser_dsn) as connection:
        connection.execute(_COPY)
    with ExitStack() as stack:
        services = {
            "library": stack.enter_context(running_service(database, home, body, library=True)),
            "ours": stack.enter_context(running_service(database, home, body)),
        }
        for each in services.values():
            each.requests(count=200)  # connections, prepared statements
        measures = {
            name: partial(each.requests, seconds=seconds) for name, each in services.items()
        }
        results = interleaved(measures, rounds)
    print(f"\nPOST /v1/grants, 16 connections, {rounds} rounds of {seconds:g} s")
    table(results)
    verdict("grants, x library", ratio(results["ours"], results["library"]), GOAL, GOAL)


def memory(database: Database, home: Path, requests: int) -> None:
    """Print the service's resident set as it answers so many requests."""
    body = _furnish(database, home)
    with running_service(database, home, body) as service:
        step = max(1, requests // 10)
        print(f"\nMemory of the service over {requests} times POST /v1/grants", flush=True)
        seen = [service.memory]
        print(f"  {0:>7} requests: {seen[0]:6.1f} MiB", flush=True)
        for number in range(1, 11):
            rate = service.requests(count=step).rate
            seen.append(service.memory)
            print(f"  {number * step:>7} requests: {seen[-1]:6.1f} MiB  {rate:6.0f}/s", flush=True)
    growth = seen[-1] / seen[5] - 1
    said = "flat" if growth < _FLAT else "GROWING"
    print(f"  the second half added {seen[-1] - seen[5]:+.1f} MiB ({growth:+.1%}): {said}")
    verdict("MiB", max(seen), MEMORY, MEMORY, most=True)


def _furnish(database: Database, home: Path) -> bytes:
    """A ledger with one active peer; the body that proposes a grant to it."""
    made = house(database, home)
    try:
        return json.dumps(made.proposal(made.peer()["id"])).encode()
    finally:
        made.close()


@contextmanager
def running_service(
    database: Database, home: Path, body: bytes, *, library: bool = False
) -> Iterator[Service]:
    process = subprocess.Popen(
        [sys.executable, _HERE / "service.py", home, database.service_dsn,
         *([database.superuser_dsn] if library else [])],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        said = process.stdout.readline() if process.stdout else ""
        port = re.search(r":(\d+)$", said.strip())
        if port is None:
            raise RuntimeError(f"the service did not start; it said {said!r}")
        yield Service(process.pid, int(port[1]), home / "admin.token", body)
    finally:
        process.terminate()
        process.wait(30)
