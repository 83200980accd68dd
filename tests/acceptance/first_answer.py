#!/usr/bin/env python3
"""How long until `./run` first answers that it is well: cold, then warm.

    tests/acceptance/first_answer.py

Cold: a copy of the tree without .venv, and a home that does not exist, so it includes installing,
making the database and the authority. Warm: the same again, the median of some starts. Ends with 1
when it took longer than it may. On a busy machine the clock shows what the others do: there a start
that was too slow by the clock is judged by the processor time it took itself.
"""

import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COLD, WARM = 45.0, 3.0  # seconds
WARM_STARTS = 5
NOT_COPIED = (".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", "*.egg-info")
GIVE_UP = 600.0
# Straight to it, whatever proxy the environment names.
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Start:
    """`clock` and `processor` in seconds, to the first healthy answer and of the whole run."""

    clock: float
    processor: float


def main() -> int:
    top = Path(tempfile.mkdtemp(prefix="fedledger-start-", dir="/tmp"))
    try:
        top.chmod(0o755)  # the server's account must get to the home
        tree = top / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*NOT_COPIED))
        cold = start(tree, top / "home", top / "log")
        warm = [start(tree, top / "home", top / "log") for _ in range(WARM_STARTS)]
        middle = Start(
            statistics.median(one.clock for one in warm),
            statistics.median(one.processor for one in warm),
        )
        good = [judge("cold", cold, COLD), judge("warm", middle, WARM)]
    finally:
        shutil.rmtree(top, ignore_errors=True)
    return 0 if all(good) else 1


def start(tree: Path, home: Path, log: Path) -> Start:
    """Start it, wait for the first healthy answer, and stop it in order."""
    all_ = os.environ.items()  # noqa: TID251 -- ours are left out, pip's are needed
    ours = {name: value for name, value in all_ if not name.startswith("FEDLEDGER_")}
    ours |= {"FEDLEDGER_HOME": str(home), "FEDLEDGER_PORT": "0", "FEDLEDGER_ORIGIN": "start.test"}
    before = spent()
    begun = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(
            [tree / "run"], env=ours, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        while not healthy(log):
            if process.poll() is not None or time.monotonic() - begun > GIVE_UP:
                raise SystemExit(f"it did not come up:\n{log.read_text(errors='replace')}")
            time.sleep(0.02)
        took = time.monotonic() - begun
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
    wait_for_the_database_to_end(home)
    return Start(took, spent() - before)


def healthy(log: Path) -> bool:
    """Whether it has said where it serves, and answers there that it is ready."""
    words = log.read_text(errors="replace").split()
    url = next((word for word in words if word.startswith("http://127.0.0.1:")), None)
    if url is None:
        return False
    try:
        with direct.open(f"{url}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False


def wait_for_the_database_to_end(home: Path) -> None:
    """So that every start has its own to start."""
    while (home / "data" / "postmaster.pid").exists():
        time.sleep(0.05)


def spent() -> float:
    """Processor time of all children that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def judge(what: str, found: Start, limit: float) -> bool:
    busy = os.getloadavg()[0] > (os.cpu_count() or 1)
    good = found.clock <= limit or (busy and found.processor <= limit)
    print(
        f"first healthy answer, {what}: {found.clock:.1f} s ({found.processor:.1f} s of processor "
        f"time to the end of the run; load {os.getloadavg()[0]:.1f}); at most {limit:g} s: "
        f"{'good' if good else 'TOO SLOW'}",
        flush=True,
    )
    return good


if __name__ == "__main__":
    sys.exit(main())
