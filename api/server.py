"""Serves the application over HTTP with waitress, and ends without losing a request in flight.

It chooses no parts and knows no operation. TLS ends in a proxy in front, or nowhere: without one
only loopback is bound (`api/settings.py` sees to that).
"""

import gc
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

import structlog
from waitress import wasyncore  # type: ignore[import-untyped]  # it ships no types
from waitress.server import create_server  # type: ignore[import-untyped]

from api.client_certificates import believing
from api.sending import PromptChannel
from api.settings import Settings

_logger: Final = structlog.get_logger("fedledger.server")

DRAIN_SECONDS: Final = 20.0
"""How long requests in flight may take after SIGTERM: more than any of our own limits."""

LINGER_SECONDS: Final = 0.5
"""How long a connection that has sent nothing yet is kept at the end: its request may be on the way."""

_MAX_BODY: Final = (
    1024 * 1024
)  # beyond the application's own 256 KiB, which gives a problem document
# Bytes written and not yet sent; beyond them whoever writes a stream waits for whoever reads it. With
# waitress's own 16 MiB each thread's heap kept some ten MiB of the first export that came by it.
_UNSENT: Final = 256 * 1024
_IDLE_SECONDS: Final = 20
# Made before the garbage collector looks at them. At Python's 700 it took 3 % of the processor time: with
# many requests at once, most objects were of those that still ran.
_NEW_OBJECTS: Final = 5000
_CONNECTIONS: Final = 1000


class Server:
    """A bound socket and its threads. `port` is the one in use, also when 0 was asked for."""

    def __init__(
        self,
        app: Callable[..., Any],
        settings: Settings,
        ending: Callable[[], object] = lambda: None,
    ) -> None:
        self._ending = ending
        self._server: Any = create_server(app, **_adjustments(settings))
        self._server.channel_class = PromptChannel
        if settings.client_certificates != "off":
            # Put round what waitress has put round it: behind that, the proxy's address is gone.
            self._server.application = believing(
                self._server.application, settings.trusted_proxy, settings.client_certificates
            )
        self._stopping = threading.Event()
        self.port = int(self._server.effective_port)

    def run(self) -> None:
        """Serve until `stop`, then finish what is in flight."""
        channels = self._server._map  # noqa: SLF001 - waitress has no public loop with an end
        while not self._stopping.is_set():
            wasyncore.loop(timeout=1.0, use_poll=True, map=channels, count=1)
        self._ending()
        self._drain(channels)
        self._server.task_dispatcher.shutdown(timeout=1)
        wasyncore.close_all(channels, ignore_all=True)

    def stop(self) -> None:
        """Begin to end. May be called from a signal handler or another thread."""
        self._stopping.set()
        self._server.pull_trigger()

    def _accept_all(self) -> None:
        """Take in the connections that the kernel has made for us and nobody has looked at yet.

        Closing the listener would reset them: their clients believe they are connected.
        """
        known = -1
        while known < len(self._server.active_channels):
            known = len(self._server.active_channels)
            self._server.handle_accept()

    def _drain(self, channels: dict[int, Any]) -> None:
        """Take no new connection; answer every request that has begun or is on its way.

        waitress's own end stops the loop that sends: an answer computed afterwards is lost.
        """
        self._accept_all()
        wasyncore.dispatcher.close(self._server)
        begun = time.monotonic()
        while time.monotonic() < begun + DRAIN_SECONDS:
            busy = lingering = time.monotonic() < begun + LINGER_SECONDS
            for channel in list(self._server.active_channels.values()):
                if channel.requests or channel.total_outbufs_len or channel.request is not None:
                    busy = True
                elif not lingering:
                    channel.will_close = True
            if not busy:
                return
            wasyncore.loop(timeout=0.05, use_poll=True, map=channels, count=1)
        _logger.warning("requests were still in flight at the end")


def serve(
    app: Callable[..., Any],
    settings: Settings,
    announce: Callable[[str], object],
    ending: Callable[[], object] = lambda: None,
) -> None:
    """Serve until SIGTERM or SIGINT. `announce` gets the one line that says we are ready.

    `ending` is called when the end begins, so that calls which only wait go home.
    """
    server = Server(app, settings, ending)

    def stop(_number: int, _frame: FrameType | None) -> None:
        server.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        announce(f"fedledger ready on http://{_shown(settings.host)}:{server.port}")
        with collecting_seldom():
            server.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def collecting_seldom() -> Iterator[None]:
    """Until the end the garbage collector leaves alone what is here by now, the program and what it was
    put together of, and looks at new objects less often: nearly all go with their request."""
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def _adjustments(settings: Settings) -> dict[str, object]:
    host = "127.0.0.1" if settings.host == "localhost" else settings.host
    chosen: dict[str, object] = {
        "listen": f"{_shown(host)}:{settings.port}",
        "threads": settings.threads,
        "connection_limit": _CONNECTIONS,
        "channel_timeout": _IDLE_SECONDS,
        "cleanup_interval": 5,
        "max_request_body_size": _MAX_BODY,
        "max_request_header_size": 32 * 1024,
        "outbuf_high_watermark": _UNSENT,
        "ident": None,
        "clear_untrusted_proxy_headers": True,
    }
    if settings.behind_proxy:
        chosen |= {
            "trusted_proxy": settings.trusted_proxy,
            "trusted_proxy_count": 1,
            "trusted_proxy_headers": {"x-forwarded-for"},
        }
    return chosen


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
