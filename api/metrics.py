"""What happens here, counted for Prometheus. It keeps numbers only and decides nothing.

Labels are operation names, status classes and authorities: never an id that a caller chooses, so
the number of series is bounded however many there are who call.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

CERTIFICATE_SPANS: Final[Mapping[str, timedelta]] = {
    "0.25": timedelta(hours=6),
    "1": timedelta(days=1),
    "7": timedelta(days=7),
    "30": timedelta(days=30),
    "365": timedelta(days=365),
}
"""Label `days` → within which a certificate ends. Each counts those of the shorter ones too."""

_NO_OPERATION: Final = "none"  # no such path, or no such method
_SECONDS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Standing:
    """What is true at the moment of a look.

    certificates: label `days` → how many. authorities: id, kind, end of those in use.
    lists: authority, end of its last revocation list if any, revoked certificates not on it.
    pools: name → connections in use, connections open.
    """

    version: str
    position: int
    open_alarms: int
    open_issuances: int
    lost_history: bool
    certificates: Mapping[str, int]
    authorities: Sequence[tuple[UUID, str, datetime]]
    lists: Sequence[tuple[UUID, datetime | None, int]]
    pools: Mapping[str, tuple[int, int]]


class Metrics:
    """The counters of one process; also the ledger's observer. Thread-safe."""

    def __init__(self) -> None:
        # Our own registry: the library's is one per process, and a process may hold two ledgers.
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "fedledger_requests", "Requests answered.", ["operation", "status"], registry=registry
        )
        self._request_seconds = Histogram(
            "fedledger_request_seconds", "From the request's arrival to its answer.",
            ["operation"], buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._appends = Counter(
            "fedledger_appends", "Appends by outcome.", ["outcome"], registry=registry
        )
        self._append_seconds = Histogram(
            "fedledger_append_seconds", "One append: queue and commit.",
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._events = Counter("fedledger_events_appended", "Events written.", registry=registry)
        self._batch_appends = Histogram(
            "fedledger_batch_appends", "Appends committed together.",
            buckets=_SIZES, registry=registry,
        )  # fmt: skip
        self._commit_seconds = Histogram(
            "fedledger_commit_seconds", "One batch's commit.", buckets=_SECONDS, registry=registry
        )
        self._standing = _Gauges(registry)
        # Series that are there from the beginning.
        self._written, self._refused = map(self._appends.labels, ("written", "refused"))
        self._series: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    def request(self, operation: str | None, status: int, seconds: float) -> None:
        """Count one answered request; `operation` is a row's name, None where none was found."""
        name, hundreds = operation or _NO_OPERATION, status // 100
        found = self._series.get((name, hundreds))
        if found is None:  # finding them by their labels takes as long as counting
            found = (
                self._requests.labels(name, f"{hundreds}xx"),
                self._request_seconds.labels(name),
            )
            self._series[name, hundreds] = found
        counter, histogram = found
        counter.inc()
        histogram.observe(seconds)

    def batch(self, appends: int, events: int, seconds: float) -> None:
        """See `ledger.sequencer.Observer`."""
        self._batch_appends.observe(appends)
        self._events.inc(events)
        self._commit_seconds.observe(seconds)

    def append(self, seconds: float, *, written: bool) -> None:
        """See `ledger.sequencer.Observer`."""
        (self._written if written else self._refused).inc()
        self._append_seconds.observe(seconds)

    def render(self, standing: Standing) -> bytes:
        """Everything in Prometheus' text format 0.0.4 (`CONTENT_TYPE`)."""
        self._standing.take(standing)
        return generate_latest(self._registry)


class _Gauges:
    """What is not counted but looked up when somebody asks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"fedledger_{name}", text, labels, registry=registry)

        self._build = gauge("build_info", "Always 1.", "version")
        self._position = gauge("head_position", "The last event's position.")
        self._alarms = gauge("open_alarms", "Alarms nobody has acknowledged.")
        self._issuances = gauge("open_issuances", "Certificates authorized, not yet closed.")
        self._lost = gauge("lost_history", "1: the database lost events, nothing is written.")
        self._certificates = gauge(
            "certificates_ending", "Valid certificates that end within so many days.", "days"
        )
        self._authorities = gauge(
            "authority_end_timestamp_seconds", "When an authority in use ends.", "authority", "kind"
        )
        self._list_end = gauge(
            "crl_next_update_timestamp_seconds",
            "When an authority's last revocation list ends; 0: it has none.", "authority",
        )  # fmt: skip
        self._unlisted = gauge(
            "crl_unlisted_certificates", "Revoked for over a minute, not on the list.", "authority"
        )
        self._pool = gauge("pool_connections", "Database connections for reading.", "pool", "state")

    def take(self, standing: Standing) -> None:
        self._build.labels(standing.version).set(1)
        self._position.set(standing.position)
        self._alarms.set(standing.open_alarms)
        self._issuances.set(standing.open_issuances)
        self._lost.set(standing.lost_history)
        for days, count in standing.certificates.items():
            self._certificates.labels(days).set(count)
        self._authorities.clear()  # one that was retired must not be warned of for ever
        for id_, kind, end in standing.authorities:
            self._authorities.labels(str(id_), kind).set(end.timestamp())
        for lists in (self._list_end, self._unlisted):
            lists.clear()
        for id_, list_end, unlisted in standing.lists:
            self._list_end.labels(str(id_)).set(list_end.timestamp() if list_end else 0)
            self._unlisted.labels(str(id_)).set(unlisted)
        for name, (used, size) in standing.pools.items():
            self._pool.labels(name, "used").set(used)
            self._pool.labels(name, "open").set(size)
