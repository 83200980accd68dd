"""kill -9 of anything, under load, loses nothing that was acknowledged.

A small client registers peers over HTTP from several threads and remembers every acknowledged
position. After each kill the next start must have all of them, and the record must be sound.
"""

import os
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from support.databases import Database
from support.installation import Installation, Service, installation
from support.waiting import wait_until

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

ROUNDS = 5
WRITERS = 4
ACKNOWLEDGED_BEFORE_KILL = 15


class Writers:
    """Threads that append until they are told to stop; what was acknowledged is remembered."""

    def __init__(self, place: Installation) -> None:
        self.acknowledged: dict[int, str] = {}  # position -> id of the peer registered there
        self.unknown: dict[str, str] = {}  # Idempotency-Key -> name, where no answer came
        self._place = place
        self._lock = threading.Lock()
        self._stop = threading.Event()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        self._stop.clear()
        threads = [threading.Thread(target=self._work) for _ in range(WRITERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def count(self) -> int:
        with self._lock:
            return len(self.acknowledged)

    def _work(self) -> None:
        with self._place.http(self._place.admin) as client:
            while not self._stop.is_set():
                if not self._register(client, str(uuid.uuid4()), f"peer-{uuid.uuid4()}"):
                    self._stop.wait(0.05)  # nobody answers just now

    def _register(self, client: httpx.Client, key: str, name: str) -> bool:
        try:
            answer = client.post(
                "/v1/peers",
                json={"name": name, "base_url": "https://peer.example"},
                headers={"Idempotency-Key": key},
            )
        except httpx.TransportError:
            with self._lock:
                self.unknown[key] = name
            return False
        if answer.status_code != 201:
            assert answer.status_code == 503, answer.text
            with self._lock:
                self.unknown[key] = name
            return False
        with self._lock:
            self.acknowledged[int(answer.headers["Ledger-Position"])] = answer.json()["id"]
        return True

    def ask_again(self) -> None:
        """Repeat every call whose outcome is unknown: the same key must give one truth."""
        waiting, self.unknown = self.unknown, {}
        with self._place.http(self._place.admin) as client:
            for key, name in waiting.items():
                assert self._register(client, key, name)


def postmaster(home: Path) -> int:
    """The server's process id, 0 while there is none."""
    try:
        return int((home / "data" / "postmaster.pid").read_text().split()[0])
    except (OSError, IndexError):
        return 0


def kill_service(place: Installation, service: Service) -> None:
    service.kill()


def kill_postgres(place: Installation, service: Service) -> None:
    kill_now(postmaster(place.home))


def kill_everything(place: Installation, service: Service) -> None:
    # Whoever would start the database again goes first.
    for pid in (service.process.pid, *using(place.home), postmaster(place.home)):
        kill_now(pid)
    service.process.wait(60)


def kill_now(pid: int) -> None:
    if pid:  # 0 would be ourselves
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def using(home: Path) -> list[int]:
    """Processes whose command line or working directory is in the home."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line = (process / "cmdline").read_bytes().decode(errors="replace")
            if str(home) in line or str(process.joinpath("cwd").readlink()).startswith(str(home)):
                found.append(int(process.name))
    return [pid for pid in found if pid != os.getpid()]


@pytest.mark.parametrize("kill", [kill_service, kill_postgres, kill_everything])
def test_every_acknowledged_event_survives(
    kill: Callable[[Installation, Service], None],
) -> None:
    with installation() as place:
        service = place.start()
        try:
            service.wait_until_ready()
            writers = Writers(place)
            for _ in range(ROUNDS):
                service = one_round(place, service, writers, kill)
        finally:
            service.kill()


def one_round(
    place: Installation,
    service: Service,
    writers: Writers,
    kill: Callable[[Installation, Service], None],
) -> Service:
    with writers.at_work():
        enough = writers.count() + ACKNOWLEDGED_BEFORE_KILL
        wait_until(lambda: writers.count() >= enough, "the writers are at work", 60)
        before = postmaster(place.home)
        kill(place, service)
        if service.process.poll() is None:
            # Only the database died: the service gets over it by itself, and goes on writing.
            wait_until(lambda: postmaster(place.home) not in {0, before}, "a new server", 60)
            enough = writers.count() + ACKNOWLEDGED_BEFORE_KILL
            wait_until(lambda: writers.count() >= enough, "the service writes again", 60)
    if service.process.poll() is not None:
        service = place.start()
        service.wait_until_ready()
    writers.ask_again()
    assert_all_there(place, writers.acknowledged)
    return service


def assert_all_there(place: Installation, acknowledged: dict[int, str]) -> None:
    found: dict[int, str] = {}
    cursor: dict[str, str] = {}
    with place.http(place.admin) as client:
        while True:
            page = client.get("/v1/events", params={"limit": "500", **cursor})
            assert page.status_code == 200, page.text
            found |= {event["position"]: event["stream"] for event in page.json()["items"]}
            if not page.json()["next"]:
                break
            cursor = {"cursor": page.json()["next"]}
    assert sorted(found) == [*range(1, len(found) + 1)]
    assert {position: found.get(position) for position in acknowledged} == acknowledged
    if acknowledged:
        last = max(acknowledged)
        past = (f"/v1/peers/{acknowledged[last]}", {"as_of_position": last})
        with place.http(place.admin) as client:
            # What is filled after the commit goes on where it was; doctor compares it below.
            wait_until(
                lambda: client.get(past[0], params=past[1]).status_code == 200,
                "the past is told",
                60,
            )
    checks = {c["id"]: c for c in place.run("doctor", "--json").document["checks"]}
    assert checks["integrity"]["status"] == "ok", checks["integrity"]
    assert checks["history"]["status"] == "ok", checks["history"]


@pytest.mark.parametrize("where", ["private", "named"])
def test_six_ups_at_once_on_an_empty_database_all_come_up(
    where: str, empty_database: Database
) -> None:
    """The private server, which the first of them makes, or one that FEDLEDGER_DSN names."""
    with installation() as first:
        if where == "named":
            first.extra["FEDLEDGER_DSN"] = empty_database.service_dsn
            first.extra["FEDLEDGER_OWNER_DSN"] = empty_database.owner_dsn
        places = [first, *(first.neighbour() for _ in range(5))]
        services = [place.start() for place in places]
        try:
            for service in services:
                service.wait_until_ready()
            tokens = {place.admin.read_text() for place in places}
            assert len(tokens) == 1
            for number, place in enumerate(places):
                body = {"name": f"peer {number}", "base_url": "https://peer.example"}
                with place.http(place.admin) as client:
                    assert client.post("/v1/peers", json=body).status_code == 201
            seen = first.ok("audit", "list", "--all", "--url", first.url)["items"]
            topics = [event["topic"] for event in seen]
            assert topics.count("ledger.created.v1") == 1
            assert topics.count("authority.adopted.v1") == 1
            assert topics.count("operator.registered.v1") == 2
            assert topics.count("peer.registered.v1") == 6
            assert_all_there(first, {})
        finally:
            for service in services:
                service.terminate()
