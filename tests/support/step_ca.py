"""A real step-ca on a loopback port: started, killed, held up and started again by its process id.

The program is the one that tests/step_ca/build.sh builds; without it every test that needs it
fails and says so. What the server is made of (keys, configuration, template) is `ca.json`'s.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

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
    """A server on the files in `home`. `log`: what it wrote, one JSON object per line."""

    config: Path
    password_file: Path
    log: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

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


@contextmanager
def running(config: Path, password_file: Path) -> Iterator[StepCa]:
    """The server of a `ca.json`, whose address is set to a free loopback port; ended afterwards."""
    port = free_port()
    document = json.loads(config.read_text())
    config.write_text(json.dumps({**document, "address": f"127.0.0.1:{port}"}))
    server = StepCa(config, password_file, config.parent / "step-ca.log", port)
    try:
        server.start()
        yield server
    finally:
        server.kill()
