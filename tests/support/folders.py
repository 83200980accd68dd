"""Folders for servers that live as long as a test: short paths, open to the server's account (unlike
tmp_path as root), and in memory where there is room.

A fresh database is some three hundred files. To make and remove them on a disk takes a quarter of
a second of processor time, in memory a tenth of that, and the tests do it a thousand times. What is
killed in a test loses nothing there either: the memory is the system's, not the process's.
"""

import os
import tempfile
from pathlib import Path
from typing import Final

DISK: Final = Path("/tmp")
MEMORY: Final = Path("/dev/shm")
_ROOM: Final = 4 << 30  # bytes: a container's is some 64 MB, and a run needs more


def make(prefix: str, *, on_disk: bool = False) -> Path:
    """A new folder, closed to others. `on_disk`: for what is measured."""
    place = MEMORY if not on_disk and _is_fit(MEMORY) else DISK
    return Path(tempfile.mkdtemp(prefix=prefix, dir=place))


def _is_fit(place: Path) -> bool:
    """Whether there is room, and programs copied there would run."""
    try:
        found = os.statvfs(place)
    except OSError:
        return False
    room = found.f_bavail * found.f_frsize
    return room >= _ROOM and not found.f_flag & os.ST_NOEXEC and os.access(place, os.W_OK)
