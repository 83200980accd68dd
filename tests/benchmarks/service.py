"""The child process: the whole service on a given database, with our recorder or the library's.

    python tests/benchmarks/service.py HOME SERVICE_DSN [LIBRARY_DSN]

With LIBRARY_DSN the ledger's events go to, and come from, the library's own recorder; all else is
the same, but that no state is remembered: that recorder refuses no append on one that has moved. It
prints the line that says it is ready.
"""

import sys
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from contenders import library_recorder  # noqa: E402

from api import wiring  # noqa: E402
from api.settings import Settings  # noqa: E402
from ledger.application import Ledger  # noqa: E402
from ledger.remembering import Remembered  # noqa: E402


def main(home: str, dsn: str, library_dsn: str | None = None) -> None:
    settings = Settings(home=Path(home), dsn=dsn, port=0, threads=16)
    if library_dsn:
        ours = wiring.open_ledger

        def theirs(*arguments: Any, **more: Any) -> Ledger:
            return _on_library(ours(*arguments, **more), library_dsn)

        wiring.open_ledger = theirs
    wiring.serve(settings, lambda line: print(line, flush=True))


def _on_library(ledger: Ledger, dsn: str) -> Ledger:
    """What only our recorder stores (reads, claims, rows) is not even computed for the other."""
    recorder = library_recorder(dsn)
    ledger.recorder = ledger.events.recorder = recorder
    ledger._inline.clear()
    ledger._remembered = Remembered(most=0)
    return ledger


if __name__ == "__main__":
    main(*sys.argv[1:])
