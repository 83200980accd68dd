"""Rounds of work in threads: rates, percentiles, medians. It knows nothing of what it measures.

The threads share a processor as the service's do, whoever's work it is; FEDLEDGER_PROCESSORS=all lets
them go.
"""

import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from api.one_processor import on_one_processor
from api.server import collecting_seldom
from api.settings import load

Work = Callable[[], object]


@dataclass(frozen=True)
class Round:
    """`rate` a second; `p50`, `p99` and `worst` in milliseconds."""

    rate: float
    p50: float
    p99: float
    worst: float


Measure = Callable[[int, float], Round]
"""One round of so many threads and seconds."""


def of_latencies(latencies: Sequence[float], took: float) -> Round:
    """`latencies` and `took` in seconds."""
    ordered = sorted(latencies)
    p50, p99 = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
    return Round(len(ordered) / took, 1000 * p50, 1000 * p99, 1000 * ordered[-1])


@contextmanager
def as_served() -> Iterator[None]:
    """Threads placed as the service places its own, and garbage collected as seldom."""
    with collecting_seldom(), on_one_processor() if load().processors == "one" else nullcontext():
        yield


def timed(work: Sequence[Work], seconds: float, *, placed: bool = True) -> Round:
    """Run each of `work` in a thread of its own, over and over. The first failure is raised.

    `placed`: as the service places its threads.
    """
    ready = threading.Barrier(len(work) + 1)
    latencies: list[list[float]] = [[] for _ in work]
    failures: list[Exception] = []
    end = [0.0]

    def run(number: int) -> None:
        each, mine = work[number], latencies[number]
        try:
            each()  # connections, prepared statements
            ready.wait()
            ready.wait()
            while (start := time.perf_counter()) < end[0]:
                each()
                mine.append(time.perf_counter() - start)
        except Exception as error:  # noqa: BLE001 - raised below, in the thread that asked
            failures.append(error)
            ready.abort()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(work))]
    with as_served() if placed else nullcontext():
        for thread in threads:
            thread.start()
        try:
            ready.wait()
            began = time.perf_counter()
            end[0] = began + seconds
            ready.wait()
        except threading.BrokenBarrierError:
            began = time.perf_counter()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]
    return of_latencies([one for each in latencies for one in each], time.perf_counter() - began)


def interleaved(measures: Mapping[str, Callable[[], Round]], rounds: int) -> dict[str, list[Round]]:
    """Let each have its round in turn, so that a busy machine slows all alike."""
    results: dict[str, list[Round]] = {name: [] for name in measures}
    names = list(measures)
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            results[name].append(measures[name]())
    return results


def median(results: Sequence[Round], value: Callable[[Round], float]) -> float:
    return statistics.median(map(value, results))


def ratio(
    ours: Sequence[Round], base: Sequence[Round], value: Callable[[Round], float] = lambda r: r.rate
) -> float:
    """The median of the ratios of rounds that ran side by side."""
    return statistics.median(
        value(one) / value(other) for one, other in zip(ours, base, strict=True)
    )


def table(results: Mapping[str, Sequence[Round]]) -> None:
    for name, each in results.items():
        rates = [one.rate for one in each]
        print(
            f"  {name:<20} {statistics.median(rates):>7.0f}/s ({min(rates):.0f} to {max(rates):.0f})"
            f"  p50 {median(each, lambda r: r.p50):7.2f} ms"
            f"  p99 {median(each, lambda r: r.p99):7.2f} ms"
            f"  worst {max(one.worst for one in each):7.1f} ms",
            flush=True,
        )


def verdict(what: str, found: float, goal: float, floor: float, *, most: bool = False) -> None:
    """Print a figure against its goal and the floor below (`most`: above) which it is a failure."""
    if most:
        found_, goal_, floor_ = -found, -goal, -floor
    else:
        found_, goal_, floor_ = found, goal, floor
    said = "met" if found_ >= goal_ else "within the floor" if found_ >= floor_ else "MISSED"
    sign = "<=" if most else ">="
    floors = "" if goal == floor else f", floor {floor:g}"
    print(f"  -> {what}: {found:.2f} (goal {sign} {goal:g}{floors}): {said}", flush=True)
