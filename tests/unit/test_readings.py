"""Readings are counted, added up, and recorded once in ten minutes."""

from dataclasses import dataclass, field

from pydantic import BaseModel

from api.readings import Readings
from ledger.errors import UnavailableError
from ledger.events import Actor, AuditRead, Fact
from ledger.reading import Call


class Filters(BaseModel):
    topic: str | None = None
    limit: int = 50
    cursor: str | None = None
    wait: int = 0


@dataclass
class Ledger:
    """Takes down what is recorded, or refuses."""

    facts: list[AuditRead] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    away: bool = False
    now: float = 1000.0

    def record(self, call: Call, fact: Fact) -> None:
        if self.away:
            raise UnavailableError("away")
        assert isinstance(fact, AuditRead)
        self.calls.append(call)
        self.facts.append(fact)

    def readings(self) -> Readings:
        return Readings(self.record, lambda: self.now)


def call(credential: str = "a" * 16) -> Call:
    actor = Actor(kind="operator", id="one", auth="bearer", credential=credential)
    return Call(actor, "request")


def test_the_first_is_recorded_at_once_and_the_rest_as_one() -> None:
    ledger = Ledger()
    readings = ledger.readings()
    readings.note(call(), "event.list", Filters(topic="a.b.v1", wait=5), 7)
    assert ledger.facts == [
        AuditRead(operation="event.list", filter=(("topic", "a.b.v1"),), count=7)
    ]
    for number in range(20):
        ledger.now += 20
        readings.note(call(), "event.list", Filters(topic=f"a.{number % 2}.v1", cursor="x"), 5)
        readings.flush()
    assert len(ledger.facts) == 1
    ledger.now = 1600
    readings.flush()
    assert ledger.facts[1:] == [
        AuditRead(
            operation="event.list",
            filter=(("topic", "a.0.v1"), ("topic", "a.1.v1"), ("readings", "20")),
            count=100,
        )
    ]
    # That record began the next ten minutes.
    readings.note(call(), "event.list", Filters(), 1)
    ledger.now += 599
    readings.flush()
    assert len(ledger.facts) == 2
    ledger.now += 1
    readings.flush()
    assert ledger.facts[2] == AuditRead(operation="event.list", filter=(), count=1)


def test_never_more_than_one_in_ten_minutes_however_it_is_read() -> None:
    ledger = Ledger()
    readings = ledger.readings()
    for _ in range(6 * 60):
        readings.note(call(), "event.list", Filters(), 1)
        ledger.now += 10
        readings.flush()
    assert len(ledger.facts) == 7
    assert sum(fact.count for fact in ledger.facts) == 6 * 60
    readings.flush()
    ledger.now += 601
    readings.flush()
    assert len(ledger.facts) == 7  # nobody reads: nothing is recorded
    readings.note(call(), "event.list", Filters(), 1)
    assert len(ledger.facts) == 8  # and the first after that at once


def test_whoever_and_whatever_is_counted_apart() -> None:
    ledger = Ledger()
    readings = ledger.readings()
    for credential in ("a" * 16, "b" * 16):
        for operation in ("event.list", "about.show"):
            for _ in range(3):
                readings.note(call(credential), operation, None, 2, about="x")
    assert [(one.operation, one.filter) for one in ledger.facts] == [
        ("event.list", (("about", "x"),)),
        ("about.show", (("about", "x"),)),
    ] * 2
    readings.flush(everything=True)
    assert [one.filter for one in ledger.facts[4:]] == [(("about", "x"), ("readings", "2"))] * 4
    assert {one.actor.credential for one in ledger.calls} == {"a" * 16, "b" * 16}


def test_many_filters_stay_one_small_record() -> None:
    ledger = Ledger()
    readings = ledger.readings()
    for number in range(1000):
        readings.note(call(), "event.list", Filters(topic=f"a.x{number}.v1"), 1)
    ledger.now += 600
    readings.flush()
    assert len(ledger.facts[1].filter) == 41
    assert ledger.facts[1].filter[-1] == ("readings", "999")


def test_what_cannot_be_recorded_is_read_all_the_same() -> None:
    ledger = Ledger(away=True)
    readings = ledger.readings()
    readings.note(call(), "event.list", Filters(), 1)
    readings.flush(everything=True)
    assert ledger.facts == []
