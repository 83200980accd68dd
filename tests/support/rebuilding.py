"""A process that rebuilds, to be killed: `python -m support.rebuilding DSN SOURCE CHUNK PROCESSES`.

It prints the phase and the events copied after each step, flushed, and waits for a line of its input
after each, so that the test decides where it dies.
"""

import sys

from projections.progress import Progress
from projections.rebuild import RebuildAbortedError, rebuild
from projections.registry import SOURCES


def tell(progress: Progress) -> None:
    print(progress.phase, progress.events, flush=True)
    if not sys.stdin.readline():
        raise SystemExit(3)


if __name__ == "__main__":
    dsn, name, chunk, processes = sys.argv[1:]
    source = next(each for each in SOURCES if each.name == name)
    try:
        rebuild(dsn, source, chunk=int(chunk), processes=int(processes), pause=10, tell=tell)
    except RebuildAbortedError:
        print("aborted", flush=True)
