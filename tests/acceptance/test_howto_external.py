"""The SQL and the commands of the pages about one's own PostgreSQL, on one: deploy, back up, restore."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from migrations.server import Server
from support import folders
from support.databases import bindir
from support.installation import FEDLEDGER, Installation, free_port, running
from support.pages import blocks

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

DEPLOY, BACK_UP = "how-to/deploy-external-postgresql.md", "how-to/back-up-and-restore.md"
SUPERUSER_PASSWORD = "super"


@dataclass(frozen=True)
class Cluster:
    """Somebody's own PostgreSQL on a port of this machine, without any role of ours."""

    port: int
    tools: Path

    def dsn(self, user: str, password: str, database: str = "fedledger") -> str:
        return f"host=127.0.0.1 port={self.port} dbname={database} user={user} password={password}"

    def as_superuser(self, sql: str) -> None:
        with psycopg.connect(
            self.dsn("postgres", SUPERUSER_PASSWORD, "postgres"), autocommit=True
        ) as connection:
            for statement in filter(str.strip, sql.split(";")):
                connection.execute(statement.encode())


@contextmanager
def cluster(home: Path) -> Iterator[Cluster]:
    server, port = Server(home, bindir()), free_port()
    server.prepare()
    server.make(SUPERUSER_PASSWORD)
    pg_ctl = (server.tools / "pg_ctl", "-D", server.data, "-w", "-s")
    options = f"-c listen_addresses=127.0.0.1 -c port={port}"
    server.account.run(*pg_ctl, "-l", server.log / "start.log", "-o", options, "start")
    try:
        yield Cluster(port, server.tools)
    finally:
        server.account.run(*pg_ctl, "-m", "immediate", "stop")


@pytest.fixture
def own() -> Iterator[Cluster]:
    home = folders.make("fedledger-acceptance-")
    home.chmod(0o711)
    try:
        with cluster(home) as made:
            yield made
    finally:
        shutil.rmtree(home)


def only(page: str, kind: str, containing: str) -> str:
    (text,) = [text for _, text in blocks(page, kind) if containing in text]
    return text


def shell(place: Installation, tools: Path, folder: Path, text: str) -> None:
    path = os.pathsep.join([str(FEDLEDGER.parent), str(tools), place.environment["PATH"]])
    done = subprocess.run(
        ["bash", "-euc", text], env={**place.environment, "PATH": path}, cwd=folder,
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_deploy_back_up_lose_and_restore(own: Cluster, tmp_path: Path) -> None:
    roles = only(DEPLOY, "sql", "CREATE ROLE")
    own.as_superuser(roles)
    place = Installation(
        tmp_path / "home",
        extra={
            "FEDLEDGER_DSN": own.dsn("fedledger_service", "choose-the-services"),
            "FEDLEDGER_OWNER_DSN": own.dsn("fedledger_owner", "choose-the-owners"),
        },
    )
    assert "passfile=" in only(DEPLOY, "sh", "FEDLEDGER_OWNER_DSN=")
    shell(place, own.tools, tmp_path, only(DEPLOY, "sh", "fedledger init"))

    # With the service's DSN alone it serves and cannot migrate; as the owner it does not serve.
    serving = Installation(place.home, extra={"FEDLEDGER_DSN": place.extra["FEDLEDGER_DSN"]})
    assert serving.run("migrate").code == 1
    as_owner = {"FEDLEDGER_DSN": place.extra["FEDLEDGER_OWNER_DSN"]}
    assert Installation(place.home, extra=as_owner).run("serve").code == 1
    with running(serving, "serve"):
        serving.ok("peer", "register", "--name", "Kept", "--base-url", "https://a.example")
        shell(place, own.tools, tmp_path, only(BACK_UP, "sh", "> ledger-keys.tar"))
        serving.ok("peer", "register", "--name", "Lost", "--base-url", "https://b.example")
        assert place.run("doctor").code == 0

    own.as_superuser(only(BACK_UP, "sql", "RENAME TO"))
    restore = only(BACK_UP, "sh", "pg_restore").replace("fedledger doctor", "")
    shutil.rmtree(place.home / "keys")
    shutil.rmtree(place.home / "authority")
    shell(place, own.tools, tmp_path, restore)

    # The page says that doctor on this home knows what is missing, and nothing else is wrong.
    found = place.run("doctor", "--json")
    assert found.code == 2
    failed = [check["id"] for check in found.document["checks"] if check["status"] == "fail"]
    assert failed == ["history"]
    assert serving.run("serve").code == 6, "it would give positions twice"
    (place.home / "last-seen-head").unlink()
    assert place.run("doctor").code == 0
    with running(serving, "serve"):
        assert [peer["name"] for peer in serving.ok("peer", "list")["items"]] == ["Kept"]


def test_the_tear_down_removes_what_the_deployment_made(own: Cluster) -> None:
    own.as_superuser(only(DEPLOY, "sql", "CREATE ROLE"))
    own.as_superuser(only("how-to/tear-down.md", "sql", "DROP"))
    with psycopg.connect(own.dsn("postgres", SUPERUSER_PASSWORD, "postgres")) as connection:
        left = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'fedledger%'"
        assert connection.execute(left).fetchone() == (0,)
