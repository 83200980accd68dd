"""The child process: so many keep-alive connections that send one request over and over.

    python tests/benchmarks/clients.py PORT TOKEN_FILE (--seconds S | --count N) < body

One thread and a selector, so that it takes little from the service beside it. It prints one JSON
object: requests, seconds, and the latencies' percentiles in milliseconds. Any answer but 201 ends it.
"""

import argparse
import json
import selectors
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"


@dataclass
class Connection:
    """One connection; `received` of the answer so far, `sent` when its request went out."""

    stream: socket.socket
    received: bytes = b""
    sent: float = 0.0

    def ask(self, request: bytes) -> None:
        self.received = b""
        self.sent = time.perf_counter()
        self.stream.sendall(request)

    def answered(self) -> bool:
        """Take what has come; whether the answer is complete."""
        more = self.stream.recv(65536)
        if not more:
            raise SystemExit("the service closed a connection")
        self.received += more
        head, end, body = self.received.partition(_HEAD_END)
        if not end or len(body) < _length(head):
            return False
        if not head.startswith(b"HTTP/1.1 201"):
            raise SystemExit(f"the service answered {self.received[:2000]!r}")
        return True


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(_LENGTH):
            return int(line[len(_LENGTH) :])
    raise SystemExit("an answer without a length")


def request_of(port: int, token: str, body: bytes) -> bytes:
    return (
        f"POST /v1/grants HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        f"Authorization: Bearer {token}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def run(
    port: int, request: bytes, connections: int, seconds: float | None, count: int | None
) -> tuple[list[float], float]:
    """The latencies of all answers, and how long it took, in seconds."""
    selector = selectors.DefaultSelector()
    everyone = [
        Connection(socket.create_connection(("127.0.0.1", port))) for _ in range(connections)
    ]
    latencies: list[float] = []
    began = time.perf_counter()
    asked = min(connections, count or connections)
    waiting = asked
    for one in everyone[:asked]:
        one.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(one.stream, selectors.EVENT_READ, one)
        one.ask(request)
    while waiting:
        for key, _ in selector.select():
            one = key.data
            if not one.answered():
                continue
            now = time.perf_counter()
            latencies.append(now - one.sent)
            if (now - began < seconds) if seconds is not None else (asked < (count or 0)):
                asked += 1
                one.ask(request)
            else:
                waiting -= 1
    took = time.perf_counter() - began
    for one in everyone:
        one.stream.close()
    return latencies, took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("token", type=Path)
    parser.add_argument("--connections", type=int, default=16)
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--seconds", type=float)
    length.add_argument("--count", type=int)
    given = parser.parse_args()
    request = request_of(given.port, given.token.read_text().strip(), sys.stdin.buffer.read())
    latencies, took = run(given.port, request, given.connections, given.seconds, given.count)
    print(json.dumps({"latencies": latencies, "seconds": took}))


if __name__ == "__main__":
    main()
