"""The console script without its second of imports: a process of its own, forked from one that has
imported the product.

What runs is a real process from the fork on: arguments, environment, folder, files, signals, exit
code, and all that it does. What it does not go through is the script's import of the product: that
`fedledger` is found, starts and imports what it needs is the business of whatever runs the script
itself (the shell blocks of the documentation, the demo, the wheel, tests/unit/test_cli_help.py).

Each pytest process has one parent of its own for them, started when it is first needed.
"""

import atexit
import gc
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path

_LONGEST = 1 << 20  # bytes of an errand: an environment, arguments

# ---- the side of the tests ------------------------------------------------------------------


class Forked:
    """A command under way, with as much of `subprocess.Popen` as tests use."""

    def __init__(self, said: socket.socket) -> None:
        self._said = said
        self.returncode: int | None = None
        self.pid = int(self._next())

    def _next(self) -> str:
        text = self._said.recv(100).decode()
        assert text, "the process that forks has ended"
        return text

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Wait so many seconds for its end; return the exit code."""
        if self.returncode is None:
            # Never 0: that would be a socket that does not block.
            self._said.settimeout(max(timeout, 0.0001))
            try:
                self.returncode = os.waitstatus_to_exitcode(int(self._next()))
            except TimeoutError:
                raise subprocess.TimeoutExpired(str(self.pid), timeout) from None
            self._said.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it is known to have ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def fork(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    folder: Path | str,
    files: Sequence[int],
    session: bool = False,
) -> Forked:
    """Run `fedledger` with these arguments in a process of its own.

    `files`: the descriptors of its stdin, stdout and stderr. `session`: it leads one of its own.
    """
    return _parent()(arguments, environment, folder, files, session)


@cache
def _parent() -> Callable[..., Forked]:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, its):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LONGEST)
    process = subprocess.Popen(
        [sys.executable, "-P", __file__, str(its.fileno())],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[its.fileno()],
    )  # fmt: skip
    its.close()
    turn = threading.Lock()

    @atexit.register
    def end() -> None:
        ours.close()
        process.wait(60)

    def send(
        arguments: Sequence[str],
        environment: Mapping[str, str],
        folder: Path | str,
        files: Sequence[int],
        session: bool,
    ) -> Forked:
        errand = json.dumps([list(arguments), dict(environment), str(folder), session]).encode()
        hear, say = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with say, turn:
            socket.send_fds(ours, [errand], [*files, say.fileno()])
        return Forked(hear)

    return send


# ---- the side that forks ---------------------------------------------------------------------


def main(errands: socket.socket) -> None:
    """Fork for every errand; what returns is a process that has become the command."""
    _import_the_product()
    while True:
        text, files, _, _ = socket.recv_fds(errands, _LONGEST, 4)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not text:
            sys.exit()  # whoever had errands has gone
        if os.fork() == 0:
            errands.close()
            *standard, say = files
            _fork_and_tell(socket.socket(fileno=say), standard)
            return _become(standard, *json.loads(text))
        for file in files:
            os.close(file)


def _import_the_product() -> None:
    """All of it, also what a command imports when it needs it."""
    import api

    for module in pkgutil.walk_packages(api.__path__, "api."):
        import_module(module.name)
    for name in ("rich.console", "rich.progress", "rich.table"):
        import_module(name)
    # A collection in a fork would write to every page of this, and so copy it; so would the end.
    gc.collect()
    gc.freeze()


def _fork_and_tell(listener: socket.socket, standard: Sequence[int]) -> None:
    """Returns in a fork only; what stays tells of its process id and, when it has ended, its status."""
    command = os.fork()
    if command:
        for file in standard:
            os.close(file)
        listener.send(str(command).encode())
        _, status = os.waitpid(command, 0)
        with suppress(OSError):  # nobody listens any more
            listener.send(str(status).encode())
        os._exit(0)
    listener.close()


def _become(
    standard: Sequence[int],
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: str,
    session: bool,
) -> None:
    if session:
        os.setsid()
    for number, file in enumerate(standard):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()  # noqa: TID251 -- the command is told its own
    os.environ.update(environment)  # noqa: TID251 -- the same
    time.tzset()
    sys.argv = ["fedledger", *arguments]


if __name__ == "__main__":
    from api import cli

    main(socket.socket(fileno=int(sys.argv[1])))
    cli.main()
