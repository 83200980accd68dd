"""Maintenance goes on whatever one of its rounds meets."""

import threading
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from api import maintenance
from api.maintenance import Maintenance
from ledger.errors import UnavailableError
from support.waiting import wait_until


class Reconciler:
    """Fails in a new way each time."""

    def __init__(self) -> None:
        self.errors: list[Exception] = [UnavailableError("away"), ZeroDivisionError(), OSError()]
        self.rounds = 0

    def run_once(self, now: datetime) -> Any:
        self.rounds += 1
        if self.errors:
            raise self.errors.pop()
        return SimpleNamespace(done={})


def test_a_round_that_fails_costs_one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "_PERIOD", 0.01)
    reconciler: Any = Reconciler()
    lists: Any = SimpleNamespace(publish_due=lambda now: 0)
    denials: Any = SimpleNamespace(flush=lambda: None)
    readings: Any = SimpleNamespace(flush=lambda: None)
    last_seen: Any = SimpleNamespace(objection=lambda: None, remember=lambda: 0)
    running = Maintenance(
        reconciler,
        lists,
        denials,
        readings,
        last_seen,
        print,
        lambda: datetime(2026, 11, 23, tzinfo=UTC),
    )
    running.start()
    wait_until(lambda: reconciler.rounds > 5, "it goes on")
    running.stop()
    assert "maintenance" not in {thread.name for thread in threading.enumerate()}
