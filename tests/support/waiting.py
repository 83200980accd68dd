"""Waiting in tests: for a condition, up to a deadline, never for a guessed time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], what: str, seconds: float = 60.0) -> T:
    """Poll until the condition is true and return its value; fail with `what` at the deadline.

    Long, for it is only ever used up by a failure: a loaded machine is no bug of ours.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)
    return value
