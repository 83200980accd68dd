"""HTTPS connections to one server, kept and used again; one request, within limits of time and size.

It believes whom its context believes, tries nothing a second time, and knows no server. What is said on
a connection is the business of `ca/http1.py`.
"""

import select
import ssl
import time
from collections.abc import Mapping
from socket import IPPROTO_TCP, TCP_NODELAY, create_connection
from threading import Lock
from typing import Final
from urllib.parse import urlsplit

from ca.http1 import HttpError, Response, exchange, request

FAILURES: Final = (OSError, HttpError)
"""What a connection raises that does not answer, or not in HTTP; a TimeoutError among them."""

_PORT: Final = 443
_MOST_IDLE: Final = 32
_IDLE_SECONDS: Final = 20.0


class Connections:
    """To one server, for any number of threads. Proxies of the environment are not used."""

    def __init__(self, url: str, context: ssl.SSLContext) -> None:
        """`url`: https://name:port and nothing more."""
        parsed = urlsplit(url)
        self._name, self._port = parsed.hostname or "", parsed.port or _PORT
        self._host = parsed.netloc.encode("idna").decode()
        self._context = context
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._idle: list[tuple[float, ssl.SSLSocket]] = []  # since when, oldest first
        self._closed = False
        self._lock = Lock()

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        *,
        timeout: float,
    ) -> Response:
        """Send one request, and read the whole answer within `timeout` seconds. No redirect is followed.

        Whatever is raised, the connection it happened on is not used again.

        Raises:
            OutOfBoundsError.
            FAILURES: whatever else went wrong.
        """
        end = time.monotonic() + timeout
        sent = request(method, self._host, path, headers, body)
        stream = self._taken() or self.connect(timeout)
        try:
            response, keeps = exchange(stream, sent, end)
        except BaseException:
            stream.close()
            raise
        self._give_back(stream, keeps)
        return response

    def connect(self, timeout: float) -> ssl.SSLSocket:
        """Return a new connection, which is the caller's. `timeout`: seconds for each step.

        Raises:
            FAILURES: there is none to be had, or the server is not believed.
        """
        plain = create_connection((self._name, self._port), timeout)
        try:
            plain.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
            return self._context.wrap_socket(plain, server_hostname=self._name)
        except BaseException:
            plain.close()
            raise

    def close(self) -> None:
        """Close those that are not in use, and the others after it."""
        with self._lock:
            idle, self._idle, self._closed = self._idle, [], True
        for _, stream in idle:
            stream.close()

    def _taken(self) -> ssl.SSLSocket | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                since, stream = self._idle.pop()
            # One that the server has closed meanwhile would cost a try.
            if time.monotonic() - since < _IDLE_SECONDS and _is_silent(stream):
                return stream
            stream.close()

    def _give_back(self, stream: ssl.SSLSocket, keeps: bool) -> None:
        with self._lock:
            if keeps and not self._closed and len(self._idle) < _MOST_IDLE:
                self._idle.append((time.monotonic(), stream))
                return
        stream.close()


def _is_silent(stream: ssl.SSLSocket) -> bool:
    """Whether nothing has come since the last answer: no end of the connection, above all."""
    poll = select.poll()
    poll.register(stream, select.POLLIN)
    return not poll.poll(0)
