"""A response leaves from the thread that made it, as far as the network takes it at once.

waitress would put it into a buffer first, and the thread that serves all connections would see something
to send and look again and again until it is gone: it took the interpreter from the thread that was
sending, and with both processors free that halved the rate. What does not fit goes waitress's way.
"""

import time

from waitress.channel import HTTPChannel  # type: ignore[import-untyped]  # it ships no types


class PromptChannel(HTTPChannel):  # type: ignore[misc]  # it ships no types
    """One connection. Called by the thread that answers, while the other one may look at it."""

    def write_soon(self, data: bytes) -> int:
        """Send `data`, or keep what cannot be sent yet; return how many bytes these are."""
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
