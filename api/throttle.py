"""Counts what one source may do in a minute. In this process only; it refuses nothing itself.

Secrets have 256 bits, so this is not what keeps guesses out: it bounds the work and the records
that a stranger can cause. Without it a stranger could fill the ledger with denials.
"""

import ipaddress
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from math import ceil

_MOST_SOURCES = 20_000  # then the one unseen for longest is forgotten


@lru_cache(maxsize=1024)
def source_of(address: str | None) -> str:
    """The unit that is counted: an IPv4 address, or an IPv6 /64, which one host can hold whole."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False).network_address) + "/64"
    return str(parsed)


@dataclass
class Throttle:
    """A token bucket per source: `per_minute` at once, refilled evenly.

    `seconds` gives monotonic time in seconds.
    """

    per_minute: int
    seconds: Callable[[], float]
    _buckets: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, source: str) -> int:
        """Count one act of `source`. Returns 0 if allowed, else the whole seconds to wait."""
        now, rate = self.seconds(), self.per_minute / 60
        with self._lock:
            left, seen = self._buckets.pop(source, (float(self.per_minute), now))
            left = min(float(self.per_minute), left + (now - seen) * rate)
            wait = 0 if left >= 1 else max(1, ceil((1 - left) / rate))
            self._buckets[source] = (left - 1 if wait == 0 else left, now)
            if len(self._buckets) > _MOST_SOURCES:
                self._buckets.popitem(last=False)
        return wait
