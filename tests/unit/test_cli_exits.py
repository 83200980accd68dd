"""Which exit code a command ends with, and what it says on the way out."""

import psycopg
import pytest

from api.cli import run
from api.cli.exits import CommandError, Exit, exit_for, from_database, from_problem, from_refusal
from api.problems import PROBLEMS
from ledger.errors import (
    ForbiddenError,
    GoneError,
    InvalidError,
    NotFoundError,
    RefusedError,
    StaleError,
    UnauthorizedError,
    UnavailableError,
)

# As documented, literally: programs are written against these numbers.
DOCUMENTED = {
    400: 2, 401: 4, 403: 4, 404: 3, 405: 2, 409: 1, 410: 1, 412: 5, 413: 2, 415: 2, 422: 2,
    429: 7, 500: 7, 502: 7, 503: 7, 504: 7,
}  # fmt: skip


@pytest.mark.parametrize(("status", "code"), DOCUMENTED.items())
def test_every_status_has_its_exit_code(status: int, code: int) -> None:
    assert exit_for(status) == code


def test_every_status_a_problem_can_have_is_documented() -> None:
    statuses = {status for problem in PROBLEMS.values() for status in problem.statuses}
    assert statuses <= DOCUMENTED.keys()


def test_lost_history_is_an_integrity_violation_and_not_an_outage() -> None:
    assert exit_for(503, "lost-history") == Exit.INTEGRITY == 6
    assert exit_for(503, "busy") == Exit.UNREACHABLE == 7
    assert exit_for(500, "record-damaged") == Exit.INTEGRITY
    assert exit_for(500, "internal") == Exit.UNREACHABLE


def test_a_role_that_may_not_is_told_which_one_is_needed() -> None:
    refused = from_database(psycopg.errors.InsufficientPrivilege("permission denied"))
    assert (refused.exit, refused.detail) == (Exit.REFUSED, "permission denied")
    assert "FEDLEDGER_OWNER_DSN" in refused.hint
    assert from_database(psycopg.OperationalError("gone")).exit == Exit.UNREACHABLE


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidError("x"), 2),
        (RefusedError("x"), 1),
        (GoneError("x"), 1),
        (NotFoundError("x"), 3),
        (StaleError("x"), 5),
        (UnauthorizedError("x"), 4),
        (ForbiddenError("x"), 4),
        (UnavailableError("x"), 7),
        (UnavailableError("x", code="lost-history"), 6),
    ],
)
def test_a_refusal_on_this_machine_ends_as_it_would_over_http(error: Exception, code: int) -> None:
    assert from_refusal(error).exit == code  # type: ignore[arg-type]  # parametrized


def test_a_problem_document_tells_title_particulars_next_step_and_request_id() -> None:
    error = from_problem(
        412,
        {
            "code": "stale",
            "title": "It has changed.",
            "detail": "two things are wrong",
            "request_id": "r-1",
            "errors": [
                {"pointer": "/name", "detail": "too long"},
                {"parameter": "limit", "detail": "too large"},
            ],
        },
    )
    assert error.title == "It has changed (412 stale)"
    assert error.detail == "two things are wrong\n/name: too long\nlimit: too large"
    assert "read it again" in error.hint
    assert error.request_id == "r-1"


def test_an_answer_that_is_no_problem_document_still_says_what_came() -> None:
    error = from_problem(502, {}, "r-2")
    assert (error.exit, error.title, error.request_id) == (
        7,
        "The server answered 502 (502)",
        "r-2",
    )


def test_errors_go_to_stderr_without_control_characters(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise CommandError(Exit.REFUSED, "No\x1b[2J", "because\nof this", "do that", "r-3")

    monkeypatch.setattr("api.cli.root.main", refuse)
    assert run(["anything"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == ("error: No\\x1b[2J\n  because\n  of this\n  next: do that\n  request: r-3\n")


@pytest.mark.parametrize("arguments", [["no-such-noun"], ["--no-such-option"], ["peer", "nothing"]])
def test_usage_errors_end_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    assert "Usage: fedledger" in capsys.readouterr().err


def test_an_interrupted_command_ends_with_130(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("api.cli.root.main", interrupt)
    assert run([]) == 130
    assert capsys.readouterr().err == "interrupted\n"
