"""A step-ca for the demo: set up in the demo's home, started on loopback, ended with it.

The server is a program of this machine; this file says where it looks for one and how to get one.
"""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from api.cli.exits import CommandError, Exit
from api.settings import user_cache, without_real_ledger

FOLDER: Final = "step-ca"
"""Of the server, in the demo's home."""

_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 0.05
_HINT: Final = (
    "In a checkout on Debian 12, `tests/step_ca/build.sh` builds one in a minute (as root, once); "
    "else install step-ca so that it is in PATH, or name it with --step-ca-program."
)


def find_program(named: Path | None) -> Path:
    """Return the step-ca to run: the one named, one in PATH, or one that the tests' script built.

    Raises:
        CommandError: there is none; it says how to get one.
    """
    if named is not None:
        if not named.is_file():
            raise CommandError(Exit.INVALID, "There is no such step-ca", str(named), _HINT)
        return named.absolute()
    installed = shutil.which("step-ca")
    built = sorted(
        (user_cache() / "fedledger" / "step-ca").glob("*/step-ca"),
        key=lambda path: path.stat().st_mtime,
    )
    if installed:
        return Path(installed)
    if built:
        return built[-1]
    raise CommandError(Exit.UNREACHABLE, "There is no step-ca on this machine", hint=_HINT)


@contextmanager
def step_ca(home: Path, program: Path) -> Iterator[Mapping[str, str]]:
    """Set a step-ca up in `home`, run it, and yield the settings of a ledger that uses it.

    Raises:
        CommandError: it does not come up.
    """
    from api.wiring import system_clock
    from ca.step_ca_setup import Wish, set_up

    port = _free_port()
    made = set_up(home / FOLDER, Wish(address=f"127.0.0.1:{port}"), system_clock())
    url, log = f"https://localhost:{port}", home / "step-ca.log"
    password = home / FOLDER / "secrets" / "password"
    with log.open("ab") as output:
        # A session of its own: Ctrl-C reaches us alone, and we stop it in order.
        server = subprocess.Popen(  # noqa: S603 - the program that was named or found, no shell
            [program, made.config, "--password-file", password],
            env={**without_real_ledger(), "HOME": str(home)}, stdin=subprocess.DEVNULL,
            stdout=output, stderr=output, start_new_session=True, cwd="/",
        )  # fmt: skip
    try:
        _wait_until_it_answers(server, url, made.fingerprint, log)
        yield {
            "FEDLEDGER_CA": "step-ca",
            "FEDLEDGER_CA_URL": url,
            "FEDLEDGER_CA_FILES": str(made.for_ledger),
        }
    finally:
        server.terminate()
        try:
            server.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait_until_it_answers(
    server: subprocess.Popen[bytes], url: str, fingerprint: str, log: Path
) -> None:
    from ca.authority import AuthorityUnavailable
    from ca.step_ca_client import fetch_root

    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            fetch_root(url, fingerprint, timeout=5)
        except AuthorityUnavailable:
            pass
        else:
            return
        if server.poll() is not None or time.monotonic() > deadline:
            said = "\n".join(log.read_text("utf-8", "replace").splitlines()[-15:])
            raise CommandError(Exit.UNREACHABLE, "step-ca does not answer", said)
        time.sleep(_POLL_SECONDS)


def _free_port() -> int:
    # It is free now; step-ca itself cannot be told to choose one.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
