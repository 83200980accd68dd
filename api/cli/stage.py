"""A throw-away ledger for the demo: own home, own PostgreSQL, own service, gone afterwards.

It knows nothing of the story played on it. The service is the installed console script in a child
process that sees no FEDLEDGER_ variable of ours, so that no real home, database or profile can be
reached even by mistake.
"""

import fcntl
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from api.cli.exits import CommandError, Exit
from api.cli.interrupting import ENDING, terminated_like_interrupted
from api.cli.stage_ca import step_ca
from api.settings import without_real_ledger

_START_SECONDS: Final = 120.0  # a slow disk makes a database cluster in this, with much to spare
_STOP_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 0.05
_LONGEST_PARENT: Final = 60  # bytes: a socket's whole path must stay under 108
_LOG: Final = "service.log"
_READY: Final = re.compile(r"ready on (http://[0-9.]+:[0-9]+)\n")
ORIGIN: Final = "demo.fedledger.example"


@dataclass(frozen=True, slots=True)
class Ran:
    """How one command of the story ended."""

    exit: int
    document: Any
    errors: str


@dataclass(frozen=True, slots=True)
class Stage:
    """A ledger that is up. `home` holds everything; `url` answers until the stage is taken down."""

    home: Path
    url: str
    environment: dict[str, str]

    def run(self, *arguments: str, token: Path | None = None, json_out: bool = True) -> Ran:
        """Run the console script as somebody with that token, or as a stranger."""
        environment = dict(self.environment)
        if token is not None:
            environment["FEDLEDGER_TOKEN_FILE"] = str(token)
        ended = subprocess.run(  # noqa: S603 - our own program, no shell
            [console_script(), *arguments, *(["--json"] if json_out else [])],
            env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        document = None
        with suppress(ValueError):
            document = json.loads(ended.stdout)
        return Ran(ended.returncode, document, ended.stderr)


def console_script() -> str:
    """Return the path of the installed `fedledger`, the one beside this interpreter first.

    Raises:
        CommandError: it is not installed.
    """
    beside = Path(sys.executable).with_name("fedledger")
    found = str(beside) if beside.exists() else shutil.which("fedledger")
    if found is None:
        raise CommandError(Exit.UNREACHABLE, "the console script fedledger is not installed")
    return found


@contextmanager
def stage(keep: Path | None, step_ca_program: Path | None = None) -> Iterator[Stage]:
    """Bring up a ledger, and take everything down again whatever happens, Ctrl-C included.

    With `keep`, an empty or new directory, the state stays there; without, nothing stays. With
    `step_ca_program` it issues with a step-ca of its own, otherwise by itself.

    Raises:
        CommandError: the directory is in use, or the service does not come up.
    """
    with terminated_like_interrupted():
        home = _kept_home(keep) if keep else _temporary_home()
        service: subprocess.Popen[bytes] | None = None
        authority = ExitStack()
        try:
            begun: AbstractContextManager[Mapping[str, str]] = nullcontext({})
            if step_ca_program is not None:
                begun = step_ca(home, step_ca_program)
            environment = {
                **without_real_ledger(),
                **authority.enter_context(begun),
                "FEDLEDGER_HOME": str(home),
                "FEDLEDGER_PORT": "0",  # the system finds a free one, without a race
                "FEDLEDGER_ORIGIN": ORIGIN,
                "FEDLEDGER_PROFILE": str(home / "no-profile"),
                "HOME": str(home),
            }
            service = _start(home, environment)
            url = _wait_until_ready(service, home / _LOG)
            yield Stage(home, url, {**environment, "FEDLEDGER_URL": url})
        finally:
            with _undisturbed():
                _stop(service, home)
                authority.close()
                if keep is None:
                    _remove(home)


def _start(home: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    with (home / _LOG).open("ab") as log:
        # A session of its own: Ctrl-C reaches us alone, and we stop it in order.
        return subprocess.Popen(  # noqa: S603 - our own program, no shell
            [console_script(), "up"], env=environment, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, start_new_session=True, cwd="/",
        )  # fmt: skip


def _wait_until_ready(service: subprocess.Popen[bytes], log: Path) -> str:
    """Return the URL that the service says it is ready on."""
    if not _poll(lambda: _said_ready(log) or service.poll() is not None, _START_SECONDS):
        raise CommandError(
            Exit.UNREACHABLE, f"the service was not ready within {_START_SECONDS:.0f} s", _tail(log)
        )
    if url := _said_ready(log):
        return url
    raise CommandError(
        Exit.UNREACHABLE,
        f"the service ended with {service.returncode} instead of answering",
        _tail(log),
    )


def _said_ready(log: Path) -> str:
    found = _READY.search(log.read_text("utf-8", "replace"))
    return found[1] if found else ""


def _stop(service: subprocess.Popen[bytes] | None, home: Path) -> None:
    from migrations.embedded import Embedded

    if service is not None and service.poll() is None:
        service.terminate()
        _poll(lambda: _has_ended(service), _STOP_SECONDS)
        # Ended in the middle of its start it leaves what it was waiting for: initdb, or a watcher.
        # It is not reaped yet, so the group's number can be nobody else's.
        os.killpg(service.pid, signal.SIGKILL)
        service.wait()
    # Removing the data directory under a running server would leave it behind without a home.
    _poll(Embedded(home).stop, _STOP_SECONDS)
    _poll(lambda: _unwatched(home), _STOP_SECONDS)


def _has_ended(child: subprocess.Popen[bytes]) -> bool:
    """Whether it has ended; it is not reaped."""
    return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _remove(home: Path) -> None:
    """Remove it under another name: a watcher that comes late makes its lock where it looks for it,
    and finds no home there. Left in place, that lock alone would keep the folder from going."""
    gone = home.with_name(f"{home.name}.gone")
    home.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _unwatched(home: Path) -> bool:
    """Whether the watcher of the private PostgreSQL has ended: it holds its lock till then."""
    try:
        lock = os.open(home / "watch.lock", os.O_RDWR)
    except OSError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def _poll(done: Callable[[], object], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _kept_home(directory: Path) -> Path:
    home = directory.absolute()
    if home.exists() and any(home.iterdir()):
        raise CommandError(Exit.INVALID, f"{home} is not empty", "The demo makes its own ledger.")
    home.mkdir(parents=True, exist_ok=True)
    return home


def _temporary_home() -> Path:
    parents = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]  # noqa: S108 - made by mkdtemp
    usable = [p for p in parents if _usable(p)] or parents[:1]
    return Path(tempfile.mkdtemp(prefix="fedledger-demo-", dir=usable[0]))


def _usable(parent: Path) -> bool:
    """Whether a socket's path under it is short enough and the server's account can reach it."""
    if len(os.fsencode(parent)) > _LONGEST_PARENT or not os.access(parent, os.W_OK):
        return False
    if os.geteuid() != 0:
        return True
    return all(p.stat().st_mode & stat.S_IXOTH for p in (parent, *parent.parents))


def _tail(path: Path, lines: int = 15) -> str:
    with suppress(OSError):
        return "\n".join(path.read_text("utf-8", "replace").splitlines()[-lines:])
    return ""


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let a second Ctrl-C not cut the clearing up short; its own limits end it."""
    numbers = (signal.SIGINT, *ENDING)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
