"""Fixtures for tests over a real database."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from projections.verify import check_ledger
from support.databases import Database
from support.http import House, house

# One line per request would bury what a failing test has to say.
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))


@pytest.fixture
def place(database: Database, tmp_path: Path) -> Iterator[House]:
    """The whole HTTP side on a ledger of the test's own; the ledger is checked at the end."""
    made = house(database, tmp_path)
    try:
        yield made
    finally:
        made.close()
    report = check_ledger(database.service_dsn)
    assert report.ok, str(report)
