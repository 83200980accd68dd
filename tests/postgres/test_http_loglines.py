"""Every request leaves one line that says who did what, and every line says of which request it is."""

import errno
import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import structlog
from structlog.contextvars import get_contextvars, merge_contextvars
from structlog.testing import LogCapture

from api.loglines import configure
from support.http import House

CORRELATION = "0d9cb46e-1c5f-4b36-9a39-0b4f3c1f6a55"


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    """What is logged, as it would be written."""
    before = structlog.get_config()
    capture = LogCapture()
    structlog.configure(
        processors=[merge_contextvars, capture],
        wrapper_class=structlog.make_filtering_bound_logger(0),
        cache_logger_on_first_use=False,
    )
    try:
        yield capture.entries
    finally:
        structlog.configure(**before)


def requests(lines: list[Any]) -> list[Any]:
    return [line for line in lines if line["event"] == "request"]


def test_one_line_per_request_whatever_becomes_of_it(place: House, lines: list[Any]) -> None:
    header = {"X-Correlation-Id": CORRELATION}
    good = place.call("peer.list", token=place.admin, headers=header)
    bad = place.call("peer.list", token="x")
    invalid = place.call("peer.register", b"{", token=place.admin)
    missing = place.client.simulate_get("/v1/no-such-path?token=sekrit")
    seen = requests(lines)
    assert [line["status"] for line in seen] == [200, 401, 400, 404]
    assert [line["operation"] for line in seen] == ["peer.list", "peer.list", "peer.register", None]
    answers = (good, bad, invalid, missing)
    assert [line["request_id"] for line in seen] == [a.headers["x-request-id"] for a in answers]
    assert seen[0]["correlation_id"] == CORRELATION != seen[0]["request_id"]
    assert [line["correlation_id"] for line in seen[1:]] == [a["request_id"] for a in seen[1:]]
    assert all(line["milliseconds"] >= 0 for line in seen)
    assert all(line["source"] == "127.0.0.1" for line in seen)
    admin = place.admin.split("_")[1]
    assert [line["credential"] for line in seen] == [admin, None, admin, None]
    who = place.ok("operator.list", query="role=admin")["items"][0]["id"]
    assert [line["actor"] for line in seen] == [who, None, who, None]
    assert place.admin not in str(lines)
    assert "sekrit" not in str(lines)


def test_a_correlation_id_travels_into_the_events(place: House, lines: list[Any]) -> None:
    header = {"X-Correlation-Id": CORRELATION}
    body = {"name": "Some Peer", "base_url": "https://peer.example"}
    made = place.call("peer.register", body, token=place.admin, headers=header)
    position = int(made.headers["ledger-position"])
    assert place.ok("event.show", position=position)["body"]["correlation_id"] == CORRELATION
    assert made.headers["x-request-id"] != CORRELATION


def test_a_line_on_the_way_says_of_which_request_it_is(
    place: House, lines: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        structlog.get_logger("fedledger.somewhere").warning("on the way")
        raise ZeroDivisionError("hunter2 is in this text")

    services = place.parts.services
    monkeypatch.setattr(type(services.ledger.record), "head", lambda self: broken())
    failed = place.call("health.show", token=place.admin)
    assert failed.status_code == 500
    assert "hunter2" not in failed.text
    request_id = failed.headers["x-request-id"]
    found = {line["event"]: line["request_id"] for line in lines}
    assert found == {"on the way": request_id, "failed": request_id, "request": request_id}
    assert get_contextvars() == {}  # the next request of this thread begins anew


@contextmanager
def configured() -> Iterator[None]:
    """Lines are written as the service writes them, from `warning` on."""
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure("warning")
    try:
        yield
    finally:
        structlog.configure(**before)
        root.handlers[:] = handlers
        root.setLevel(level)


@pytest.mark.parametrize("logger", [logging.getLogger, structlog.get_logger])
def test_lines_are_json_and_levels_are_kept(
    logger: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of libraries and our own."""
    with configured():
        logger("some.room").info("unheard")
        logger("some.room").warning("heard %s", "said")
    (line,) = map(json.loads, capsys.readouterr().err.splitlines())
    assert (line["event"], line["level"], line["logger"]) == ("heard said", "warning", "some.room")
    assert line["timestamp"].endswith("Z")


def test_a_line_that_cannot_be_written_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(text: str) -> int:
        raise OSError(errno.ENOSPC, "no space left")

    with configured():
        monkeypatch.setattr(sys.stderr, "write", full)
        structlog.get_logger("some.room").error("lost")
