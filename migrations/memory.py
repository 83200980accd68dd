"""How much memory the private server may keep its tables in. It reads what the system says and sets nothing."""

import os
from pathlib import Path
from typing import Final

_LEAST: Final = 128  # MiB; PostgreSQL's own default
_MOST: Final = 512
_SHARE: Final = 8
_LIMIT: Final = Path("/sys/fs/cgroup/memory.max")  # of a container; absent or "max" without one


def shared_buffers(total: int | None = None) -> int:
    """MiB: an eighth of what there is, from 128 to 512.

    With its default a past of a million events is read from the system's cache again and again, page by
    page: lists as of a moment took twice as long. It takes what it reads, not all of it at the start.

    total: bytes there are; None: what this machine or container has.
    """
    share = (_total() if total is None else total) // _SHARE // 2**20
    return max(_LEAST, min(_MOST, share))


def _total() -> int:
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(machine, int(_LIMIT.read_text()))
    except (OSError, ValueError):
        return machine
