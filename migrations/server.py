"""One PostgreSQL server on one data directory: make it, start it, look at it, stop it.

It does not decide when: `embedded.py` and `watcher.py` do, holding the locks. Standard library
only, so that the watcher stays small.
"""

import contextlib
import os
import shutil
import signal
import socket
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from migrations.binaries import (
    Account,
    EmbeddedError,
    find_binaries,
    reachable_binaries,
    server_account,
    version_of,
)
from migrations.memory import shared_buffers

PORT = 5432  # only a part of the socket's name: nothing listens on a network
SUPERUSER = "postgres"

_LONGEST_SOCKET = 107  # bytes: sun_path of unix(7) less its NUL
_START_SECONDS = 120  # crash recovery of a large database takes its time
_ORPHAN_SECONDS = 15  # for the last processes of a killed server to notice
_STOP_SECONDS = 60

_CONFIGURATION = """# Written at every start; put changes of your own below the include in postgresql.conf.
listen_addresses = ''
port = {port}
unix_socket_directories = '"{sockets}"'
unix_socket_permissions = 0700
timezone = 'UTC'
log_timezone = 'UTC'
logging_collector = on
log_directory = '{log}'
log_filename = 'postgresql-%u.log'
log_rotation_age = 1d
log_rotation_size = 0
log_truncate_on_rotation = on
"""
_DURABLE = """fsync = on
full_page_writes = on
synchronous_commit = on
shared_buffers = {buffers}MB
"""
# For tests: many databases, short lives, nothing worth keeping.
_NOT_DURABLE = """fsync = off
full_page_writes = off
synchronous_commit = off
max_connections = 200
"""


@dataclass(eq=False)
class Server:
    """The server under `home`; nothing is looked up or touched until a method needs it."""

    home: Path
    bindir: Path | None = None
    durable: bool = True

    def __post_init__(self) -> None:
        self.data = self.home / "data"
        self.sockets = self.home / "run"
        self.log = self.home / "log"
        self.socket = self.sockets / f".s.PGSQL.{PORT}"
        self._pid_file = self.data / "postmaster.pid"

    @cached_property
    def account(self) -> Account:
        return server_account()

    @cached_property
    def tools(self) -> Path:
        """The programs, in a place the account can reach."""
        found = find_binaries(self.bindir)
        return reachable_binaries(found, self.account, self.home / "pgsql")

    # ------------------------------------------------------------ make

    def check_path(self) -> None:
        """Raise EmbeddedError if `home` can never hold a server."""
        if any(character in ',"$`\\' or character < " " for character in str(self.home)):
            # libpq splits a host at commas; pg_ctl hands the path to a shell.
            raise EmbeddedError(
                f'{str(self.home)!r}: choose a folder without , " $ ` \\ in its path'
            )
        excess = len(os.fsencode(self.socket)) - _LONGEST_SOCKET
        if excess > 0:
            raise EmbeddedError(
                f"{self.home} is {excess} bytes too long: a socket's path must fit into "
                f"{_LONGEST_SOCKET}; choose a shorter FEDLEDGER_HOME"
            )

    def exists(self) -> bool:
        return (self.data / "PG_VERSION").exists()

    def prepare(self) -> None:
        """Folders and settings for a start, and a look whether data and programs fit."""
        if self.account.dropped:
            self._check_reachable()
        for folder in (self.sockets, self.log):
            self._make_folder(folder)
        if self.exists():
            self._check_version()
            self._configure(self.data)

    def make(self, password: str) -> None:
        """A new cluster, whole or not at all; its superuser has this password."""
        unfinished = self.home / "data.new"
        shutil.rmtree(unfinished, ignore_errors=True)  # an earlier one was cut short
        self._make_folder(unfinished)
        password_file = self.home / "initdb.password"
        try:
            write_private(password_file, password + "\n", self.account)
            self.account.run(
                self.tools / "initdb",
                f"--pgdata={unfinished}",
                f"--username={SUPERUSER}",
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                *self._version_options(),
                *([] if self.durable else ["--no-sync"]),
            )
        finally:
            password_file.unlink(missing_ok=True)
        with (unfinished / "postgresql.conf").open("a") as settings:
            settings.write("\ninclude 'fedledger.conf'\n")
        self._configure(unfinished)
        unfinished.rename(self.data)
        sync_folder(self.home)

    def _version_options(self) -> list[str]:
        """The same sort order everywhere and for ever, and checksums, in each version's words."""
        major = int(version_of(self.tools, self.account).split(".")[0])
        locale = ["--locale=C"]
        if major >= 17:
            locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        return locale if major >= 18 else [*locale, "--data-checksums"]

    def _check_version(self) -> None:
        data = (self.data / "PG_VERSION").read_text().strip()
        programs = version_of(self.tools, self.account)
        if programs.split(".")[0] != data:
            raise EmbeddedError(
                f"{self.data} was made by PostgreSQL {data}, the programs in {self.tools} are "
                f"{programs}: let FEDLEDGER_PG_BINDIR name programs of version {data} (such as "
                f"/usr/lib/postgresql/{data}/bin); to change versions dump with the old ones and "
                "restore into a new FEDLEDGER_HOME"
            )

    def _check_reachable(self) -> None:
        try:
            self.account.run("/usr/bin/test", "-x", self.home)
        except EmbeddedError:
            raise EmbeddedError(
                f"{self.home} is inside a folder that the server's account may not enter: choose "
                "another FEDLEDGER_HOME, such as /var/lib/fedledger"
            ) from None

    def _make_folder(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        folder.chmod(0o700)
        self.account.own(folder)

    def _configure(self, data: Path) -> None:
        text = _CONFIGURATION.format(
            port=PORT, sockets=_quoted(self.sockets), log=_quoted(self.log)
        )
        text += _DURABLE.format(buffers=shared_buffers()) if self.durable else _NOT_DURABLE
        write_private(data / "fedledger.conf", text, self.account)

    # ------------------------------------------------------------ look

    def is_up(self) -> bool:
        """True if the server takes connections (postmaster.pid's 8th line says "ready")."""
        lines = self._pid_lines()
        return len(lines) > 7 and lines[7].strip() == "ready" and self._listens()

    def _listens(self) -> bool:
        """Works across containers that share `home`, where process ids mean nothing."""
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket))
            except OSError:
                return False
        return True

    def _pid_lines(self) -> list[str]:
        try:
            return self._pid_file.read_text().split("\n")
        except FileNotFoundError:
            return []

    def _process(self) -> int | None:
        """The id of the live server. A process is the server if its cwd is the data directory:
        after a reboot the id in the file may be a stranger's."""
        try:
            pid = int(self._pid_lines()[0])
        except (IndexError, ValueError, OSError):
            return None
        return pid if self._runs_here(pid) else None

    def _runs_here(self, pid: int) -> bool:
        try:
            # Fails for a zombie, and for a stranger's process if we are not root.
            return Path(f"/proc/{pid}/cwd").samefile(self.data)
        except OSError:
            return False

    # ------------------------------------------------------------ start and stop

    def start(self, *, alone: bool) -> None:
        """Start the server unless it is up, and return when it takes connections.

        Only under start.lock; `alone` says that no other process is its client.
        """
        begun = time.monotonic()
        while not self.is_up():
            waited = time.monotonic() - begun
            if self._listens():  # coming up, or on its way down
                if waited > _START_SECONDS:
                    raise EmbeddedError(
                        f"PostgreSQL in {self.home} is up but takes no connections since "
                        f"{waited:.0f} s: it may still be recovering; see {self.log}"
                    )
            else:
                self._drop_stale_locks(alone)
                self._try_start(may_wait=waited < _ORPHAN_SECONDS)
            time.sleep(0.05)

    def _try_start(self, *, may_wait: bool) -> None:
        output = self.log / "start.log"
        output.unlink(missing_ok=True)
        sizes = {file.name: file.stat().st_size for file in self.log.iterdir()}
        command = (self.tools / "pg_ctl", "start", "-D", self.data, "-l", output)
        try:
            self.account.run(*command, "-w", "-s", "-t", str(_START_SECONDS))
        except EmbeddedError as error:
            said = self._said_since(sizes)
            if may_wait and "shared memory block" in said:
                return  # the last processes of a killed server are still ending
            raise EmbeddedError(
                f"PostgreSQL in {self.home} did not start: {error}\n{said[-2000:]}\n"
                f"More may be said in {self.log}"
            ) from None

    def _said_since(self, sizes: dict[str, int]) -> str:
        """What the log files have grown by. The logging process may be a little behind."""
        deadline = time.monotonic() + 1
        while True:
            said = ""
            for file in sorted(self.log.iterdir()):
                content = file.read_bytes()
                known = sizes.get(file.name, 0)
                new = content[known if known <= len(content) else 0 :]
                said += new.decode(errors="replace")
            if "FATAL" in said or time.monotonic() > deadline:
                return said
            time.sleep(0.05)

    def _drop_stale_locks(self, alone: bool) -> None:
        """PostgreSQL does not start while its two lock files name any live process.

        After a reboot or a container's restart that may be anything. But with another client
        the server may be alive where we cannot see its process: then only a zombie is dropped.
        """
        if self._process() is not None or not Path("/proc/self").exists():
            return
        for file in (self._pid_file, self.socket.with_name(self.socket.name + ".lock")):
            if alone or _names_zombie(file):
                file.unlink(missing_ok=True)

    def stop(self) -> None:
        """Stop the server if it runs here: what is open is rolled back, what is done is kept."""
        pid = self._process()
        if pid is None:
            return
        deadline = time.monotonic() + _STOP_SECONDS
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT if self.durable else signal.SIGQUIT)
            # Of the process, not of its file: that goes first, and the server a moment later.
            while self._runs_here(pid):
                if time.monotonic() > deadline:
                    os.kill(pid, signal.SIGQUIT)  # recovery at the next start, nothing lost
                    deadline += _STOP_SECONDS
                time.sleep(0.02)


def write_private(path: Path, text: str, owner: Account | None = None) -> None:
    """Write a file whole or not at all, on disk when this returns, for its owner's eyes only."""
    unfinished = path.with_name(path.name + ".new")
    unfinished.unlink(missing_ok=True)
    handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(handle)
        if owner is not None and owner.dropped:
            os.fchown(handle, owner.uid, owner.gid)  # by handle: the folder may be the account's
    unfinished.rename(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def _names_zombie(lock_file: Path) -> bool:
    """True if the server died here and its parent has not noticed: PostgreSQL takes it for live."""
    try:
        pid = int(lock_file.read_text().split("\n")[0])
        status = Path(f"/proc/{pid}/stat").read_text()
    except (ValueError, OSError):
        return False
    return status.rpartition(")")[2].split()[0] == "Z"
