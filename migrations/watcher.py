"""The process that stops the private PostgreSQL after its last client, and revives it before.

`python -m migrations.watcher HOME BINDIR GRACE DURABLE`, started by `embedded.py` and by nobody
else. It holds watch.lock as long as it lives, so there is one per home; it is no client, and
knows no password.
"""

import contextlib
import fcntl
import os
import sys
import time
from pathlib import Path

from migrations.binaries import EmbeddedError
from migrations.server import Server

_LOOK_EVERY = 0.25  # seconds
_LONGEST_PAUSE = 30.0  # seconds between tries to revive a server that will not start


def main(arguments: list[str]) -> int:
    home, bindir, grace, durable = arguments
    watch_lock = open_lock(Path(home) / "watch.lock")
    if not lock_exclusively(watch_lock):
        return 0  # one is watching already
    if os.fork():
        return 0  # who started us may go on: the lock is held, by the child
    os.setsid()
    server = Server(Path(home), Path(bindir), durable=durable == "durable")
    clients = open_lock(server.home / "clients.lock")
    while not _was_replaced(server.home, watch_lock):
        if _nobody_left(clients, float(grace)):
            server.stop()
            # In this order: whoever gets clients.lock next must find watch.lock free.
            os.close(watch_lock)
            os.close(clients)
            break
        _revive(server, clients)
        time.sleep(_LOOK_EVERY)
    return 0


def open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def lock_exclusively(handle: int) -> bool:
    """Take the lock if it is free or ours alone. A lock of ours is lost if this fails."""
    return _lock(handle, fcntl.LOCK_EX)


def lock_shared(handle: int) -> bool:
    """Take the lock unless someone has it exclusively."""
    return _lock(handle, fcntl.LOCK_SH)


def _lock(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _was_replaced(home: Path, watch_lock: int) -> bool:
    """True if the home was removed: what stands at its path now is not ours to stop."""
    try:
        return not os.path.samestat((home / "watch.lock").stat(), os.fstat(watch_lock))
    except OSError:
        return True


def _nobody_left(clients: int, grace: float) -> bool:
    """True, with clients.lock held, if there is no client now and none comes in `grace` seconds."""
    if not lock_exclusively(clients):
        return False
    fcntl.flock(clients, fcntl.LOCK_UN)
    time.sleep(grace)
    return lock_exclusively(clients)


def _revive(server: Server, clients: int, pause: float = 1.0) -> None:
    """Start the server again if it has died under its clients."""
    while not server.is_up() and server.exists():
        start_lock = open_lock(server.home / "start.lock")
        try:
            if not lock_exclusively(start_lock):
                return  # a client is at it
            if lock_exclusively(clients):
                fcntl.flock(clients, fcntl.LOCK_UN)
                return  # the last client has stopped it on purpose
            with contextlib.suppress(EmbeddedError):
                server.start(alone=False)
                return
        finally:
            os.close(start_lock)
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
