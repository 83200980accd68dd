"""The private PostgreSQL under every kind of sudden death. Each test has a cluster of its own."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from migrations.embedded import Embedded, EmbeddedError
from migrations.memory import shared_buffers
from support import databases
from support.waiting import wait_until

pytestmark = pytest.mark.postgres

ROOT = Path(__file__).parents[2]
NOBODY = 65534
GRACE = 0.2
CLIENT = """
import sys
from pathlib import Path
from migrations.embedded import Embedded
bindir = Path(sys.argv[2]) if sys.argv[2] else None
postgres = Embedded(Path(sys.argv[1]), bindir=bindir, grace=0.2, durable=False).acquire()
print("up", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def home() -> Iterator[Path]:
    made = databases.make_home()
    yield made
    databases.remove_home(made)


def embedded(home: Path) -> Embedded:
    return Embedded(home, bindir=databases.bindir(), grace=GRACE, durable=False)


class Client:
    """Another process that uses the cluster until told to end, or killed."""

    def __init__(self, home: Path, python: str = sys.executable, user: int | None = None) -> None:
        self.process = subprocess.Popen(
            [python, "-c", CLIENT, str(home), str(databases.bindir() or "")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            env={"PYTHONPATH": f"{ROOT}:{sysconfig.get_path('purelib')}"},
        )

    def wait_up(self) -> None:
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "up\n":
            pytest.fail(f"the client did not come up: {self.process.communicate()[1]}")

    def end(self) -> None:
        self.process.communicate()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def client(home: Path, python: str = sys.executable, user: int | None = None) -> Iterator[Client]:
    running = Client(home, python, user)
    try:
        running.wait_up()
        yield running
    finally:
        if running.process.returncode is None:
            running.kill()


def server_pid(home: Path) -> int:
    return int((home / "data" / "postmaster.pid").read_text().split("\n")[0])


def is_alive(pid: int) -> bool:
    """False for a zombie too: whoever inherited it may never reap it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_dead(pid: int) -> None:
    wait_until(lambda: not is_alive(pid), f"process {pid} has ended")


def watcher_pids(home: Path) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if "migrations.watcher" in words and str(home) in words:
            found.append(int(entry.name))
    return found


def ask(dsn: str, query: str) -> object:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(query).fetchone()
        assert row is not None
        return row[0]


# ---------------------------------------------------------------- what one gets


def test_a_cluster_comes_up_with_its_database_and_two_roles(home: Path) -> None:
    with embedded(home) as postgres:
        assert ask(postgres.owner_dsn, "SELECT current_user") == "fedledger_owner"
        assert ask(postgres.service_dsn, "SELECT current_user") == "fedledger_service"
        assert ask(postgres.service_dsn, "SELECT current_database()") == "fedledger"
        query = "SELECT string_agg(rolname, ',') FROM pg_roles WHERE rolsuper"
        assert ask(postgres.superuser_dsn, query) == "postgres"
        owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'fedledger'"
        assert ask(postgres.service_dsn, owner) == "fedledger_owner"
        with psycopg.connect(postgres.service_dsn) as service:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                service.execute("CREATE TABLE not_for_the_service ()")
            service.rollback()
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                service.execute("SET ROLE fedledger_owner")


def test_what_it_keeps_is_kept_safely(home: Path) -> None:
    with Embedded(home, bindir=databases.bindir(), grace=GRACE) as postgres:
        expected = {
            "fsync": "on",
            "full_page_writes": "on",
            "synchronous_commit": "on",
            "data_checksums": "on",
            "listen_addresses": "",
            "shared_buffers": str(shared_buffers() * 128),  # pages of 8 KiB
            "server_encoding": "UTF8",
            "TimeZone": "UTC",
            "password_encryption": "scram-sha-256",
        }
        query = "SELECT json_object_agg(name, setting) FROM pg_settings WHERE name = ANY(%s)"
        with psycopg.connect(postgres.superuser_dsn) as connection:
            assert connection.execute(query, (list(expected),)).fetchone() == (expected,)
            methods = connection.execute("SELECT DISTINCT auth_method FROM pg_hba_file_rules")
            assert methods.fetchall() == [("scram-sha-256",)]


def test_nothing_of_it_is_open_to_others(home: Path) -> None:
    with embedded(home) as postgres:
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in home.iterdir()}
        assert stat.S_IMODE(home.stat().st_mode) == (0o711 if os.geteuid() == 0 else 0o700)
        assert modes.pop("pgsql", 0o755) == 0o755  # only programs
        folders = {"data", "run", "log"}
        assert {name: modes.pop(name) for name in folders} == dict.fromkeys(folders, 0o700)
        assert set(modes.values()) == {0o600}
        assert stat.S_IMODE((home / "run" / ".s.PGSQL.5432").stat().st_mode) == 0o700
        for dsn in (postgres.owner_dsn, postgres.service_dsn, postgres.superuser_dsn):
            assert "password" not in conninfo_to_dict(dsn)
        arguments = Path(f"/proc/{server_pid(home)}/cmdline").read_bytes()
        arguments += b"".join(Path(f"/proc/{p}/cmdline").read_bytes() for p in watcher_pids(home))
        logged = b"".join(p.read_bytes() for p in (home / "log").iterdir())
        for file in home.glob("*.pgpass"):
            password = file.read_text().strip().rpartition(":")[2]
            assert len(password) == 32
            assert password.encode() not in arguments + logged


def test_a_role_whose_password_file_is_lost_gets_a_new_one(home: Path) -> None:
    with embedded(home) as postgres:
        (home / "fedledger_service.pgpass").unlink()
        postgres.acquire()
        assert ask(postgres.service_dsn, "SELECT current_user") == "fedledger_service"


def test_a_home_moved_elsewhere_starts_there(home: Path) -> None:
    with embedded(home) as postgres:
        assert postgres.stop()
    moved = home.with_name(home.name + "-it's moved")
    home.rename(moved)
    try:
        with embedded(moved) as postgres:
            assert ask(postgres.service_dsn, "SELECT 1") == 1
    finally:
        databases.remove_home(moved)


# ---------------------------------------------------------------- what is refused


def test_a_path_too_long_for_a_socket_is_refused_before_anything_is_made(home: Path) -> None:
    long = home / ("x" * 90)
    with pytest.raises(EmbeddedError, match=r"bytes too long.*shorter FEDLEDGER_HOME"):
        embedded(long).acquire()
    assert not long.exists()


@pytest.mark.parametrize("character", list(',"$`\\\n'))
def test_a_path_that_libpq_or_a_shell_would_misread_is_refused(home: Path, character: str) -> None:
    with pytest.raises(EmbeddedError, match="choose a folder without"):
        embedded(home / f"a{character}b").acquire()


def test_a_folder_without_programs_is_refused(home: Path) -> None:
    with pytest.raises(EmbeddedError, match="FEDLEDGER_PG_BINDIR"):
        Embedded(home, bindir=home).acquire()


def test_data_of_another_major_version_is_refused(home: Path) -> None:
    with embedded(home) as postgres:
        assert postgres.stop()
    (home / "data" / "PG_VERSION").write_text("14\n")
    with pytest.raises(EmbeddedError, match=r"made by PostgreSQL 14.*FEDLEDGER_PG_BINDIR"):
        embedded(home).acquire()


def test_a_start_that_fails_says_what_postgres_said_and_holds_nothing(home: Path) -> None:
    with embedded(home) as postgres:
        assert postgres.stop()
    with (home / "data" / "postgresql.conf").open("a") as settings:
        settings.write("nonsense = 1\n")
    with pytest.raises(EmbeddedError, match="nonsense"):
        postgres.acquire()
    assert postgres.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's folder")
def test_another_users_home_is_refused(home: Path) -> None:
    os.chown(home, NOBODY, NOBODY)
    with pytest.raises(EmbeddedError, match="belongs to the user with id 65534"):
        embedded(home).acquire()


@pytest.mark.skipif(os.geteuid() != 0, reason="only as root is the server another account's")
def test_a_home_the_servers_account_cannot_reach_is_refused(home: Path) -> None:
    home.chmod(0o700)
    with pytest.raises(EmbeddedError, match="may not enter"):
        embedded(home / "inner").acquire()


# ---------------------------------------------------------------- who uses it


def test_the_server_ends_with_its_last_client(home: Path) -> None:
    with client(home) as first:
        pid = server_pid(home)
        with client(home) as second:
            assert server_pid(home) == pid
            first.end()
            assert ask(embedded(home).service_dsn, "SELECT 1") == 1
            second.end()
        wait_dead(pid)
    wait_until(lambda: not watcher_pids(home), "the watcher has ended")


def test_stop_leaves_the_server_to_others(home: Path) -> None:
    with client(home) as other, embedded(home) as postgres:
        pid = server_pid(home)
        assert not postgres.stop()
        assert is_alive(pid)
        other.end()
        assert postgres.stop()
        wait_dead(pid)  # it has let go of its folder by then; the rest of its end is the kernel's
        assert postgres.stop()  # again: nothing to do


def test_six_first_starts_at_once_share_one_server(home: Path) -> None:
    clients = [Client(home) for _ in range(6)]
    try:
        for each in clients:
            each.wait_up()
        assert len(watcher_pids(home)) == 1
        assert ask(embedded(home).owner_dsn, "SELECT 1") == 1
        pid = server_pid(home)
    finally:
        for each in clients:
            each.end()
    wait_dead(pid)


def test_clients_that_come_and_go_always_find_a_server(home: Path) -> None:
    """Against the watcher, which is about to stop it each time (its grace is nil)."""
    for _ in range(12):
        with Embedded(home, bindir=databases.bindir(), grace=0, durable=False) as postgres:
            assert ask(postgres.service_dsn, "SELECT 1") == 1


# ---------------------------------------------------------------- sudden death


def test_a_killed_client_is_seen(home: Path) -> None:
    with client(home) as only:
        pid = server_pid(home)
        only.kill()
        wait_dead(pid)


def test_a_killed_server_comes_back_for_whoever_comes(home: Path) -> None:
    with embedded(home) as postgres:
        for watcher in watcher_pids(home):
            os.kill(watcher, signal.SIGKILL)  # else it may be faster
            wait_dead(watcher)
        pid = server_pid(home)
        os.kill(pid, signal.SIGKILL)
        wait_dead(pid)
        with client(home):
            assert server_pid(home) != pid
            assert ask(postgres.service_dsn, "SELECT 1") == 1


def test_a_killed_server_comes_back_under_a_client_that_does_nothing(home: Path) -> None:
    with embedded(home) as postgres:
        pid = server_pid(home)
        os.kill(pid, signal.SIGKILL)

        def answers() -> bool:
            try:
                return ask(postgres.service_dsn, "SELECT 1") == 1
            except psycopg.OperationalError:
                return False

        wait_dead(pid)
        wait_until(answers, "the server is back")
        assert server_pid(home) != pid


def test_after_everything_was_killed_it_starts_and_has_lost_nothing(home: Path) -> None:
    durable = Embedded(home, bindir=databases.bindir(), grace=GRACE)
    with durable:
        with psycopg.connect(durable.owner_dsn) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        victims = [server_pid(home), *watcher_pids(home)]
        assert len(victims) == 2
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        for victim in victims:
            wait_dead(victim)
    with durable:
        assert ask(durable.owner_dsn, "SELECT answer FROM kept") == 42
        assert len(watcher_pids(home)) == 1


def test_a_pid_file_that_names_a_living_stranger_is_dropped(home: Path) -> None:
    """After a reboot the old id may be any process, also one of the server's own account."""
    with embedded(home) as postgres:
        assert postgres.stop()
    owner = (home / "data").stat()
    stranger = subprocess.Popen(
        ["/bin/sleep", "600"],
        cwd="/",
        user=owner.st_uid if os.geteuid() == 0 else None,
        group=owner.st_gid if os.geteuid() == 0 else None,
    )
    try:
        pid_file = home / "data" / "postmaster.pid"
        lines = [stranger.pid, home / "data", 1, 5432, home / "run", "", "1 1", "ready"]
        for file in (pid_file, home / "run" / ".s.PGSQL.5432.lock"):
            file.write_text("\n".join(map(str, lines)) + "\n")
            os.chown(file, owner.st_uid, owner.st_gid)
        with embedded(home) as postgres:
            assert ask(postgres.service_dsn, "SELECT 1") == 1
            assert server_pid(home) != stranger.pid
            assert postgres.stop()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_an_initdb_cut_short_is_begun_again(home: Path) -> None:
    (home / "data.new" / "base").mkdir(parents=True)
    (home / "data.new" / "PG_VERSION").write_text("18\n")
    (home / "postgres.pgpass").write_text("*:*:*:postgres:of-the-earlier-try\n")
    with embedded(home) as postgres:
        assert ask(postgres.service_dsn, "SELECT 1") == 1
    assert not (home / "data.new").exists()
    assert not (home / "initdb.password").exists()


def test_a_bootstrap_cut_short_is_finished(home: Path) -> None:
    with embedded(home) as postgres:
        with psycopg.connect(postgres.superuser_dsn, autocommit=True) as connection:
            connection.execute("DROP DATABASE fedledger")
            connection.execute("DROP ROLE fedledger_service")
            connection.execute("ALTER ROLE fedledger_owner PASSWORD NULL")
        postgres.acquire()
        assert ask(postgres.owner_dsn, "SELECT 1") == 1
        assert ask(postgres.service_dsn, "SELECT 1") == 1


def test_a_home_removed_under_the_watcher_is_left_alone(home: Path) -> None:
    """The demo removes its home; a new cluster at the same place is not the old watcher's."""
    with embedded(home) as postgres:
        old = watcher_pids(home)
        assert postgres.stop()
        shutil.rmtree(home)
        with client(home):
            for watcher in old:
                wait_dead(watcher)
            assert ask(postgres.service_dsn, "SELECT 1") == 1


# ---------------------------------------------------------------- who runs it


def python_for_everybody() -> str:
    """An interpreter of our version that an ordinary user can run: ours may be under /root."""
    probe = "import sys, migrations.embedded; print(*sys.version_info[:2])"
    path = f"{ROOT}:{sysconfig.get_path('purelib')}"
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            answer = subprocess.run(
                [python, "-c", probe],
                capture_output=True,
                text=True,
                user=NOBODY,
                group=NOBODY,
                extra_groups=[],
                cwd="/",
                env={"PYTHONPATH": path},
                check=False,
            )
        except OSError:
            continue
        if answer.stdout.split() == list(map(str, sys.version_info[:2])):
            return python
    pytest.skip("this folder or every Python of this version is closed to other users")


@pytest.mark.skipif(os.geteuid() != 0, reason="every other test runs as an ordinary user already")
def test_an_ordinary_user_can_have_one_too(home: Path) -> None:
    os.chown(home, NOBODY, NOBODY)
    try:
        with client(home, python_for_everybody(), NOBODY):
            pid = server_pid(home)
            assert Path(f"/proc/{pid}").stat().st_uid == NOBODY
            assert {p.stat().st_uid for p in home.iterdir()} == {NOBODY}
            assert ask(embedded(home).service_dsn, "SELECT 1") == 1
        wait_dead(pid)
    finally:
        os.chown(home, 0, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
def test_as_root_the_server_is_the_system_accounts(home: Path) -> None:
    with embedded(home):
        status = Path(f"/proc/{server_pid(home)}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert "0" not in fields["Uid"].split()
        assert "0" not in fields["Gid"].split()
        assert fields["Groups"].strip() in ("", fields["Gid"].split()[0])


def test_no_network_port_is_opened(home: Path) -> None:
    with embedded(home):
        held = set()
        for link in Path(f"/proc/{server_pid(home)}/fd").iterdir():
            with suppress(FileNotFoundError):
                held.add(str(link.readlink()))
        tables = [Path(f"/proc/net/{name}") for name in ("tcp", "tcp6")]
        rows = [row for table in tables if table.exists() for row in table.read_text().split("\n")]
        network = {f"socket:[{row.split()[9]}]" for row in rows[1:] if len(row.split()) > 9}
        assert any(name.startswith("socket:") for name in held)
        assert not held & network
