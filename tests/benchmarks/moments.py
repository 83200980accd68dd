"""Reading states over HTTP, now and as of earlier moments: one object, and a page of 100 by each filter.

On a made-up past, through the whole service in a process of its own; one request at a time, those of
now and of each distance in turn. What is printed as `distance` is how many days ago the moment is.
"""

import http.client
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from grants import running_service
from measuring import Round, of_latencies, table, verdict

from ledger.canonical import format_time
from support.databases import Database
from support.past import Past

OBJECT: Final = 15.0  # milliseconds, p99
PAGE: Final = 50.0
SOME: Final = "some"
"""In a filter: the value that a grant of the last page has, another in every round."""
FILTERS: Final[Sequence[tuple[str, dict[str, str]]]] = (
    ("grants", {}),
    *(("grants", {"status": status}) for status in (
        "pending_approval", "pending_enrollment", "active", "suspended", "expired", "revoked",
        "rejected",
    )),
    ("grants", {"sensitive": "true"}),
    ("grants", {"resource": "api_keys"}),
    ("peers", {}),
    ("peers", {"state": "suspended"}),
    ("certificates", {}),
    *(("certificates", {"state": state}) for state in ("issued", "revoked", "failed")),
    ("certificates", {"sensitive": "true"}),
    ("certificates", {"resource": "api_keys"}),
    ("certificates", {"state": "authorized"}),
    *((noun, {name: SOME}) for noun in ("grants", "certificates")
      for name in ("peer_id", "subject_user_id")),
)  # fmt: skip


@dataclass
class Caller:
    """One keep-alive connection to the service."""

    connection: http.client.HTTPConnection
    token: str

    def get(self, path: str) -> tuple[float, Any]:
        """Seconds until the whole answer was there, and the answer."""
        began = time.perf_counter()
        self.connection.request("GET", path, headers={"Authorization": f"Bearer {self.token}"})
        answer = self.connection.getresponse()
        body = answer.read()
        took = time.perf_counter() - began
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {body[:500]!r}")
        return took, json.loads(body)


def measure(database: Database, home: Path, past: Past, rounds: int) -> None:
    """Print the latencies of everything, now and at five distances."""
    last = past.last
    span = last - past.first
    moments: list[datetime | None] = [
        None, *(last - span * share for share in (0.001, 0.05, 0.25, 0.5, 0.9))
    ]  # fmt: skip
    with running_service(database, home, b"") as running:
        caller = Caller(
            http.client.HTTPConnection("127.0.0.1", running.port),
            (home / "auditor.token").read_text().strip(),
        )
        _objects(caller, moments, last, rounds)
        _pages(caller, moments, last, rounds)


def _suffix(moment: datetime | None) -> dict[str, str]:
    return {} if moment is None else {"as_of": format_time(moment)}


def _name(moment: datetime | None, last: datetime) -> str:
    return "now" if moment is None else f"{(last - moment) / timedelta(days=1):.0f} days"


def _objects(
    caller: Caller, moments: Sequence[datetime | None], last: datetime, rounds: int
) -> None:
    results: dict[str, list[Round]] = {}
    for moment in moments:
        latencies: list[float] = []
        for noun, key in (("grants", "id"), ("peers", "id"), ("certificates", "serial")):
            query = urlencode({"limit": 200, **_suffix(moment)})
            items = caller.get(f"/v1/{noun}?{query}")[1]["items"]
            for item in items[:rounds]:
                path = f"/v1/{noun}/{item[key]}?{urlencode(_suffix(moment))}"
                latencies.append(caller.get(path)[0])
        results[f"one, {_name(moment, last)}"] = [of_latencies(latencies, sum(latencies))]
    print("\nOne grant, peer or certificate")
    table(results)
    verdict(
        "ms, p99 of one object",
        max(r[0].p99 for r in results.values()),
        OBJECT,
        OBJECT * 3,
        most=True,
    )


def _pages(caller: Caller, moments: Sequence[datetime | None], last: datetime, rounds: int) -> None:
    worst = 0.0
    some = caller.get("/v1/grants?limit=500")[1]["items"]
    for noun, filters in FILTERS:
        results: dict[str, list[Round]] = {}
        counts: dict[str, int] = {}
        latencies: dict[str, list[float]] = {_name(moment, last): [] for moment in moments}
        for number in range(rounds):
            asked = {
                name: some[number % len(some)][name] if value == SOME else value
                for name, value in filters.items()
            }
            for moment in moments:
                query = urlencode({"limit": 100, **asked, **_suffix(moment)})
                took, answer = caller.get(f"/v1/{noun}?{query}")
                latencies[_name(moment, last)].append(took)
                counts[_name(moment, last)] = len(answer["items"])
        for name, each in latencies.items():
            results[f"{name}, {counts[name]} rows"] = [of_latencies(each, sum(each))]
        print(f"\n/v1/{noun}?{urlencode(filters)}")
        table(results)
        worst = max(worst, *(r[0].p99 for r in results.values()))
    verdict("ms, p99 of the slowest page of 100", worst, PAGE, PAGE * 3, most=True)
