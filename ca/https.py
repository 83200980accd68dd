"""HTTPS connections to one server, kept and used again; one request, within limits of time and size.

It believes whom its context believes, tries nothing a second time, and knows no server. The standard
library's client does the work: one that can do more took a tenth of an issuance's processor time.
"""

import http.client
import select
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import Final, NamedTuple
from urllib.parse import urlsplit

MAX_ANSWER_BYTES: Final = 1024 * 1024
"""More than this is not read. A certificate takes 2 KiB, a page of provisioners some hundred."""

FAILURES: Final = (OSError, http.client.HTTPException)
"""What a connection raises that does not answer, or not in HTTP; a TimeoutError among them."""

_CHUNK: Final = 65536
_MOST_IDLE: Final = 32
_IDLE_SECONDS: Final = 20.0


class OutOfBoundsError(Exception):
    """The answer is too long, or drips in for too long."""


class Response(NamedTuple):
    """What was answered. `headers`: lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connections:
    """To one server, for any number of threads. Proxies of the environment are not used."""

    def __init__(self, url: str, context: ssl.SSLContext) -> None:
        """`url`: https://name:port and nothing more."""
        parsed = urlsplit(url)
        self._host, self._port = parsed.hostname or "", parsed.port
        self._context = context
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._idle: list[tuple[float, http.client.HTTPSConnection]] = []  # since when, oldest first
        self._closed = False
        self._lock = Lock()

    @contextmanager
    def one(self, timeout: float) -> Iterator[http.client.HTTPSConnection]:
        """A connection for one use, which connects with its first request, within `timeout` seconds.

        Whatever is raised while it is used, it is not used again.
        """
        connection = self._taken()
        connection.timeout = timeout
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        self._give_back(connection)

    def close(self) -> None:
        """Close those that are not in use, and the others after it."""
        with self._lock:
            idle, self._idle, self._closed = self._idle, [], True
        for _, connection in idle:
            connection.close()

    def _taken(self) -> http.client.HTTPSConnection:
        while True:
            with self._lock:
                if not self._idle:
                    return http.client.HTTPSConnection(
                        self._host, self._port, context=self._context
                    )
                since, connection = self._idle.pop()
            # One that the server has closed meanwhile would cost a try.
            if time.monotonic() - since < _IDLE_SECONDS and _is_silent(connection):
                return connection
            connection.close()

    def _give_back(self, connection: http.client.HTTPSConnection) -> None:
        with self._lock:
            keeps = not self._closed and len(self._idle) < _MOST_IDLE
            if keeps and connection.sock is not None:  # None: the server wanted it closed
                self._idle.append((time.monotonic(), connection))
                return
        connection.close()


def send(
    connection: http.client.HTTPSConnection,
    method: str,
    path: str,
    body: bytes | None,
    headers: Mapping[str, str],
    *,
    timeout: float,
) -> Response:
    """Send one request, and read the whole answer within `timeout` seconds. No redirect is followed.

    Raises:
        OutOfBoundsError.
        FAILURES: whatever else went wrong.
    """
    end = time.monotonic() + timeout
    if connection.sock is None:
        connection.connect()
    socket = connection.sock
    # The limit is for each wait: an answer that drips has no end, so the clock is looked at as well.
    socket.settimeout(timeout)
    connection.request(method, path, body, dict(headers))
    answer = connection.getresponse()
    found = bytearray()
    while chunk := answer.read1(_CHUNK):
        found += chunk
        if len(found) > MAX_ANSWER_BYTES or time.monotonic() > end:
            raise OutOfBoundsError
    answer.read()  # nothing is left; this tells the connection so
    named = {name.lower(): value for name, value in answer.getheaders()}
    return Response(answer.status, named, bytes(found))


def _is_silent(connection: http.client.HTTPSConnection) -> bool:
    """Whether nothing has come since the last answer: no end of the connection, above all."""
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return not poll.poll(0)
