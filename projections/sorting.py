"""Sorts more lines than memory holds: sorted runs in files, merged as they are read. It knows no table."""

import heapq
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

RUN: Final = 50_000
"""Lines of a run: some 40 MiB of rows."""


class SortedLines:
    """Takes lines (each ended by LF, no other LF in it) in any order, gives them in that of bytes."""

    def __init__(self, folder: Path, name: str, run: int = RUN) -> None:
        """`folder` is the caller's, who removes it; `name`: of the files in it."""
        self._folder = folder
        self._name = name
        self._run = run
        self._held: list[bytes] = []
        self._runs: list[Path] = []

    def add(self, line: bytes) -> None:
        self._held.append(line)
        if len(self._held) >= self._run:
            self._spill()

    def __iter__(self) -> Iterator[bytes]:
        self._held.sort()
        with ExitStack() as stack:
            files = [stack.enter_context(path.open("rb")) for path in self._runs]
            yield from heapq.merge(*files, self._held)

    def _spill(self) -> None:
        path = self._folder / f"{self._name}.{len(self._runs)}"
        self._held.sort()
        with path.open("wb") as file:
            file.writelines(self._held)
        self._runs.append(path)
        self._held = []
