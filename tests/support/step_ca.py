"""A real step-ca on a loopback port: started, killed, held up and started again by its process id.

The program is the one that tests/step_ca/build.sh builds; without it every test that needs it
fails and says so. The server's files are made as `fedledger ca init-step-ca` makes them.
"""

import json
import os
import signal
import subprocess
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509

from ca.step_ca import StepCaAuthority
from ca.step_ca_config import PROVISIONER
from ca.step_ca_home import StepCaHome
from ca.step_ca_setup import Wish, set_up
from support.installation import free_port
from support.waiting import wait_until

BUILD = Path(__file__).parents[1] / "step_ca" / "build.sh"
_START_SECONDS = 30.0


def program() -> Path:
    """The built binary; a failure that says how to build it, if there is none."""
    found = subprocess.run([BUILD, "--path"], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return Path(found.stdout.strip())


@dataclass
class StepCa:
    """A server on its files. `log`: what it wrote, one JSON object per line."""

    config: Path
    password_file: Path
    log: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def directory(self) -> Path:
        return self.config.parents[1]

    def configure(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Alter its ca.json, for the next start."""
        document = json.loads(self.config.read_text())
        change(document)
        self.config.write_text(json.dumps(document))

    def connection(self, into: Path, *, url: str | None = None) -> StepCaHome:
        """Make in `into` what a ledger keeps of it."""
        given = self.directory / "for-ledger"
        return StepCaHome.make(
            into,
            url=url or self.url,
            provisioner=PROVISIONER,
            root=_certificate(self.directory / "certs" / "root_ca.crt"),
            issuing=_certificate(self.directory / "certs" / "intermediate_ca.crt"),
            encrypted_key=(given / "provisioner.jwe").read_text().strip(),
            password=(given / "provisioner.password").read_bytes().strip(),
        )

    def authority(self, into: Path, *, url: str | None = None) -> StepCaAuthority:
        """The adapter to it, on a directory made in `into`."""
        self.connection(into, url=url)
        return StepCaAuthority.open(into)

    def issued(self) -> list[bytes]:
        """Every certificate it signed since its log began, delivered or not, in DER."""
        return [b64decode(str(one["certificate"])) for one in self.lines() if "certificate" in one]

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers; one that ends instead fails with its log."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [program(), self.config, "--password-file", self.password_file],
                env={"HOME": str(self.log.parent), "TZ": "UTC"}, stdin=subprocess.DEVNULL,
                stdout=output, stderr=output,
            )  # fmt: skip
        wait_until(self._answers, f"step-ca on port {self.port} answers", _START_SECONDS)

    def stop(self) -> None:
        """End it in order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    @contextmanager
    def held_up(self) -> Iterator[None]:
        """It accepts connections, since the kernel does, and answers none until the end."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.process.pid, signal.SIGCONT)

    def lines(self) -> list[dict[str, object]]:
        """Its log, as far as it is JSON."""
        text = self.log.read_text(errors="replace")
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def _end(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(30)
            self.process = None

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text(errors="replace")[-4000:]
        try:
            # Whether it is there is all that is asked; who it is, the adapter checks.
            return httpx.get(f"{self.url}/health", verify=False, trust_env=False).is_success
        except httpx.TransportError:
            return False


def with_template(alter: Callable[[str], str]) -> Callable[[dict[str, Any]], None]:
    """A change of ca.json that alters the template of our provisioner."""

    def change(document: dict[str, Any]) -> None:
        (provisioner,) = document["authority"]["provisioners"]
        options = provisioner["options"]["x509"]
        before = options["template"]
        options["template"] = alter(before)
        assert options["template"] != before

    return change


def _certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


@contextmanager
def running(config: Path, password_file: Path) -> Iterator[StepCa]:
    """The server of a `ca.json`, whose address is set to a free loopback port; ended afterwards."""
    port = free_port()
    server = StepCa(config, password_file, config.parent / "step-ca.log", port)
    server.configure(lambda document: document.update(address=f"127.0.0.1:{port}"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@contextmanager
def step_ca(
    folder: Path, change: Callable[[dict[str, Any]], object] = lambda _: None
) -> Iterator[StepCa]:
    """A server set up in `folder` for the occasion; `change` alters its ca.json before it starts."""
    now = datetime.now(UTC)  # noqa: TID251 - the server has its own clock
    made = set_up(folder / "step-ca", Wish(name="Test"), now)
    document = json.loads(made.config.read_text())
    change(document)
    made.config.write_text(json.dumps(document))
    with running(made.config, folder / "step-ca" / "secrets" / "password") as server:
        yield server
