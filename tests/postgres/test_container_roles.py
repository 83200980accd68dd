"""The script that makes a ledger's roles in a container, run against a real PostgreSQL.

The names of roles and database are shared by a whole cluster: between the script and the real
psql stands a filter that gives them names of the test's own.
"""

import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier

from migrations.binaries import find_binaries
from support.compose import ROOT
from support.databases import Cluster, bindir

pytestmark = pytest.mark.postgres

SCRIPT = ROOT / "containers" / "postgres-roles.sh"
AWKWARD = 'p w$HOME`id`;--"x%s&|*'  # everything but a colon, a quote and a backslash


@dataclass
class Place:
    """A superuser's connection, secrets, and names that nobody else has."""

    dsn: str
    secrets: Path
    tag: str = field(default_factory=lambda: secrets.token_hex(6))

    def name(self, name: str) -> str:
        return f"{name}_{self.tag}"

    def give(self, role: str, password: str) -> None:
        file = self.secrets / f"pgpass-{role}"
        file.write_text(f"# a comment\npostgres:5432:fedledger:{role}:{password}\n")

    def run(self, tools: Path) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": f"{tools}:/usr/bin:/bin", "SECRETS_DIRECTORY": str(self.secrets),
            "POSTGRES_USER": str(conninfo_to_dict(self.dsn)["user"]),
        }  # fmt: skip
        return subprocess.run(
            ["/bin/sh", SCRIPT], env=environment, capture_output=True, text=True, check=False
        )

    def login(self, role: str, password: str) -> str:
        """Connect as that role to that database, and return who and where we are."""
        dsn = make_conninfo(
            self.dsn, user=self.name(role), password=password, dbname=self.name("fedledger"),
            passfile="/dev/null",
        )  # fmt: skip
        with psycopg.connect(dsn) as connection:
            row = connection.execute("SELECT current_user || ' ' || current_database()").fetchone()
        assert row is not None
        return str(row[0])


@pytest.fixture
def place(cluster: Cluster, tmp_path: Path) -> Iterator[Place]:
    dsn = cluster._postgres.superuser_dsn
    made = Place(dsn, tmp_path)
    yield made
    with psycopg.connect(dsn, autocommit=True) as connection:
        drop = "DROP DATABASE IF EXISTS {} WITH (FORCE)"
        connection.execute(SQL(drop).format(Identifier(made.name("fedledger"))))
        for role in ("fedledger_owner", "fedledger_service"):
            connection.execute(SQL("DROP ROLE IF EXISTS {}").format(Identifier(made.name(role))))


@pytest.fixture
def tools(place: Place, tmp_path: Path) -> Path:
    """A psql that notes its arguments, and hands on what it reads with the names changed."""
    folder = tmp_path / "tools"
    folder.mkdir()
    real = find_binaries(bindir()) / "psql"
    psql = folder / "psql"
    words = "fedledger_owner fedledger_service fedledger"
    psql.write_text(
        f"""#!/bin/sh
printf '%s\\n' "$@" > {folder}/arguments
sed -E 's/\\b({words.replace(" ", "|")})\\b/\\1_{place.tag}/g' |
    exec {real} "{place.dsn}" --no-psqlrc --quiet --set ON_ERROR_STOP=1
"""
    )
    psql.chmod(0o755)
    return folder


def test_both_roles_can_log_in_and_neither_can_more(place: Place, tools: Path) -> None:
    place.give("fedledger_owner", AWKWARD)
    place.give("fedledger_service", "the-services")
    done = place.run(tools)
    assert done.returncode == 0, done.stderr
    database = place.name("fedledger")
    assert place.login("fedledger_owner", AWKWARD) == f"{place.name('fedledger_owner')} {database}"
    assert place.login("fedledger_service", "the-services").endswith(database)
    with pytest.raises(psycopg.OperationalError):
        place.login("fedledger_service", AWKWARD)
    with psycopg.connect(place.dsn) as connection:
        rows = connection.execute(
            "SELECT rolname, rolsuper OR rolcreaterole OR rolcreatedb FROM pg_roles "
            "WHERE rolname LIKE %s", [f"%{place.tag}"],
        ).fetchall()  # fmt: skip
    assert sorted(rows) == [
        (place.name("fedledger_owner"), False),
        (place.name("fedledger_service"), False),
    ]
    # No password where every process of the machine could read it.
    assert AWKWARD not in (tools / "arguments").read_text()
    assert "the-services" not in (tools / "arguments").read_text() + done.stdout + done.stderr


@pytest.mark.parametrize(
    "line", ["", "postgres:5432:fedledger:another:x", "a quote's no password", "x:y"]
)
def test_without_a_password_it_makes_nothing(place: Place, tools: Path, line: str) -> None:
    place.give("fedledger_owner", "the-owners")
    (place.secrets / "pgpass-fedledger_service").write_text(f"{line}\n")
    done = place.run(tools)
    assert done.returncode == 78
    assert "pgpass" in done.stderr
    assert "the-owners" not in done.stderr
    assert not (tools / "arguments").exists()
