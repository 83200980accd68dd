"""How values, tables and times look, on a terminal and in a pipe."""

import json
import time

import pytest

from api.cli import output


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("zone", "shown"),
    [
        ("UTC", "2026-11-23 15:07:08 UTC"),
        ("Europe/Vienna", "2026-11-23 16:07:08 +01:00"),
        ("Asia/Kolkata", "2026-11-23 20:37:08 +05:30"),
        ("America/New_York", "2026-11-23 10:07:08 -05:00"),
    ],
    indirect=["zone"],
)
def test_a_time_is_shown_in_the_readers_zone_and_says_which(zone: None, shown: str) -> None:
    assert output.when("2026-11-23T15:07:08.123456Z") == shown


@pytest.mark.parametrize("text", ["", "yesterday", "2026-99-99T99:99:99Z", "2026-11-23"])
def test_what_is_no_time_is_left_alone(text: str) -> None:
    assert output.when(text) == text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (True, "yes"),
        (7, "7"),
        ([], "-"),
        (["a", "b"], "a, b"),
        ({"a": 1, "b": None}, "a: 1, b: -"),
        ("x\x1b[31my\x07", "x\\x1b[31my\\x07"),
        ("‮evil", "\\u202eevil"),
    ],
)
def test_values_in_words(value: object, shown: str) -> None:
    assert output.words(value) == shown


def test_a_pipe_gets_aligned_columns_without_colour(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"id": "1", "scope": {"max_rows": 10}, "status": "active"},
        {"id": "22", "scope": {}, "status": "revoked"},
    ]
    output.show_table(rows, ["id", "scope.max_rows", "status"])
    assert capsys.readouterr().out == (
        "ID  MAX ROWS  STATUS\n1   10        active\n22  -         revoked\n"
    )


def test_a_row_is_one_line_whatever_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_table([{"id": "1\n2  active"}], ["id"])
    assert capsys.readouterr().out == "ID\n1\\n2  active\n"


def test_an_empty_table_says_so_and_leaves_stdout_empty(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_table([], ["id"])
    assert capsys.readouterr() == ("", "nothing found\n")


@pytest.mark.parametrize("no_colour", [True, False])
def test_a_terminal_gets_colour_unless_it_asks_for_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, no_colour: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_colour:
        monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    output.show_table([{"id": "1", "status": "active"}], ["id", "status"])
    shown = capsys.readouterr().out
    assert "active" in shown
    assert ("\x1b[32m" in shown) is not no_colour


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_json({"name": "Zürich", "n": [1, 2]})
    assert json.loads(capsys.readouterr().out) == {"name": "Zürich", "n": [1, 2]}
