"""Whatever the network takes at once, what arrives is the response, whole and in order."""

import hashlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from api.sending import PromptChannel
from api.server import Server
from api.settings import Settings

MORE_THAN_FITS = 8 * 1024 * 1024
"""Bytes: beyond the socket's buffers and what waitress keeps before the writer has to wait."""


Application = Callable[[dict[str, Any], Callable[..., object]], Iterable[bytes]]


@contextmanager
def serving(application: Application) -> Iterator[int]:
    """The port of a server that answers everything with this."""
    server = Server(application, Settings(port=0))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server.port
    finally:
        server.stop()
        thread.join()


@contextmanager
def caller(parts: list[bytes]) -> Iterator[socket.socket]:
    """Somebody connected to a server that answers everything with these parts, a slow reader."""

    def application(_: dict[str, Any], start: Callable[..., object]) -> Iterable[bytes]:
        start("200 OK", [("Content-Length", str(sum(map(len, parts))))])
        return iter(parts)

    with serving(application) as port, socket.socket() as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.settimeout(60)
        made.connect(("127.0.0.1", port))
        yield made


def asked(made: socket.socket, length: int) -> bytes:
    """Ask once, and return the body."""
    made.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = bytearray()
    while b"\r\n\r\n" not in answer:
        answer += received(made)
    body = answer[answer.index(b"\r\n\r\n") + 4 :]
    while len(body) < length:
        body += received(made)
    return bytes(body)


def received(made: socket.socket) -> bytes:
    part = made.recv(1 << 20)
    assert part, "the server has closed the connection"
    return part


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


def test_the_head_leaves_with_what_follows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cases: list[tuple[str, list[bytes], list[int]]] = [  # how many bytes of the body in each send
        ("200 OK", [b"whole"], [5]),
        ("200 OK", [b"one", b"two"], [3, 3]),
        ("200 OK", [b"", b"late"], [4]),
        ("200 OK", [], [0]),
        ("204 No Content", [], [0]),
        ("304 Not Modified", [b"none of this"], [0]),
    ]
    sent: list[bytes] = []
    send = PromptChannel.send

    def watched(channel: PromptChannel, data: bytes, *, do_close: bool) -> int:
        sent.append(bytes(data))
        return int(send(channel, data, do_close=do_close))

    def application(asked: dict[str, Any], start: Callable[..., object]) -> Iterable[bytes]:
        status, parts, _ = cases[int(asked["PATH_INFO"][1:])]
        start(status, [("Content-Length", str(sum(map(len, parts))))])
        return iter(parts)

    monkeypatch.setattr(PromptChannel, "send", watched)
    with serving(application) as port:
        for number, (status, _, sends) in enumerate(cases):
            with socket.create_connection(("127.0.0.1", port), 60) as made:
                made.sendall(f"GET /{number} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
                while made.recv(1 << 16):
                    pass
            head, _, body = sent[0].partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 " + status.encode())
            assert [len(body), *map(len, sent[1:])] == sends
            sent.clear()


def test_who_goes_away_in_the_middle_leaves_the_server_to_others() -> None:
    parts = [bytes(MORE_THAN_FITS)]
    with caller(parts) as first:
        first.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        first.recv(10)
        with socket.create_connection(first.getpeername(), 60) as other:
            first.close()
            assert asked(other, MORE_THAN_FITS) == parts[0]


def test_an_answer_after_a_long_wait_counts_as_activity() -> None:
    """Else the connection would be closed as idle before its next request."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = object.__new__(PromptChannel)
        channel.socket, channel.outbuf_lock = ours, threading.Condition()
        channel.connected, channel.total_outbufs_len, channel.last_activity = True, 0, 0.0
        assert channel.write_soon(b"answer") == len(b"answer")
        assert theirs.recv(100) == b"answer"
        assert channel.last_activity > 0
