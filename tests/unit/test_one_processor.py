"""Threads kept on one processor, and let go again; all of it asked of the kernel."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from api.one_processor import on_one_processor


@pytest.fixture
def thread() -> Iterator[threading.Thread]:
    """One that was started before."""
    over = threading.Event()
    started = threading.Thread(target=over.wait)
    started.start()
    yield started
    over.set()
    started.join()


def _of(thread: threading.Thread) -> set[int]:
    assert thread.native_id is not None
    return os.sched_getaffinity(thread.native_id)


def test_threads_of_before_and_of_later_share_one(thread: threading.Thread) -> None:
    later: list[set[int]] = []
    allowed = os.sched_getaffinity(0)
    with on_one_processor():
        here = os.sched_getaffinity(0)
        assert len(here) == 1
        assert here <= allowed
        assert _of(thread) == here
        new = threading.Thread(target=lambda: later.append(os.sched_getaffinity(0)))
        new.start()
        new.join()
    assert later == [here]
    assert os.sched_getaffinity(0) == _of(thread) == allowed


def test_they_are_let_go_when_serving_fails(thread: threading.Thread) -> None:
    allowed = os.sched_getaffinity(0)
    with pytest.raises(KeyError), on_one_processor():
        raise KeyError
    assert os.sched_getaffinity(0) == _of(thread) == allowed


def test_only_a_processor_we_may_use_is_chosen() -> None:
    """As in a container that was given some of them."""
    for only in os.sched_getaffinity(0):
        program = (
            f"import os; os.sched_setaffinity(0, {{{only}}})\n"
            "from api.one_processor import on_one_processor\n"
            "with on_one_processor(): print(os.sched_getaffinity(0))"
        )
        said = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout
        assert said == f"{{{only}}}\n"


def test_where_the_system_cannot_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = os.sched_getaffinity(0)
    monkeypatch.delattr(os, "sched_setaffinity")
    with on_one_processor():
        assert os.sched_getaffinity(0) == allowed
