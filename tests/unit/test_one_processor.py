"""Threads kept on one processor, and let go again: asked of the kernel; and by which figures."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from api import one_processor
from api.one_processor import choice, on_one_processor

ALLOWED = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
pytestmark = pytest.mark.skipif(len(ALLOWED) < 2, reason="needs Linux and two processors")


@pytest.fixture
def thread() -> Iterator[threading.Thread]:
    """One that was started before."""
    over = threading.Event()
    started = threading.Thread(target=over.wait)
    started.start()
    yield started
    over.set()
    started.join()


Chosen = Callable[..., threading.Event]


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> Chosen:
    """Has these chosen one after the other, then the last one; returns what tells that all were."""

    def choose(*processors: int | None, seen: list[set[int]] | None = None) -> threading.Event:
        left, told, main = list(processors), threading.Event(), threading.get_native_id()

        def next_(now: int | None, busy: object, own: float) -> int | None:
            if seen is not None and not told.is_set():
                seen.append(os.sched_getaffinity(main))
            if left:
                return left.pop(0)
            told.set()
            return now

        monkeypatch.setattr(one_processor, "FIRST_SECONDS", 0.001)
        monkeypatch.setattr(one_processor, "LOOK_SECONDS", 0.001)
        monkeypatch.setattr(one_processor, "choice", next_)
        return told

    return choose


def _of(thread: threading.Thread) -> set[int]:
    assert thread.native_id is not None
    return os.sched_getaffinity(thread.native_id)


def _policies(thread: threading.Thread) -> set[int]:
    assert thread.native_id is not None
    return {os.sched_getscheduler(0), os.sched_getscheduler(thread.native_id)}


def test_threads_of_before_and_of_later_share_one(thread: threading.Thread, chosen: Chosen) -> None:
    later: list[set[int]] = []
    told = chosen(ALLOWED[-1])
    with on_one_processor():
        assert told.wait(60)
        assert os.sched_getaffinity(0) == _of(thread) == {ALLOWED[-1]}
        assert _policies(thread) == {os.SCHED_BATCH}
        new = threading.Thread(target=lambda: later.append(os.sched_getaffinity(0)))
        new.start()
        new.join()
    assert later == [{ALLOWED[-1]}]
    assert os.sched_getaffinity(0) == _of(thread) == set(ALLOWED)
    assert _policies(thread) == {os.SCHED_OTHER}


def test_whoever_asked_for_a_policy_keeps_it(chosen: Chosen) -> None:
    told = chosen(ALLOWED[0])
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        with on_one_processor():
            assert told.wait(60)
        assert os.sched_getscheduler(0) == os.SCHED_BATCH
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def test_they_are_let_go_when_serving_fails(thread: threading.Thread, chosen: Chosen) -> None:
    told = chosen(ALLOWED[0])

    def serve() -> None:
        assert told.wait(60)
        assert os.sched_getaffinity(0) == {ALLOWED[0]}
        raise KeyError

    with pytest.raises(KeyError), on_one_processor():
        serve()
    assert os.sched_getaffinity(0) == _of(thread) == set(ALLOWED)


def test_where_it_moves_all_move(chosen: Chosen) -> None:
    """To every processor in turn, then nowhere in particular."""
    seen: list[set[int]] = []
    told = chosen(*ALLOWED, None, seen=seen)
    with on_one_processor():
        assert told.wait(60)
    assert seen == [set(ALLOWED), *({one} for one in ALLOWED), set(ALLOWED)]


def test_only_a_processor_we_may_use_is_chosen() -> None:
    """As in a container that was given some of them."""
    for only in ALLOWED:
        program = (
            f"import os; os.sched_setaffinity(0, {{{only}}})\n"
            "from api.one_processor import on_one_processor\n"
            "with on_one_processor(): print(os.sched_getaffinity(0))"
        )
        said = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout
        assert said == f"{{{only}}}\n"


def test_where_the_system_cannot_nothing_is_done(
    monkeypatch: pytest.MonkeyPatch, chosen: Chosen
) -> None:
    told = chosen(ALLOWED[0])
    monkeypatch.delattr(os, "sched_setaffinity")
    with on_one_processor():
        assert os.sched_getaffinity(0) == set(ALLOWED)
    assert not told.is_set()


@pytest.mark.parametrize(
    ("now", "busy", "own", "then"),
    [
        (0, {0: 0.0, 1: 0.0}, 0.0, 0),  # nothing to do
        (0, {0: 0.95, 1: 0.8}, 0.95, 0),  # the database beside us
        (0, {0: 1.0, 1: 1.0}, 0.8, 0),  # which also comes to ours now and then
        (0, {0: 1.0, 1: 1.0}, 0.5, None),  # others work everywhere
        (None, {0: 1.0, 1: 1.0}, 0.8, None),
        (None, {0: 1.0, 1: 0.9}, 0.8, 1),  # others need a little more than the processors left
        (None, {0: 0.7, 1: 0.6}, 0.5, 1),  # they have gone
        (0, {0: 1.0, 1: 0.1, 2: 0.2, 3: 0.1}, 0.5, 1),  # somebody is bound to ours
        (1, {0: 0.2, 1: 1.0, 2: 0.0, 3: 0.3}, 0.9, 1),  # not worth a move
        (0, {0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0}, 0.9, 0),  # others have three
    ],
)
def test_choice(now: int | None, busy: dict[int, float], own: float, then: int | None) -> None:
    assert choice(now, busy, own) == then


def test_what_the_kernel_says_is_read() -> None:
    before = one_processor._in_use(ALLOWED)
    assert before.keys() == set(ALLOWED)
    assert all(seconds > 0 for seconds in before.values())
