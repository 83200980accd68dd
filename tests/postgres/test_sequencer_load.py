"""16 threads in 2 processes on one ledger: no gap, no duplicate, every conflict told truly."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg
import pytest

from projections.verify import check_ledger
from support.appending import register, store_on
from support.databases import Database

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 10


def test_two_processes_of_eight_threads(database: Database) -> None:
    store = store_on(database.service_dsn)
    peers = [register(store).value.id for _ in range(8)]
    told = run_processes(database, ",".join(map(str, peers)), processes=2, threads=8)

    assert Counter(one["kind"] for one in told)["unexpected"] == 0
    won = [one for one in told if "position" in one]
    lost = [one for one in told if one.get("lost")]
    assert len(won) > 100
    assert lost, "nothing was contended: the test shows nothing"

    report = check_ledger(database.owner_dsn)
    assert report.ok, str(report)
    head = store.record.head()
    assert (report.size, report.root) == (head.size, head.root)
    assert report.size == len(peers) + len(won)
    store.close()
    assert_each_was_told_truly(database, won, lost)


def run_processes(
    database: Database, peers: str, *, processes: int, threads: int
) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "support.load", database.service_dsn, peers]
    command += [str(SECONDS), str(threads)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    running = [
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": path},
        )
        for _ in range(processes)
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    told: list[dict[str, Any]] = []
    for process in running:
        out, _ = process.communicate(timeout=SECONDS + 60)
        assert process.returncode == 0
        told += json.loads(out)
    return told


def assert_each_was_told_truly(
    database: Database, won: list[dict[str, Any]], lost: list[dict[str, Any]]
) -> None:
    with psycopg.connect(database.owner_dsn) as connection:
        events = {
            position: (str(stream), version, body_id)
            for position, stream, version, body_id in connection.execute(
                "SELECT position, stream_id, version,"
                " convert_from(body, 'UTF8')::jsonb ->> 'id' FROM ledger_events"
            )
        }
        claims = {
            (key, str(stream))
            for key, stream in connection.execute("SELECT key, stream_id FROM ledger_claims")
        }
    assert len({one["position"] for one in won}) == len(won)
    for one in won:
        assert events[one["position"]][2] == one["event"]
    versions = {(stream, version) for stream, version, _ in events.values()}
    for one in lost:
        if one["kind"] == "claim":
            assert (one["key"], one["to"]) in claims
        else:  # the version it wanted, or had read the one before, is somebody else's
            assert (one["stream"], one["version"]) in versions
