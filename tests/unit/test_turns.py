"""One at a time per call; others are not kept waiting."""

import threading

import pytest

from ledger.errors import RefusedError
from ledger.turns import Turns


def test_a_twin_waits_for_the_first() -> None:
    turns, order = Turns(patience=60), []
    inside, go_on = threading.Event(), threading.Event()

    def first() -> None:
        with turns.turn("call"):
            inside.set()
            assert go_on.wait(60)
            order.append("first")

    def second() -> None:
        with turns.turn("call"):
            order.append("second")

    threads = [threading.Thread(target=work) for work in (first, second)]
    threads[0].start()
    assert inside.wait(60)
    threads[1].start()
    with turns.turn("another"):
        order.append("another")
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert order == ["another", "first", "second"]


def test_patience_ends() -> None:
    turns = Turns(patience=0.01)
    with turns.turn("call"), pytest.raises(RefusedError) as caught, turns.turn("call"):
        pass
    assert caught.value.code == "idempotency-in-flight"
    with turns.turn("call"):
        pass


def test_a_failure_gives_the_turn_back() -> None:
    turns = Turns(patience=0.01)
    with pytest.raises(ValueError, match="x"), turns.turn("call"):
        raise ValueError("x")
    with turns.turn("call"):
        pass
