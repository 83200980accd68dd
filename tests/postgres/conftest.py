"""Fixtures for tests over a real database."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from ledger import connection, writer
from projections.verify import check_ledger
from support.databases import Database
from support.http import House, house

# One line per request would bury what a failing test has to say.
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the writer waits for in seconds it waits for in a minute here: tests that hold the head
    while others queue up must not fail because the machine is busy."""
    impatient, patient = "lock_timeout = '5s'", "lock_timeout = '60s'"
    assert impatient in connection._SESSION
    monkeypatch.setattr(connection, "_SESSION", connection._SESSION.replace(impatient, patient))
    monkeypatch.setattr(writer, "RECONNECT_SECONDS", 60.0)


@pytest.fixture
def place(database: Database, tmp_path: Path) -> Iterator[House]:
    """The whole HTTP side on a ledger of the test's own; the ledger is checked at the end."""
    made = house(database, tmp_path)
    try:
        yield made
        made.parts.follower.follow()  # so that the histories are checked too
    finally:
        made.close()
    report = check_ledger(database.service_dsn)
    assert report.ok, str(report)
