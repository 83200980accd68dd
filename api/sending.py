"""A response leaves from the thread that made it, as far as the network takes it at once.

waitress would put it into a buffer first, and the thread that serves all connections would see something
to send and look again and again until it is gone: it took the interpreter from the thread that was
sending, and with both processors free that halved the rate. What does not fit goes waitress's way.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from waitress.channel import HTTPChannel  # type: ignore[import-untyped]  # it ships no types
from waitress.task import WSGITask  # type: ignore[import-untyped]


class PromptTask(WSGITask):  # type: ignore[misc]  # it ships no types
    """One request. The head of its response leaves with the first part of the body, in one packet."""

    def write(self, data: bytes) -> None:
        """Send a part of the body, and before the first one the head."""
        if self.wrote_header:
            super().write(data)
        else:
            with self.channel.together():
                super().write(data)


class PromptChannel(HTTPChannel):  # type: ignore[misc]  # it ships no types
    """One connection. Called by the thread that answers, while the other one may look at it."""

    task_class = PromptTask
    _kept: list[bytes] | None = None  # what is to leave together

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is written meanwhile leaves at the end, at once."""
        self._kept = []
        try:
            yield
        finally:
            kept, self._kept = self._kept, None
        self.write_soon(b"".join(kept))

    def write_soon(self, data: bytes) -> int:
        """Send `data`, or keep what cannot be sent yet; return how many bytes these are."""
        if self._kept is not None:
            self._kept.append(data)
            return len(data)
        sent = self._sent_at_once(data) if data and type(data) is bytes else 0
        if sent and sent == len(data):
            return sent
        return sent + int(super().write_soon(data[sent:] if sent else data))

    def _sent_at_once(self, data: bytes) -> int:
        """How many bytes the socket took; none if others wait before them."""
        with self.outbuf_lock:
            if self.total_outbufs_len or not self.connected:
                return 0
            try:
                sent = int(self.send(data, do_close=False))
            except OSError:
                return 0  # what it means is decided where it is sent again
            if sent:
                # Else a caller that has waited long for its answer is sent away right after it.
                self.last_activity = time.time()
            return sent
