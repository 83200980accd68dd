"""Asking a long record over HTTP: pages of every filter and combination, stories, exports.

The service is a process of its own on a made-up past; one client asks it one thing after the other.
Kinds of question take turns, and among them one that needs no search, so that a busy machine shows.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import httpx
import orjson
import psycopg
from grants import Service, running_service
from measuring import of_latencies, table, verdict

from ledger.terms import words_of
from support.databases import Database
from support.past import Past

GOAL: Final = 100.0  # ms, p99 of a page
_PAGE: Final = 100
_SIZES: Final = """SELECT pg_size_pretty(pg_table_size(c)), pg_size_pretty(pg_indexes_size(c)),
    (SELECT reltuples::int8 FROM pg_class WHERE oid = c)
    FROM (SELECT 'event_terms'::regclass AS c) t"""
_EVENT: Final = "SELECT stream_id, topic, body FROM ledger_events WHERE position = %s"
_PAIRS: Final = """SELECT topic, convert_from(body, 'UTF8')::jsonb #>> '{actor,id}', count(*)
    FROM ledger_events GROUP BY 1, 2 ORDER BY 3 DESC"""


@dataclass(frozen=True)
class Sample:
    """What one event of the past can be asked by."""

    position: int
    stream: str
    topic: str
    body: dict[str, Any]

    @property
    def word(self) -> str:
        return min(words_of(self.body["reason"] or "needed"), default="needed")

    @property
    def actor(self) -> str:
        return str(self.body["actor"]["id"])

    @property
    def name(self) -> str:
        data = self.body["data"]
        for key in ("serial", "accessor", "key_digest", "subject_user_id"):
            if isinstance(data.get(key), str):
                return str(data[key])
        return str(self.body["id"])


Ask = Callable[[Sample], Mapping[str, object]]
KINDS: Final[Mapping[str, Ask]] = {
    "nothing": lambda one: {},
    "topic": lambda one: {"topic": one.topic},
    "topics": lambda one: {"topic": f"{one.topic},grant.revoked.v1,certificate.revoked.v1"},
    "stream": lambda one: {"stream": one.stream},
    "actor": lambda one: {"actor": one.actor},
    "correlation": lambda one: {"correlation": one.body["correlation_id"]},
    "about": lambda one: {"about": one.name},
    "word": lambda one: {"words": one.word},
    "actor, topic": lambda one: {"actor": one.actor, "topic": one.topic},
    "actor, word": lambda one: {"actor": one.actor, "words": one.word},
    "topic, word": lambda one: {"topic": "grant.proposed.v1", "words": one.word},
    "about, topic": lambda one: {"about": one.name, "topic": one.topic},
    "everything": lambda one: {
        "actor": one.actor, "topic": one.topic, "words": one.word, "stream": one.stream,
        "about": one.stream,
    },
}  # fmt: skip


def pages(database: Database, home: Path, past: Past, rounds: int) -> None:
    """Print what a page of each kind takes, anywhere in the record, and the worst combinations."""
    print(f"\nAsking a record of {past.events} events", flush=True)
    dice = random.Random(1)
    with closing(psycopg.connect(database.superuser_dsn, autocommit=True)) as connection:
        (sizes,) = connection.execute(_SIZES).fetchall()
        print(f"  index of words: {sizes[2]} rows, {sizes[0]} and {sizes[1]} of its own index")
        samples = list(_samples(connection, past.events, rounds, dice))
        worst = _worst(connection)
    kinds: dict[str, Callable[[Sample], str]] = {
        "(one event)": lambda one: f"/v1/events/{one.position}"
    }
    for name, ask in KINDS.items():
        kinds[name] = lambda one, ask=ask: _url(ask(one), past.events, dice)  # type: ignore[misc]
    for number, (topic, actor) in enumerate(worst, 1):
        # Both are frequent, and no event has both.
        kinds[f"apart {number}"] = lambda one, t=topic, a=actor: _url(  # type: ignore[misc]
            {"topic": t, "actor": a}, past.events, dice
        )
    kinds["about/{id}"] = lambda one: f"/v1/about/{quote(one.name)}?limit={_PAGE}"
    with running_service(database, home, b"") as service, _client(service) as client:
        latencies: dict[str, list[float]] = {name: [] for name in kinds}
        for sample in samples[: max(3, rounds // 20)]:
            for make in kinds.values():
                client.get(make(sample)).raise_for_status()
        for sample in samples:
            for name, make in kinds.items():
                begun = time.perf_counter()
                client.get(make(sample)).raise_for_status()
                latencies[name].append(time.perf_counter() - begun)
        found = {name: of_latencies(each, sum(each)) for name, each in latencies.items()}
        table({name: [each] for name, each in found.items()})
        base = found["(one event)"].p50
        ratios = {name: each.p50 / base for name, each in found.items()}
        print("  times what showing one event takes: "
              + ", ".join(f"{name} {ratio:.1f}" for name, ratio in ratios.items()))  # fmt: skip
        verdict(
            "ms, p99 of the slowest page",
            max(each.p99 for each in found.values()),
            GOAL,
            GOAL,
            most=True,
        )
        _export(service, client, past.events)


def _samples(
    connection: psycopg.Connection[Any], events: int, count: int, dice: random.Random
) -> Iterator[Sample]:
    for _ in range(count):
        position = dice.randint(1, events)
        ((stream, topic, body),) = connection.execute(_EVENT, [position]).fetchall()
        yield Sample(position, str(stream), topic, orjson.loads(body))


def _worst(connection: psycopg.Connection[Any]) -> list[tuple[str, str]]:
    """Pairs of a frequent topic and a frequent actor who never did that."""
    rows = connection.execute(_PAIRS).fetchall()
    both = {(topic, actor) for topic, actor, _ in rows}
    topics: dict[str, int] = {}
    actors: dict[str, int] = {}
    for topic, actor, count in rows:
        topics[topic] = topics.get(topic, 0) + count
        actors[actor] = actors.get(actor, 0) + count
    apart = [
        (min(topics[topic], actors[actor]), topic, actor)
        for topic in topics
        for actor in actors
        if (topic, actor) not in both
    ]
    found = sorted(apart, reverse=True)[:3]
    print(
        "  apart: " + "; ".join(f"{t} ({topics[t]}) by {a[:8]} ({actors[a]})" for _, t, a in found)
    )
    return [(topic, actor) for _, topic, actor in found]


def _url(asked: Mapping[str, object], events: int, dice: random.Random) -> str:
    """A page somewhere: from either end, from a random position on."""
    newest_first = dice.random() < 0.5
    bound = {"before" if newest_first else "after": dice.randint(1, events)}
    if dice.random() < 0.3:
        bound = {}
    query = {**asked, **bound, "newest_first": str(newest_first).lower(), "limit": _PAGE}
    return f"/v1/events?{urlencode(query)}"


def _client(service: Service) -> httpx.Client:
    token = service.token.with_name("auditor.token")
    token = token if token.exists() else service.token
    return httpx.Client(
        base_url=f"http://127.0.0.1:{service.port}",
        headers={"Authorization": f"Bearer {token.read_text().strip()}"},
        timeout=600, trust_env=False,
    )  # fmt: skip


def _export(service: Service, client: httpx.Client, events: int) -> None:
    for kind in ("jsonl", "csv"):
        before, size = service.memory, 0
        service.forget_peak()
        begun = time.perf_counter()
        with client.stream("GET", f"/v1/export?format={kind}") as answer:
            answer.raise_for_status()
            for chunk in answer.iter_raw():
                size += len(chunk)
        took = time.perf_counter() - begun
        print(f"  export as {kind}: {events / took:.0f} events/s, {size / took / 2**20:.0f} MiB/s; "
              f"the service's memory {before:.0f} MiB before, "
              f"{service.peak_memory:.0f} MiB at most")  # fmt: skip
