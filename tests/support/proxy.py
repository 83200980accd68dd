"""A proxy between a client and PostgreSQL that can lose what a network loses, at a chosen moment.

It understands just enough of the protocol to know where a message ends and which one may commit, so
that a cut falls exactly before or after an answer. Armed, it strikes once.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from psycopg.conninfo import conninfo_to_dict, make_conninfo

Fault = Literal["before statement", "before answer", "statement in flight", "warning"]

_WARNING = b"SWARNING\0VWARNING\0C01000\0Mcanceling wait for synchronous replication\0\0"
_SYNC = b"S\0\0\0\4"


class Proxy:
    """`dsn` leads through it. `arm(fault)` decides what happens to the next command that commits.

    before statement: the connection is lost, the statement never arrives.
    before answer: the statement is carried out and committed, then the connection is lost.
    statement in flight: the client loses the connection while the server goes on working.
    warning: the answer carries the notice of a cancelled wait for a synchronous standby.
    """

    def __init__(self, dsn: str, folder: Path) -> None:
        given = conninfo_to_dict(dsn)
        self.target = f"{given['host']}/.s.PGSQL.{given['port']}"
        self.dsn = make_conninfo(dsn, host=str(folder))
        self.fault: Fault | None = None
        self.struck = threading.Event()
        self._refuse_after = self._refusing = False
        self._pairs: list[_Pair] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / f".s.PGSQL.{given['port']}"))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def arm(self, fault: Fault, *, refuse: bool = False) -> None:
        """`refuse`: accept no connection after the fault, until `recover`."""
        self.struck.clear()
        self._refuse_after = refuse
        self.fault = fault

    def strike(self) -> None:
        """Called by the connection that suffers the fault, just before it does."""
        self.fault, self._refusing = None, self._refuse_after

    def refuse(self) -> None:
        """Lose every connection and accept none."""
        self._refusing = True
        for pair in self._pairs:
            pair.end()

    def recover(self) -> None:
        self._refusing = False

    def close(self) -> None:
        self.refuse()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._refusing:
                    client.close()
                else:
                    self._pairs.append(_Pair(self, client))


class _Pair:
    """One connection of the client and the one to the server behind it."""

    def __init__(self, proxy: Proxy, client: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(proxy.target)
        self._in_transaction = False
        self._after_answer: Fault | None = None
        for work in (self._to_server, self._to_client):
            threading.Thread(target=work, daemon=True).start()

    def end(self) -> None:
        for one in (self._client, self._server):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _to_server(self) -> None:
        with suppress(OSError):
            # The first message has no type byte.
            head = _exactly(self._client, 4)
            rest = _exactly(self._client, int.from_bytes(head, "big") - 4)
            self._server.sendall(head + rest)
            for kind, message in _messages(self._client):
                if self._may_commit(kind, message) and self._strikes(message):
                    return
                self._server.sendall(message)
        self.end()

    def _may_commit(self, kind: bytes, message: bytes) -> bool:
        if kind == b"E":  # Execute, of the extended protocol
            return not self._in_transaction
        if kind == b"Q":
            text = message[5:-1]
            if text.startswith(b"BEGIN"):
                self._in_transaction = True
            elif text in (b"COMMIT", b"ROLLBACK"):
                self._in_transaction = False
                return text == b"COMMIT"
        return False

    def _strikes(self, message: bytes) -> bool:
        """Do what was armed; say whether this connection is finished."""
        fault = self._proxy.fault
        if fault is None:
            return False
        self._proxy.strike()
        if fault in ("before answer", "warning"):
            self._after_answer = fault
            return False
        # Told before the client can notice: it may be done by the time this thread runs again.
        self._proxy.struck.set()
        if fault == "statement in flight":
            self._server.sendall(message + (_SYNC if message[:1] == b"E" else b""))
            with suppress(OSError):
                self._client.shutdown(socket.SHUT_RDWR)
        else:
            self.end()
        return True

    def _to_client(self) -> None:
        with suppress(OSError):
            for kind, message in _messages(self._server):
                if self._after_answer == "before answer":
                    if kind == b"Z":  # only now is it committed
                        break
                    continue
                if self._after_answer == "warning" and kind == b"Z":
                    self._after_answer = None
                    size = (len(_WARNING) + 4).to_bytes(4, "big")
                    self._proxy.struck.set()
                    self._client.sendall(b"N" + size + _WARNING)
                with suppress(OSError):  # the client may be gone while the server works
                    self._client.sendall(message)
        if self._after_answer is not None:
            self._proxy.struck.set()
        self.end()


def _messages(source: socket.socket) -> Iterator[tuple[bytes, bytes]]:
    while True:
        head = _exactly(source, 5)
        yield head[:1], head + _exactly(source, int.from_bytes(head[1:], "big") - 4)


def _exactly(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = source.recv(size - len(data))
        if not part:
            raise ConnectionError
        data += part
    return data


@contextmanager
def proxied(dsn: str, folder: Path) -> Iterator[Proxy]:
    proxy = Proxy(dsn, folder)
    try:
        yield proxy
    finally:
        proxy.close()
