"""`serve` as a real process: ready line, refusals, and an end that loses no request in flight."""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg
import pytest

from api import init
from api.settings import without_real_ledger
from projections.verify import check_ledger
from support.databases import Database
from support.http import ORIGIN, Clock
from support.waiting import wait_until

# The console script's `serve` and nothing else of it: what is tested is the server.
_SERVE = (
    "import sys\nfrom api import settings, wiring\n"
    "wiring.serve(settings.load(), lambda line: print(line, flush=True))\n"
)


def _environment(database: Database, home: Path, **more: str) -> dict[str, str]:
    return {
        **without_real_ledger(),
        "FEDLEDGER_DSN": database.service_dsn,
        "FEDLEDGER_HOME": str(home),
        "FEDLEDGER_PORT": "0",
        **more,
    }


def _start(database: Database, home: Path, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _SERVE], env=_environment(database, home, **more), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@contextmanager
def _serving(
    database: Database, home: Path, **more: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = _start(database, home, **more)
    try:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        if not line.startswith("fedledger ready on http://127.0.0.1:"):
            raise AssertionError(process.communicate())
        yield process, line.rsplit(" ", 1)[1]
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def home(database: Database, tmp_path: Path) -> Path:
    init.furnish(database.service_dsn, tmp_path, ORIGIN, Clock())
    return tmp_path


def test_threads_share_a_processor_unless_told_not_to(database: Database, home: Path) -> None:
    said = "threads share a processor while others leave one"
    for setting, expected in (("one", len(os.sched_getaffinity(0)) > 1), ("all", False)):
        with _serving(database, home, FEDLEDGER_PROCESSORS=setting) as (process, _):
            process.terminate()
            _, log = process.communicate(timeout=60)
        assert (said in log) is expected, log


def _token(home: Path, role: str = "admin") -> str:
    return (home / f"{role}.token").read_text().strip()


def test_a_request_in_flight_is_finished(database: Database, home: Path) -> None:
    with (
        _serving(database, home) as (process, url),
        psycopg.connect(database.superuser_dsn) as blocker,
        socket.create_connection(_address(url)) as request,
    ):
        assert httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
        blocker.execute("LOCK TABLE ledger_head IN ACCESS EXCLUSIVE MODE")
        body = json.dumps({"name": "In Flight", "base_url": "https://peer.example"})
        request.sendall(
            f"POST /v1/peers HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {_token(home)}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        _wait_until_blocked(database)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)  # the signal must find the request in flight, not the other way round
        assert process.poll() is None
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(_address(url)).close()
        blocker.rollback()
        request.settimeout(20)
        answer = b"".join(iter(lambda: request.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 201 "), answer
        assert b'"name":"In Flight"' in answer
        assert process.wait(60) == 0
    assert check_ledger(database.service_dsn).ok


def _address(url: str) -> tuple[str, int]:
    return "127.0.0.1", httpx.URL(url).port or 0


def _wait_until_blocked(database: Database) -> None:
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"
    deadline = time.monotonic() + 10
    with psycopg.connect(database.superuser_dsn, autocommit=True) as connection:
        while time.monotonic() < deadline:
            row = connection.execute(query, [database.name]).fetchone()
            if row and row[0]:
                return
            time.sleep(0.02)
    raise AssertionError("the request never came to the lock")


@dataclass
class Worker:
    """A client that registers peers until nobody answers any more, and remembers each outcome."""

    number: int
    acknowledged: dict[str, int] = field(default_factory=dict)  # name → position
    unanswered: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def run(self, url: str, token: str) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=url, headers=headers, timeout=30, trust_env=False) as client:
            for turn in itertools.count():
                name = f"Worker {self.number} turn {turn}"
                body = {"name": name, "base_url": "https://peer.example"}
                try:
                    answer = client.post("/v1/peers", json=body)
                    position = int(answer.headers["ledger-position"])
                    assert (answer.status_code, answer.json()["name"]) == (201, name)
                except httpx.RemoteProtocolError as error:
                    # Closed before a first byte came; with a part of an answer it says otherwise.
                    whole = "without sending a response" in str(error)
                    (self.unanswered if whole else self.broken).append(name)
                    return
                except (httpx.ConnectError, httpx.ReadError, httpx.WriteError):
                    self.unanswered.append(name)
                    return
                except Exception as error:  # noqa: BLE001 - whatever else it is, it is broken
                    self.broken.append(f"{name}: {error!r}")
                    return
                self.acknowledged[name] = position


def test_twenty_clients_in_full_flow_lose_nothing(database: Database, home: Path) -> None:
    """SIGTERM in the middle: every answer is whole, and what was answered is what is recorded."""
    workers = [Worker(number) for number in range(20)]
    quiet = {"FEDLEDGER_LOG_LEVEL": "error"}  # nobody reads the pipe its lines go to
    with _serving(database, home, **quiet) as (process, url), ThreadPoolExecutor(20) as pool:
        running = [pool.submit(worker.run, url, _token(home)) for worker in workers]
        wait_until(lambda: all(len(one.acknowledged) >= 5 for one in workers), "full flow")
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        for one in running:
            one.result(60)
        assert process.wait(60) == 0
        assert time.monotonic() - begun < 15
    assert [worker.broken for worker in workers if worker.broken] == []
    acknowledged = {
        name: position for worker in workers for name, position in worker.acknowledged.items()
    }
    with psycopg.connect(database.superuser_dsn) as connection:
        recorded = dict(
            connection.execute(
                "SELECT convert_from(body, 'UTF8')::jsonb -> 'data' ->> 'name', position "
                "FROM ledger_events WHERE topic = 'peer.registered.v1'"
            ).fetchall()
        )
    # Nothing acknowledged is missing; nothing is recorded whose caller was left without an answer.
    assert recorded == acknowledged
    assert len(acknowledged) >= 100
    assert check_ledger(database.service_dsn).ok


def test_an_idle_keepalive_connection_does_not_hold_up_the_end(
    database: Database, home: Path
) -> None:
    with (
        _serving(database, home) as (process, url),
        httpx.Client(base_url=url, trust_env=False) as client,
    ):
        assert client.get("/livez").status_code == 200
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert time.monotonic() - begun < 15  # the server gives such a connection 20 s


def test_a_killed_server_leaves_a_sound_ledger(database: Database, home: Path) -> None:
    with (
        _serving(database, home) as (process, url),
        httpx.Client(base_url=url, trust_env=False) as client,
    ):
        client.headers["Authorization"] = f"Bearer {_token(home)}"
        for number in range(5):
            body = {"name": f"Peer {number}", "base_url": "https://peer.example"}
            assert client.post("/v1/peers", json=body).status_code == 201
        process.kill()
        process.wait()
    report = check_ledger(database.service_dsn)
    assert report.ok, str(report)


def _refusal(database: Database, home: Path, **more: str) -> str:
    process = _start(database, home, **more)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    return errors


def test_serve_refuses_what_it_must_not_serve(
    database: Database, home: Path, tmp_path: Path
) -> None:
    for dsn in (database.owner_dsn, database.superuser_dsn):
        assert "superuser or owns" in _refusal(database, home, FEDLEDGER_DSN=dsn)
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    assert "run fedledger init" in _refusal(database, nowhere)
    assert "must be loopback" in _refusal(database, home, FEDLEDGER_HOST="0.0.0.0")


def test_serve_refuses_an_old_schema(empty_database: Database, home: Path) -> None:
    assert "run fedledger migrate" in _refusal(empty_database, home)


def test_no_secret_is_logged(database: Database, home: Path) -> None:
    with (
        _serving(database, home) as (process, url),
        httpx.Client(base_url=url, trust_env=False) as client,
    ):
        client.headers["Authorization"] = f"Bearer {_token(home)}"
        assert client.get("/v1/peers", params={"name": "query-sekrit"}).status_code == 200
        assert (
            client.get("/v1/peers", headers={"Authorization": "Bearer sekrit"}).status_code == 401
        )
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=120)
    assert _token(home) not in out + errors
    assert "sekrit" not in out + errors
    lines = [json.loads(line) for line in errors.splitlines()]
    assert [line["status"] for line in lines if line["event"] == "request"] == [200, 401]


@pytest.mark.parametrize(("trusted", "source"), [("true", "203.0.113.9"), ("false", "127.0.0.1")])
def test_a_forwarded_address_is_believed_behind_a_proxy_only(
    database: Database, home: Path, trusted: str, source: str
) -> None:
    with _serving(database, home, FEDLEDGER_BEHIND_PROXY=trusted) as (process, url):
        forged = {"X-Forwarded-For": "198.51.100.7, 203.0.113.9"}
        assert httpx.get(f"{url}/livez", headers=forged, trust_env=False).status_code == 200
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    lines = [json.loads(line) for line in errors.splitlines()]
    assert [line["source"] for line in lines if line["event"] == "request"] == [source]
