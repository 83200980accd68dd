"""Between a client and a TLS server: it can lose an answer that the server has given.

It sees no more of TLS than the type of a record. Up to TLS 1.2 application data has a type of its
own, so the server must not speak a later version.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_APPLICATION_DATA = 0x17


class Relay:
    """`port` leads to the server. `to_lose`: so many answers, the next ones, with their connection."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.to_lose = 0
        self.lost = 0
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._open:
            _end(one)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._target))
                except ConnectionRefusedError:
                    _end(client)
                    continue
                self._open += [client, server]
                for work in (self._forward, self._answer):
                    self._threads.append(threading.Thread(target=work, args=(client, server)))
                    self._threads[-1].start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                server.sendall(data)
        _end(server)

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while header := _exactly(server, 5):
                record = header + _exactly(server, int.from_bytes(header[3:], "big"))
                if header[0] == _APPLICATION_DATA and self.lost < self.to_lose:
                    self.lost += 1
                    break
                client.sendall(record)
        _end(client)
        _end(server)


def _exactly(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = source.recv(size - len(data))
        if not part:
            raise ConnectionError
        data += part
    return data


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


@contextmanager
def relayed(target: int) -> Iterator[Relay]:
    relay = Relay(target)
    try:
        yield relay
    finally:
        relay.close()
