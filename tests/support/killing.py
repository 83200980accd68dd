"""A process that is killed while it writes files: nothing after that moment happens."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


class KilledError(BaseException):
    """The process is no more: nothing after this, clearing up included, happens."""


class Killer:
    """Kills after the n-th thing that reaches the disk, and before the next."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int) -> None:
        self._left = at
        self.dead = False
        for where, name in (
            (os, "fsync"), (os, "link"), (Path, "rename"), (Path, "unlink"), (Path, "mkdir"),
        ):  # fmt: skip
            patch.setattr(where, name, self._watched(getattr(where, name)))

    def _watched(self, original: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: Any, **named: Any) -> object:
            if self.dead:
                raise KilledError
            self._left -= 1
            if self._left >= 0:
                return original(*arguments, **named)
            self.dead = True
            raise KilledError

        return call
