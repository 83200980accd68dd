"""Denials are recorded singly, then as one summary a minute; recording never fails a request."""

from typing import Any

import structlog

from api.denials import Denials
from api.readings import Readings
from ledger.errors import ForbiddenError, UnavailableError
from ledger.events import Actor, AuditRead, CallDenied, Fact
from ledger.reading import Call

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))


class Recorder:
    def __init__(self) -> None:
        self.facts: list[Any] = []

    def __call__(self, call: Call, fact: Fact) -> None:
        self.facts.append(fact)


def _actor(source: str, credential: str | None = None) -> Actor:
    return Actor(kind="operator", id="x", auth="bearer", credential=credential, source=source)


def _deny(denials: Denials, source: str = "192.0.2.1") -> None:
    denials.note("peer.register", _actor(source), ForbiddenError("no"), "request")


def test_ten_then_a_summary_of_the_minute() -> None:
    now, recorder = [0.0], Recorder()
    denials = Denials(recorder, lambda: now[0])
    for _ in range(14):
        _deny(denials)
    _deny(denials, "192.0.2.2")
    assert [fact.count for fact in recorder.facts] == [1] * 11
    denials.flush()
    assert len(recorder.facts) == 11
    now[0] = 60.0
    _deny(denials)
    assert [fact.count for fact in recorder.facts[11:]] == [4, 1]
    assert recorder.facts[11] == CallDenied(operation="peer.register", problem="forbidden", count=4)
    denials.flush(everything=True)
    assert len(recorder.facts) == 13


def test_memory_is_bounded_and_loses_no_count() -> None:
    recorder = Recorder()
    denials = Denials(recorder, lambda: 0.0)
    for _ in range(12):
        _deny(denials, "first")
    for number in range(5_000):
        _deny(denials, str(number))
    assert len(denials._windows) == 5_000
    assert [fact.count for fact in recorder.facts if fact.count > 1] == [2]


def test_what_cannot_be_recorded_is_refused_all_the_same() -> None:
    def broken(call: Call, fact: Fact) -> None:
        raise UnavailableError("away")

    _deny(Denials(broken, lambda: 0.0))
    call = Call(actor=_actor("x", "a"), correlation_id="request")
    Readings(broken, lambda: 0.0).note(call, "event.list", None, 1)


def test_at_the_end_an_absent_database_is_asked_once() -> None:
    tried: list[Fact] = []

    def away(call: Call, fact: Fact) -> None:
        tried.append(fact)
        raise UnavailableError("away")

    denials = Denials(away, lambda: 0.0)
    for source in range(50):
        for _ in range(12):
            _deny(denials, str(source))
    tried.clear()
    denials.flush(everything=True)
    assert len(tried) == 1


def test_a_reading_is_recorded_once_per_credential_operation_and_ten_minutes() -> None:
    now, recorder = [0.0], Recorder()
    readings = Readings(recorder, lambda: now[0])

    def read(credential: str, operation: str) -> None:
        call = Call(actor=_actor("x", credential), correlation_id="request")
        readings.note(call, operation, None, 3)

    for credential, operation in (("a", "event.list"), ("a", "event.list"), ("b", "event.list"),
                                  ("a", "event.show")):  # fmt: skip
        read(credential, operation)
    assert recorder.facts[0] == AuditRead(operation="event.list", filter=(), count=3)
    assert len(recorder.facts) == 3
    now[0] = 600.0
    read("a", "event.list")
    assert len(recorder.facts) == 4
