"""One exchange in HTTP/1.1 (RFC 9112) on an open stream: a request in one piece, then its whole answer.

It opens and closes nothing, follows no redirect and tries nothing a second time. Of what the format
leaves to the reader it takes one reading or none: whoever answers cannot make an answer that we and
a proxy between us would end at different places.
"""

import re
import time
from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol

MAX_ANSWER_BYTES: Final = 1024 * 1024
"""More than this is not read. A certificate takes 2 KiB, a page of provisioners some hundred."""

MAX_HEAD_BYTES: Final = 64 * 1024
"""Of that, the most for a status line with its fields."""

_RECORD: Final = 16384  # bytes: the most that TLS hands over at once
_MAX_LINE: Final = 1024  # that says how long a chunk is
_END: Final = b"\r\n\r\n"
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e]*")
_STATUS: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?")
# A line that begins with a space (an obsolete fold) is no field, nor is a space before the colon.
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t\x20-\x7e\x80-\xff]*)")
_LENGTH: Final = re.compile(r"[0-9]{1,9}", re.ASCII)
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[\t ]*;[\t\x20-\x7e\x80-\xff]*)?")
_WITHOUT_BODY: Final = (204, 304)


class Stream(Protocol):
    """What is used of a connected socket."""

    def settimeout(self, value: float, /) -> None: ...

    def sendall(self, data: bytes, /) -> None: ...

    def recv(self, size: int, /) -> bytes: ...


class HttpError(Exception):
    """What came is no whole answer in HTTP/1.1, or what should be sent is no request."""


class OutOfBoundsError(Exception):
    """The answer is too long, or drips in for too long."""


class Response(NamedTuple):
    """What was answered. `headers`: lower-case names; of a name's values all, with commas between."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def request(
    method: str, host: str, path: str, headers: Mapping[str, str], body: bytes | None
) -> bytes:
    """Return a request. `host`: with its port; `path`: with its query.

    Raises:
        HttpError: a part would be read as more than it is.
    """
    fields = {"Host": host, "Accept-Encoding": "identity", **headers}
    if body is not None:
        fields["Content-Length"] = str(len(body))
    if not _VISIBLE.fullmatch(path) or not all(map(_VALUE.fullmatch, fields.values())):
        raise HttpError("a path or a field that cannot be sent")
    lines = [f"{method} {path} HTTP/1.1", *[f"{name}: {fields[name]}" for name in fields]]
    return "\r\n".join(lines).encode() + _END + (body or b"")


def exchange(stream: Stream, request: bytes, end: float) -> tuple[Response, bool]:
    """Send `request` and read its answer until `end` of the monotonic clock.

    Return the answer, and whether the stream can take another request.

    Raises:
        OutOfBoundsError, HttpError.
        OSError: of the stream; a TimeoutError when nothing came any more.
    """
    stream.settimeout(max(0.001, end - time.monotonic()))
    stream.sendall(request)
    incoming = _Incoming(stream, end)
    minor, status, headers = _head(incoming)
    # What was asked for does not switch protocols, so there is an answer to come.
    while status < 200:
        if status == 101:
            raise HttpError("the answer switches protocols")
        minor, status, headers = _head(incoming)
    body, is_framed = _body(incoming, minor, status, headers)
    wanted = {one.strip() for one in headers.get("connection", "").lower().split(",")}
    keeps = is_framed and minor == 1 and "close" not in wanted and not incoming.held
    return Response(status, headers, body), keeps


class _Incoming:
    """What comes, within the limits. `held`: what has come and was not taken yet."""

    def __init__(self, stream: Stream, end: float) -> None:
        self.held = bytearray()
        self._stream = stream
        self._end = end
        self._left = MAX_ANSWER_BYTES

    def until(self, mark: bytes, most: int) -> bytes:
        """Take the up to `most` bytes before `mark`, and it."""
        looked = 0
        while (found := self.held.find(mark, looked)) < 0 and len(self.held) <= most:
            looked = max(0, len(self.held) - len(mark) + 1)
            self._require_more()
        if not 0 <= found <= most:
            raise OutOfBoundsError
        return self._taken(found + len(mark))[:found]

    def exactly(self, count: int) -> bytes:
        """Take so many bytes."""
        if count > self._left + len(self.held):
            raise OutOfBoundsError
        while len(self.held) < count:
            self._require_more()
        return self._taken(count)

    def rest(self) -> bytes:
        """Take everything until the other side ends."""
        while self._receive():
            pass
        return self._taken(len(self.held))

    def _taken(self, count: int) -> bytes:
        taken = bytes(self.held[:count])
        del self.held[:count]
        return taken

    def _require_more(self) -> None:
        if not self._receive():
            raise HttpError("the connection ended before the answer did")

    def _receive(self) -> bool:
        """Wait for more; return whether there was any."""
        # The limit is for each wait: an answer that drips has no end, so the clock is looked at as well.
        time_left = self._end - time.monotonic()
        if time_left <= 0:
            raise OutOfBoundsError
        self._stream.settimeout(time_left)
        came = self._stream.recv(_RECORD)
        self._left -= len(came)
        if self._left < 0:
            raise OutOfBoundsError
        self.held += came
        return bool(came)


def _head(incoming: _Incoming) -> tuple[int, int, dict[str, str]]:
    """Take a status line and its fields: minor version, status, fields."""
    first, *lines = incoming.until(_END, MAX_HEAD_BYTES).split(b"\r\n")
    status = _STATUS.fullmatch(first)
    if status is None:
        raise HttpError("the answer does not begin with a status")
    return int(status[1]), int(status[2]), _fields(lines)


def _fields(lines: list[bytes]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise HttpError("the answer has a line that is no field")
        name, value = field[1].decode().lower(), field[2].decode("latin-1").strip(" \t")
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return fields


def _body(
    incoming: _Incoming, minor: int, status: int, headers: Mapping[str, str]
) -> tuple[bytes, bool]:
    """Take the body (RFC 9112 §6.3), and say whether it told its end."""
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None:
        # One that comes twice has a comma here, as has a length: neither is taken.
        if length is not None or minor == 0 or coding.lower() != "chunked":
            raise HttpError("the answer's transfer encoding is not taken")
    elif length is not None and not _LENGTH.fullmatch(length):
        raise HttpError("the answer's length is none")
    if status in _WITHOUT_BODY:
        return b"", True
    if coding is not None:
        return _chunks(incoming), True
    return (incoming.rest(), False) if length is None else (incoming.exactly(int(length)), True)


def _chunks(incoming: _Incoming) -> bytes:
    """Take a chunked body (RFC 9112 §7.1), and the fields behind it, which are not asked for."""
    body = bytearray()
    while size := _chunk_size(incoming):
        body += incoming.exactly(size)
        if incoming.exactly(2) != b"\r\n":
            raise HttpError("a chunk is not as long as it says")
    while line := incoming.until(b"\r\n", _MAX_LINE):
        _fields([line])
    return bytes(body)


def _chunk_size(incoming: _Incoming) -> int:
    chunk = _CHUNK.fullmatch(incoming.until(b"\r\n", _MAX_LINE))
    if chunk is None:
        raise HttpError("a chunk does not say how long it is")
    return int(chunk[1], 16)
