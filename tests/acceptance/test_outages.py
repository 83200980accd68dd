"""The database dies, or its disk is full: what answers meanwhile, and that nobody has to restart."""

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import httpx
import pytest

from migrations.embedded import Embedded
from projections.verify import check_ledger
from support.databases import bindir
from support.installation import Installation, Service, installation, running
from support.waiting import wait_until

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

_numbers = count(1)
OUTAGE_SECONDS = 8.0  # longer than any wait for a connection
FULL_DISK_MEBI = 320


def register(client: httpx.Client) -> httpx.Response:
    body = {"name": f"Peer {next(_numbers)}", "base_url": "https://peer.example"}
    return client.post("/v1/peers", json=body)


def is_unavailable(answer: httpx.Response, *codes: str) -> bool:
    """Whether it is a whole problem document that says to come again."""
    if answer.status_code != 503:
        return False
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["code"] in codes, answer.text
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    return True


# ---- killed ---------------------------------------------------------------------------------


def test_a_killed_database_comes_back_without_a_restart_of_ours() -> None:
    with installation() as place, running(place) as service, place.http(place.admin) as client:
        acknowledged = [register(client).json()["name"] for _ in range(3)]
        kill_database(place)
        _while_it_is_away(place, client)
        with Embedded(place.home, bindir=bindir()) as postgres:
            wait_until(lambda: register(client).status_code == 201, "writes work again")
            wait_until(lambda: client.get("/v1/peers").status_code == 200, "reads work again")
            assert client.get("/readyz").status_code == 200
            assert {client.get("/v1/peers").status_code for _ in range(20)} == {200}
            listed = [one["name"] for one in client.get("/v1/peers").json()["items"]]
            assert set(acknowledged) <= set(listed)
            assert service.process.poll() is None  # it is the same process all along
            report = check_ledger(postgres.service_dsn)
            assert report.ok, str(report)
        assert "Traceback" not in _outside_of_failures(service)


def test_a_service_without_its_database_still_ends_in_order() -> None:
    with installation() as place:
        service = place.start()
        service.wait_until_ready()
        kill_database(place)
        with place.http(place.admin) as client:
            assert is_unavailable(client.get("/v1/peers"), "storage-unavailable")
        assert service.terminate() == 0


def _while_it_is_away(place: Installation, client: httpx.Client) -> None:
    codes = ("storage-unavailable", "commit-outcome-unknown")
    begun = time.monotonic()
    while time.monotonic() - begun < OUTAGE_SECONDS:
        assert is_unavailable(client.get("/v1/peers"), *codes)
        assert is_unavailable(register(client), *codes)
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["reason"]) == (503, "storage-unavailable")
    # More callers than threads: who needs no database must not wait behind them for long.
    with ThreadPoolExecutor(40) as pool, place.http(None) as other:
        waiting = [pool.submit(client.get, "/v1/peers") for _ in range(40)]
        asked = time.monotonic()
        assert other.get("/livez").status_code == 200
        # Three turns of half a second each for the callers before it; 15 s if each waited its fill.
        assert time.monotonic() - asked < 10
        assert all(is_unavailable(one.result(), *codes) for one in waiting)


def kill_database(place: Installation) -> None:
    """kill -9 of the server, and of the watcher before it, which would revive it at once."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"migrations.watcher" in words and os.fsencode(place.home) in words:
                os.kill(int(process.name), signal.SIGKILL)
    server = int((place.home / "data" / "postmaster.pid").read_text().split("\n")[0])
    os.kill(server, signal.SIGKILL)
    wait_until(lambda: _is_gone(server), "the server is gone")


def _is_gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def _outside_of_failures(service: Service) -> str:
    """The log without the lines that carry the traceback of a failed request, which belong there."""
    lines = service.log.read_text().splitlines()
    return "\n".join(line for line in lines if '"event": "failed"' not in line)


# ---- full -----------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Installation]:
    """An installation whose home is a small file system of its own; only root can mount one."""
    if os.geteuid() != 0:
        _not_here("a full disk needs a file system of its own, and only root can mount one")
    with installation() as place, _mounted(place.home):
        place.home.chmod(0o711)
        yield place


def _not_here(reason: str) -> None:
    if os.environ.get("CI") == "true":  # noqa: TID251 -- said by the machine, no setting of ours
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def _mounted(place: Path) -> Iterator[None]:
    size = f"size={FULL_DISK_MEBI}m"
    mount = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        _not_here(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        wait_until(Embedded(place).stop, f"nobody uses {place}", 60)
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_refuses_writes_keeps_reads_and_is_over_when_there_is_space(
    small_disk: Installation,
) -> None:
    place = small_disk
    with running(place) as service, place.http(place.admin) as client:
        before = [register(client) for _ in range(5)]
        assert {answer.status_code for answer in before} == {201}
        filler = place.home / "filler"
        fill(filler)
        acknowledged = 5 + _write_until_refused(client)
        for _ in range(20):
            assert client.get("/v1/peers").status_code == 200
            assert client.get("/readyz").status_code == 200
        doctor = place.run("doctor", "--json")
        assert doctor.code == 2
        found = {one["id"]: one for one in doctor.document["checks"]}
        assert found["disk"]["status"] == "fail"
        assert "Make room" in found["disk"]["hint"]

        filler.unlink()
        wait_until(lambda: register(client).status_code == 201, "writes work again", 30)
        assert {register(client).status_code for _ in range(20)} == {201}
        assert service.process.poll() is None
        with Embedded(place.home, bindir=bindir()) as postgres:
            report = check_ledger(postgres.service_dsn)
        assert report.ok, str(report)
        recorded = client.get("/v1/events", params={"topic": "peer.registered.v1", "limit": 1})
        assert recorded.status_code == 200
        assert _peers(client) == acknowledged + 21


def fill(filler: Path) -> None:
    """Take every byte there is."""
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1024 * 1024))
    with suppress(OSError), filler.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(512))


def _write_until_refused(client: httpx.Client) -> int:
    """Write on: what still fits into pages that are there succeeds, then all are refused clearly.

    Returns how many were acknowledged.
    """
    seen: Counter[int] = Counter()
    refused_in_a_row = 0
    while refused_in_a_row < 10:
        answer = register(client)
        seen[answer.status_code] += 1
        if answer.status_code == 201:
            refused_in_a_row = 0
        else:
            assert is_unavailable(answer, "storage-full"), answer.text
            refused_in_a_row += 1
        assert seen.total() < 5000, "the disk never became full"
    return seen[201]


def _peers(client: httpx.Client) -> int:
    found, url = 0, "/v1/peers?limit=100"
    while url:
        answer = client.get(url)
        found += len(answer.json()["items"])
        following = answer.links.get("next", {}).get("url")
        url = following or ""
    return found
