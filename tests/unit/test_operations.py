"""The operation table: cheap to import, whole, and a valid OpenAPI document."""

import re
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from openapi_spec_validator import validate

from api.handlers.table import HANDLERS
from api.openapi import document, problems_of
from api.operations import BY_NAME, OPERATIONS
from api.problems import PROBLEMS, STATUSES, status_of
from ledger.errors import LedgerError, RefusedError

_ROOT = Path(__file__).parents[2]
_HEAVY = ("falcon", "waitress", "psycopg", "cryptography", "eventsourcing", "structlog")


def test_importing_the_table_is_cheap() -> None:
    """The command line imports it for `--help`."""
    script = (
        f"import sys, api.operations\nprint([name for name in {_HEAVY} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=_ROOT
    )
    assert done.stdout.strip() == "[]"


def test_names_and_paths_are_unique() -> None:
    assert len(BY_NAME) == len(OPERATIONS)
    assert len({(row.method, row.path) for row in OPERATIONS}) == len(OPERATIONS)


def test_every_row_has_its_handler() -> None:
    assert HANDLERS.keys() == BY_NAME.keys()


@pytest.mark.parametrize("row", OPERATIONS, ids=lambda row: row.name)
def test_a_row_holds_together(row: object) -> None:
    assert row in OPERATIONS
    one = BY_NAME[row.name]  # type: ignore[attr-defined]  # checked in the line before
    assert re.fullmatch(r"[a-z-]+\.[a-z-]+", one.name)
    assert (one.access == "operator") == bool(one.roles)
    assert not (one.method == "GET" and (one.command or one.body))
    assert not (one.command and one.method == "POST" and one.body is None)
    if one.body is not None:
        assert one.example or not one.body_needed
        if one.access == "operator":
            one.body.model_validate(one.example)
    assert not one.peers or (one.access, one.command) == ("operator", False)
    for codes in problems_of(one).values():
        assert set(codes) <= PROBLEMS.keys()


def test_the_openapi_document_is_valid() -> None:
    said = orjson.loads(orjson.dumps(document("1.2.3")))
    assert said["openapi"] == "3.1.0"
    validate(said)
    assert len(said["paths"]) == len({row.path for row in OPERATIONS})


def test_every_code_in_the_sources_is_documented() -> None:
    """A code that is missing in `PROBLEMS` would be answered as its class's own."""
    found = set()
    for room in ("ledger", "ca", "api"):
        for file in (_ROOT / room).rglob("*.py"):
            if "cli" not in file.parts:
                text = file.read_text()
                found |= set(re.findall(r'\bcode="([a-z][a-z-]+)"', text))
                found |= set(re.findall(r'^    code = "([a-z][a-z-]+)"', text, re.MULTILINE))
                found |= set(re.findall(r'"(csr-[a-z-]+)"', text))
    assert found - PROBLEMS.keys() == {"error"}


def test_statuses_are_picked_by_class() -> None:
    class TakenError(RefusedError):
        code = "taken"

    assert status_of(TakenError("x")) == 409
    assert status_of(LedgerError("x")) == 500
    assert {status for one in PROBLEMS.values() for status in one.statuses} == set(
        STATUSES.values()
    )
