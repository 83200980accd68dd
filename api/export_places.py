"""What exports need beside the record: the key that signs them, and room for a few at a time."""

import threading
from dataclasses import dataclass, field
from typing import Final

from api.log_key import LogKey

_AT_ONCE: Final = 2  # each holds a thread and a connection for as long as its reader takes


@dataclass(frozen=True, slots=True)
class Exports:
    """`places` is acquired for each export under way."""

    key: LogKey
    places: threading.BoundedSemaphore = field(
        default_factory=lambda: threading.BoundedSemaphore(_AT_ONCE)
    )
