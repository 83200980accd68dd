"""Fixtures every test may use. `database` is a migrated database of the test's own."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from migrations.embedded import Embedded
from support import databases
from support.databases import Cluster, Database

pytest.register_assert_rewrite("support.authority_contract")

_HOME = pytest.StashKey[Path]()

# A loaded machine is no bug of ours: time is measured in tests/benchmarks, never in a test.
settings.register_profile("fedledger", deadline=None)
settings.load_profile("fedledger")


def pytest_configure(config: pytest.Config) -> None:
    """The controller (or the only process) makes the folder of the run's cluster."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # In the background of a shell. Commands that a test interrupts would inherit it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hasattr(config, "workerinput"):
        databases.remove_abandoned_homes()
        config.stash[_HOME] = databases.make_home()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """pytest-xdist: tell a worker where."""
    node.workerinput["fedledger_home"] = str(node.config.stash[_HOME])


def pytest_unconfigure(config: pytest.Config) -> None:
    if _HOME in config.stash:
        databases.remove_home(config.stash[_HOME])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever uses the cluster runs again on an older PostgreSQL (see .ci/run)."""
    for item in items:
        if "cluster" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.postgres)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have measured: `record_property("figure", text)`. Nothing is judged by it."""
    figures = [
        f"{report.nodeid.rpartition('::')[2]}: {value}"
        for reports in (
            terminalreporter.getreports("passed"),
            terminalreporter.getreports("failed"),
        )
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == "figure"
    ]
    if figures:
        terminalreporter.section("figures")
        for figure in figures:
            terminalreporter.line(figure)


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The run's PostgreSQL, started when a test first needs it; no PostgreSQL is a failure."""
    worker = getattr(request.config, "workerinput", None)
    home = Path(worker["fedledger_home"]) if worker else request.config.stash[_HOME]
    with Embedded(home, bindir=databases.bindir(), grace=0.5, durable=False) as postgres:
        yield Cluster(postgres)


@pytest.fixture
def database(cluster: Cluster) -> Iterator[Database]:
    """A fresh database at this release's schema, dropped afterwards."""
    with cluster.database() as made:
        yield made


@pytest.fixture
def empty_database(cluster: Cluster) -> Iterator[Database]:
    """A fresh database that was never migrated, dropped afterwards."""
    with cluster.database(migrated=False) as made:
        yield made
