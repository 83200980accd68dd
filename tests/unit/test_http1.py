"""One exchange in HTTP/1.1: what servers answer is read, what only looks like an answer is refused."""

import time
from collections.abc import Iterable
from contextlib import suppress
from itertools import chain, count, repeat

import pytest
from hypothesis import given
from hypothesis import strategies as some

from ca import http1
from ca.http1 import (
    MAX_ANSWER_BYTES,
    MAX_HEAD_BYTES,
    HttpError,
    OutOfBoundsError,
    Response,
    exchange,
    request,
)

JSON = b'{"crt": "x"}'
PLAIN = (
    b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n" + JSON
)
CHUNKED = (
    b"HTTP/1.1 201 Created\r\nTransfer-Encoding: Chunked\r\n\r\n"
    b'5;a="b"\r\n{"crt\r\n007 ; c\r\n": "x"}\r\n0\r\nExpires: 0\r\n\r\n'
)
HINTED = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: </a>\r\n\r\n" + PLAIN
CLOSED = b"HTTP/1.0 201 \r\n\r\n" + JSON


class Pieces:
    """A stream on which these come, one at a time, and then its end."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self.sent = b""

    def settimeout(self, value: float) -> None:
        assert value > 0

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def recv(self, size: int) -> bytes:
        piece = next(self._pieces, b"")
        assert len(piece) <= size
        return piece


def answer(*pieces: bytes) -> tuple[Response, bool]:
    return exchange(Pieces(pieces), b"GET", time.monotonic() + 60)


@pytest.mark.parametrize("whole", [PLAIN, CHUNKED, HINTED, CLOSED])
def test_an_answer_is_the_same_however_it_comes(whole: bytes) -> None:
    response, keeps = answer(whole)
    assert (response.status, response.body) == (201, JSON)
    assert keeps is (whole is not CLOSED)
    assert answer(*[whole[n : n + 1] for n in range(len(whole))]) == (response, keeps)
    for cut in range(1, len(whole)):
        assert answer(whole[:cut], whole[cut:]) == (response, keeps)


@pytest.mark.parametrize("whole", [PLAIN, CHUNKED, HINTED])
def test_one_that_is_cut_short_is_none(whole: bytes) -> None:
    for cut in range(len(whole)):
        with pytest.raises(HttpError):
            answer(whole[:cut])


@pytest.mark.parametrize(
    "head",
    [
        b"", b"HTTP/1.1 201", b"HTTP/1.1 201 x\ny", b"HTTP/2.0 201 x", b"HTTP/1.1  201 x", b"201",
        b"HTTP/1.1 099 x", b"HTTP/1.1 2011 x", b"http/1.1 201 x", b"HTTP/1.1 101 x",
    ],
)  # fmt: skip
def test_another_first_line_than_a_status(head: bytes) -> None:
    if head == b"HTTP/1.1 201":
        assert answer(head + b"\r\n\r\n")[0].status == 201  # no reason, and no space before it
    else:
        with pytest.raises(HttpError):
            answer(head + b"\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 5\r\nContent-Length: 5", b"Content-Length: 5, 5", b"Content-Length: +5",
        b"Content-Length: -5", b"Content-Length: 0x5", b"Content-Length:", b"Content-Length: 5 5",
        "Content-Length: \u0665".encode(), b"Content-Length: 5\r\n ;", b"Content-Length : 5",
        b" Content-Length: 5", b"Content-Length: 5\nA: b", b"Content-Length: 5\r", b"A\r\nB: 5",
        b"Content-Length: 5\x00", b": 5", b"Content Length: 5",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5", b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", b"Transfer-Encoding: identity",
        b"Transfer-Encoding: chunked;q=1", b"Transfer-Encoding:",
    ],
)  # fmt: skip
def test_whatever_could_be_read_in_two_ways_is_read_in_none(fields: bytes) -> None:
    with pytest.raises(HttpError):
        answer(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n\r\n", b"5\r\n12345\r\n0\r\n\r\n")


def test_an_old_server_knows_no_chunks() -> None:
    with pytest.raises(HttpError):
        answer(CHUNKED.replace(b"1.1", b"1.0"))


@pytest.mark.parametrize(
    "chunks",
    [
        b"4\r\n12345\r\n0\r\n\r\n", b"6\r\n12345\r\n0\r\n\r\n", b"5\r\n12345\n0\r\n\r\n", b"\r\n",
        b"g\r\n12345\r\n0\r\n\r\n", b"-5\r\n12345\r\n0\r\n\r\n", b"0x5\r\n12345\r\n0\r\n\r\n",
        b"5 5\r\n12345\r\n0\r\n\r\n", b"000000005\r\n12345\r\n0\r\n\r\n", b"5\r\n12345\r\n0\r\nA\r\n\r\n",
        b"5;\x01\r\n12345\r\n0\r\n\r\n",
    ],
)  # fmt: skip
def test_chunks_that_lie(chunks: bytes) -> None:
    with pytest.raises(HttpError):
        answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)


@pytest.mark.parametrize(
    "endless",
    [
        (b"H",),
        (b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"A: ", b"b"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 100,),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 16384),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 1000),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"A: b\r\n" * 1000),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x"),
    ],
)
def test_an_answer_without_an_end_is_left(endless: tuple[bytes, ...]) -> None:
    with pytest.raises(OutOfBoundsError):
        exchange(Pieces(chain(endless[:-1], repeat(endless[-1]))), b"GET", time.monotonic() + 60)


def test_what_says_that_it_is_too_long_is_not_waited_for() -> None:
    for length in (
        b"Content-Length: %d\r\n\r\n" % (MAX_ANSWER_BYTES + 1),
        b"Transfer-Encoding: chunked\r\n\r\nffffffff\r\n",
        b"A: " + b"a" * MAX_HEAD_BYTES,
    ):
        with pytest.raises(OutOfBoundsError):
            answer(*_split(b"HTTP/1.1 200 OK\r\n" + length), b"")


def _split(data: bytes) -> list[bytes]:
    return [data[n : n + 16384] for n in range(0, len(data), 16384)]


def test_an_answer_that_drips_is_left_when_its_time_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = count()
    monkeypatch.setattr(http1.time, "monotonic", lambda: next(clock))
    stream = Pieces(repeat(b"H"))
    with pytest.raises(OutOfBoundsError):
        exchange(stream, b"", 100)
    assert next(clock) <= 103


def test_a_body_that_nobody_announces_is_none() -> None:
    for status in (b"204", b"304"):
        response, keeps = answer(b"HTTP/1.1 " + status + b" x\r\nETag: a\r\n\r\n")
        assert (response.body, keeps) == (b"", True)
        assert answer(b"HTTP/1.1 " + status + b" x\r\n\r\nHTTP/1.1 200 OK\r\n")[1] is False


def test_a_connection_is_kept_only_where_nothing_is_left_on_it() -> None:
    assert answer(PLAIN)[1] is True
    assert answer(PLAIN + b"H")[1] is False
    assert answer(PLAIN.replace(b"1.1", b"1.0"))[1] is False
    for said in (b"close", b"Close", b"keep-alive , close", b"x\r\nConnection: close"):
        assert (
            answer(PLAIN.replace(b"\r\n\r\n", b"\r\nConnection: " + said + b"\r\n\r\n"))[1] is False
        )


def test_a_field_is_read_without_the_space_around_it_and_with_all_its_values() -> None:
    response, _ = answer(
        b"HTTP/1.1 204\r\nDate:  now\t \r\nvary:a\r\nVary: b\r\nX-E: \xe9\r\nempty:\r\n\r\n"
    )
    assert response.headers == {"date": "now", "vary": "a, b", "x-e": "é", "empty": ""}


@given(some.binary(max_size=300), some.sampled_from([PLAIN, CHUNKED, HINTED, CLOSED]), some.data())
def test_nothing_else_is_raised(junk: bytes, whole: bytes, data: some.DataObject) -> None:
    start = data.draw(some.integers(0, len(whole)))
    end = data.draw(some.integers(start, len(whole)))
    with suppress(HttpError, OutOfBoundsError):
        answer(whole[:start] + junk + whole[end:])


# ---- what is sent -----------------------------------------------------------------------------


def test_a_request_is_one_piece() -> None:
    headers = {"Content-Type": "application/json", "X-Request-Id": "1"}
    assert request("POST", "ca.example:9000", "/1.0/sign", headers, b"{}") == (
        b"POST /1.0/sign HTTP/1.1\r\nHost: ca.example:9000\r\nAccept-Encoding: identity\r\n"
        b"Content-Type: application/json\r\nX-Request-Id: 1\r\nContent-Length: 2\r\n\r\n{}"
    )
    assert request("GET", "ca.example", "/health?a=b", {}, None) == (
        b"GET /health?a=b HTTP/1.1\r\nHost: ca.example\r\nAccept-Encoding: identity\r\n\r\n"
    )
    stream = Pieces([PLAIN])
    exchange(stream, b"GET /\r\n\r\n", time.monotonic() + 60)
    assert stream.sent == b"GET /\r\n\r\n"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("/a b", ""), ("/a\r\nX: y", ""), ("", ""), ("/\u00e9", ""), ("/\x00", ""),
        ("/", "a\r\nX: y"), ("/", "a\nb"), ("/", "a\x00"), ("/", "\u00e9"), ("/", "a\r"),
    ],
)  # fmt: skip
def test_no_part_of_a_request_can_hold_another(path: str, value: str) -> None:
    with pytest.raises(HttpError):
        request("GET", "ca.example", path, {"X-Request-Id": value}, None)
