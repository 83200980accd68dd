"""The house as DESIGN draws it, where import contracts cannot say it."""

import ast
import re
from configparser import ConfigParser
from pathlib import Path

import pytest

from ledger.events import TOPICS

ROOT = Path(__file__).parents[2]
ROOMS = ("ledger", "projections", "ca", "api", "migrations")
FILES = sorted(file for room in ROOMS for file in (ROOT / room).rglob("*.py"))
NO_ROOM = {"utils", "util", "helpers", "common", "core", "manager", "service", "misc"}


def names(files: list[Path]) -> list[str]:
    return [str(file.relative_to(ROOT)) for file in files]


@pytest.mark.parametrize("file", FILES, ids=names(FILES))
def test_every_file_says_its_job_and_has_a_room(file: Path) -> None:
    assert file.stem not in NO_ROOM
    assert ast.get_docstring(ast.parse(file.read_text())), "a module docstring is missing"


def test_every_package_is_installed() -> None:
    """A folder left out of setup.cfg works in the checkout and is missing from the wheel."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    found = {
        str(file.parent.relative_to(ROOT)).replace("/", ".")
        for room in ROOMS
        for file in (ROOT / room).rglob("__init__.py")
    }
    assert listed == found


@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic_is_its_class_in_kebab_case(topic: str) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*\.[a-z]+(-[a-z]+)*\.v[1-9][0-9]*", topic)
    words = re.split(r"[.-]", topic)[:-1]
    assert TOPICS[topic].__name__ == "".join(word.capitalize() for word in words)


def tables() -> list[str]:
    made = "".join(file.read_text() for file in sorted((ROOT / "migrations/sql").glob("*.sql")))
    return re.findall(r"CREATE TABLE (\w+)", made)


@pytest.mark.parametrize("table", [table for table in tables() if table.startswith("federation_")])
def test_a_current_state_table_has_one_writer(table: str) -> None:
    """Exactly one file declares the projection, and no file writes the table with SQL of its own."""
    declares = re.compile(rf"InlineProjection\(\s*(?:table=)?[\"']{table}[\"']")
    writes = re.compile(rf"(INSERT INTO|UPDATE|DELETE FROM|TRUNCATE)\s+{table}\b", re.IGNORECASE)
    assert len([file for file in FILES if declares.search(file.read_text())]) == 1
    assert names([file for file in FILES if writes.search(file.read_text())]) == []


@pytest.mark.parametrize("table", [table for table in tables() if table.startswith("ledger_")])
def test_the_record_is_written_by_the_ledger_room_alone(table: str) -> None:
    writes = re.compile(rf"(INSERT INTO|UPDATE|DELETE FROM|TRUNCATE)\s+{table}\b", re.IGNORECASE)
    writers = {file.relative_to(ROOT).parts[0] for file in FILES if writes.search(file.read_text())}
    assert writers <= {"ledger"}


# They make tables beside the live ones after the live ones' likeness, and throw them away.
BESIDE = ("projections/beside.py", "projections/progress.py")


def test_tables_are_made_by_migrations_alone() -> None:
    ddl = re.compile(r"\b(CREATE|ALTER|DROP) (TABLE|INDEX|TYPE|TRIGGER)\b")
    outside = [file for file in FILES if file.parts[len(ROOT.parts)] != "migrations"]
    assert names([file for file in outside if ddl.search(file.read_text())]) == list(BESIDE)
