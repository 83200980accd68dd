"""Whatever the network takes at once, what arrives is the response, whole and in order."""

import hashlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from api.server import Server
from api.settings import Settings

MORE_THAN_FITS = 8 * 1024 * 1024
"""Bytes: beyond the socket's buffers and what waitress keeps before the writer has to wait."""


@contextmanager
def caller(parts: list[bytes]) -> Iterator[socket.socket]:
    """Somebody connected to a server that answers everything with these parts, a slow reader."""

    def application(_: dict[str, Any], start: Callable[..., object]) -> Iterable[bytes]:
        start("200 OK", [("Content-Length", str(sum(map(len, parts))))])
        return iter(parts)

    server = Server(application, Settings(port=0))
    serving = threading.Thread(target=server.run)
    serving.start()
    try:
        with socket.socket() as made:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            made.settimeout(60)
            made.connect(("127.0.0.1", server.port))
            yield made
    finally:
        server.stop()
        serving.join()


def asked(made: socket.socket, length: int) -> bytes:
    """Ask once, and return the body."""
    made.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = bytearray()
    while b"\r\n\r\n" not in answer:
        answer += made.recv(1024)
    body = answer[answer.index(b"\r\n\r\n") + 4 :]
    while len(body) < length:
        body += made.recv(1 << 20)
    return bytes(body)


@pytest.mark.parametrize(
    "sizes",
    [[], [1], [0, 5, 0], [MORE_THAN_FITS], [100_000] * 80, [1, MORE_THAN_FITS, 1]],
    ids=["nothing", "a byte", "empty parts", "one large part", "many parts", "mixed"],
)
def test_it_arrives_whole_and_in_order_every_time(sizes: list[int]) -> None:
    parts = [hashlib.shake_128(bytes([n % 256])).digest(size) for n, size in enumerate(sizes)]
    with caller(parts) as made:
        for _ in range(3):
            assert asked(made, sum(sizes)) == b"".join(parts)


def test_who_goes_away_in_the_middle_leaves_the_server_to_others() -> None:
    parts = [bytes(MORE_THAN_FITS)]
    with caller(parts) as first:
        first.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        first.recv(10)
        with socket.create_connection(first.getpeername(), 60) as other:
            first.close()
            assert asked(other, MORE_THAN_FITS) == parts[0]
