"""An installed fedledger on a home of its own, used as people use it: console script and HTTP."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from api.settings import without_real_ledger
from migrations.embedded import Embedded
from projections.verify import check_ledger
from support import folders
from support.databases import bindir
from support.waiting import wait_until

FEDLEDGER = Path(sys.executable).with_name("fedledger")
_START_SECONDS = 90.0


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)


@dataclass
class Service:
    """A running `fedledger up` or `serve`."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def ready(self) -> bool:
        """Whether it serves; a service that ended instead fails the test with its log."""
        assert self.process.poll() is None, self.log.read_text(errors="replace")[-4000:]
        return answers(self.url)

    def wait_until_ready(self) -> None:
        wait_until(self.ready, f"{self.url} is ready", _START_SECONDS)

    def terminate(self) -> int:
        """Stop it in order and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(60)


@dataclass
class Installation:
    """A home, and the environment in which every command of this installation runs."""

    home: Path
    port: int = 0
    extra: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.port = self.port or free_port()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin(self) -> Path:
        return self.home / "admin.token"

    @property
    def approver(self) -> Path:
        return self.home / "approver.token"

    @property
    def environment(self) -> dict[str, str]:
        return {
            **without_real_ledger(),
            "FEDLEDGER_HOME": str(self.home),
            "FEDLEDGER_PORT": str(self.port),
            "FEDLEDGER_ORIGIN": "test.fedledger.example",
            "FEDLEDGER_PROFILE": str(self.home / "profile.toml"),
            "TZ": "UTC",
            **self.extra,
        }

    def run(self, *arguments: str, stdin: str = "", **environment: str) -> Ended:
        """Run one command to its end."""
        done = subprocess.run(
            [FEDLEDGER, *arguments], input=stdin, capture_output=True, text=True, check=False,
            env={**self.environment, **environment}, timeout=120,
        )  # fmt: skip
        return Ended(done.returncode, done.stdout, done.stderr)

    def ok(self, *arguments: str, stdin: str = "", **environment: str) -> Any:
        """Run one command with --json, which must succeed, and return its document."""
        ended = self.run(*arguments, "--json", stdin=stdin, **environment)
        assert ended.code == 0, ended
        return ended.document

    def start(self, command: str = "up", **environment: str) -> Service:
        """Start a service, without waiting for it."""
        self.home.mkdir(exist_ok=True)
        log = self.home / f"{command}-{self.port}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [FEDLEDGER, command], env={**self.environment, **environment}, cwd="/",
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        return Service(process, self.url, log)

    def http(self, token: Path | None) -> httpx.Client:
        """A plain HTTP client with the token in that file."""
        headers = {"Authorization": f"Bearer {token.read_text().strip()}"} if token else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False)

    def neighbour(self) -> "Installation":
        """Another service on the same home, with a port of its own."""
        return Installation(self.home, extra=self.extra)


def answers(url: str) -> bool:
    try:
        # Whom to believe would be read from a long file at every question; nobody is asked over TLS.
        answer = httpx.get(f"{url}/readyz", timeout=5, trust_env=False, verify=False)
        return answer.status_code == 200
    except httpx.TransportError:
        return False


def free_port() -> int:
    """A port that is free now, and that the system gives to nobody who asks for any port.

    Those it gives out begin at 32768 (ip_local_port_range): one of them may be another's by the
    time the service comes to bind it, and again after each of its restarts.
    """
    for port in random.sample(range(10_000, 32_000), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("of 100 ports not one is free")


@contextmanager
def installation() -> Iterator[Installation]:
    """An installation that does not exist yet; whatever runs on its home is gone afterwards.

    At the end of a test that went well the ledger in its private database is checked.
    """
    home = folders.make("fedledger-acceptance-")
    try:
        yield Installation(home)
        assert_sound(home)
    finally:
        wait_until(Embedded(home).stop, f"nobody uses {home}", 60)
        shutil.rmtree(home, ignore_errors=True)


def assert_sound(home: Path) -> None:
    """Check the whole ledger in a home's private database, if one was made there."""
    if (home / "data" / "PG_VERSION").exists():
        with Embedded(home, bindir=bindir()) as postgres:
            report = check_ledger(postgres.service_dsn)
        assert report.ok, str(report)


@contextmanager
def running(place: Installation, command: str = "up") -> Iterator[Service]:
    """A service that is ready, stopped afterwards."""
    service = place.start(command)
    try:
        service.wait_until_ready()
        yield service
    finally:
        with suppress(ProcessLookupError):
            os.killpg(service.process.pid, signal.SIGTERM)
        service.process.wait(60)
