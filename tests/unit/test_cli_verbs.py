"""Every operation has a verb, and a verb sends exactly what its row of the table says."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import httpx
import pytest

from api.cli import nouns, run
from api.cli.client import Client
from api.cli.replay import replay
from api.cli.verbs import Verb
from api.operations import BY_NAME

GROUPS = ("peer", "grant", "enroll", "cert", "operator", "policy", "audit", "alarm", "health")
ID = "0d9cb46e-1c5f-4b36-9a39-0b4f3c1f6a55"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[httpx.Request]]:
    """Requests that verbs send; each is answered with `{}`."""
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200, json={"scope": {"resources": []}})

    def connect(url: str | None, token_file: Path | None) -> Client:
        return Client("http://127.0.0.1:1", "flo_x", httpx.MockTransport(answer))

    monkeypatch.setattr("api.cli.client.connect", connect)
    return requests


def body(request: httpx.Request) -> Any:
    return json.loads(request.content)


def test_every_row_has_a_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    named: set[str] = set()
    original = Verb.command

    def remember(self: Verb, name: str) -> click.Command:
        named.add(self.row.name)
        return original(self, name)

    monkeypatch.setattr(Verb, "command", remember)
    import importlib

    importlib.reload(nouns)
    # Their verbs are more than a call: two make key and request (test_cli_redeem.py), the other
    # checks what comes line by line (tests/acceptance/test_cli_audit.py).
    more = {"enrollment.redeem", "certificate.renew", "event.export"}
    assert named | more == BY_NAME.keys()


def test_every_option_of_a_verb_reaches_its_row() -> None:
    for name in GROUPS:
        group = getattr(nouns, name)
        for verb in group.commands.values():
            names = [option.name for option in verb.params]
            assert len(names) == len(set(names)), (name, verb.name)


def test_a_registration(sent: list[httpx.Request]) -> None:
    assert run(["peer", "register", "--name", "A", "--base-url", "https://a.example"]) == 0
    assert (sent[0].method, sent[0].url.path) == ("POST", "/v1/peers")
    assert body(sent[0]) == {"name": "A", "base_url": "https://a.example"}
    assert sent[0].headers["Idempotency-Key"]


def test_a_proposal_from_options(sent: list[httpx.Request]) -> None:
    assert run([
        "grant", "propose", "--peer-id", ID, "--subject-user-id", "u", "--resource", "tasks",
        "--resource", "notes", "--exclude", "memory", "--max-rows", "0", "--expires-at",
        "2030-01-01T00:00:00Z", "--dry-run",
    ]) == 0  # fmt: skip
    assert body(sent[0]) == {
        "peer_id": ID,
        "subject_user_id": "u",
        "expires_at": "2030-01-01T00:00:00Z",
        "scope": {
            "resources": ["tasks", "notes"],
            "excluded_resources": ["memory"],
            "max_rows_per_query": 0,  # wrong, and for the server to say so
        },
    }
    assert sent[0].url.query == b"dry_run=true"


def test_a_scope_is_given_in_one_way_only(
    sent: list[httpx.Request], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["grant", "narrow", ID, "--reason", "r", "--scope", "{}", "--max-rows", "3"]
    assert run(arguments) == 2
    assert "not both" in capsys.readouterr().err
    assert sent == []


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        (["--no-four-eyes"], {"four_eyes": False}),
        (["--four-eyes"], {"four_eyes": True}),
        (["--required-approvals", "0"], {"required_approvals": 0}),
        (["--certificate-ttl", "12h"], {"certificate_ttl": 43200}),
        (["--token-ttl", "90"], {"token_ttl": 90}),
    ],
)
def test_falsehood_and_zero_are_sent_not_forgotten(
    sent: list[httpx.Request], arguments: list[str], changed: dict[str, Any]
) -> None:
    assert run(["policy", "change", *arguments]) == 0
    assert sent[0].method == "PATCH"
    assert body(sent[0]) == changed


def test_conditions_become_headers(sent: list[httpx.Request]) -> None:
    assert run([
        "grant", "revoke", ID, "--reason", "r", "--if-match", "7", "--idempotency-key", "k",
    ]) == 0  # fmt: skip
    assert sent[0].headers["If-Match"] == '"7"'
    assert sent[0].headers["Idempotency-Key"] == "k"
    assert sent[0].url.path == f"/v1/grants/{ID}/revoke"


@pytest.mark.parametrize(
    "arguments",
    [
        ["policy", "change", "--approval-days", "3"],
        ["enroll", "token", ID],
        ["operator", "credential", ID],
    ],
)
def test_what_has_a_version_takes_one(sent: list[httpx.Request], arguments: list[str]) -> None:
    assert run([*arguments, "--if-match", "2"]) == 0
    assert sent[0].headers["If-Match"] == '"2"'


def test_revoking_many(sent: list[httpx.Request]) -> None:
    assert run(["cert", "revoke-many", "--peer-id", ID, "--reason", "r"]) == 0
    assert sent[0].url.path == "/v1/certificates/revoke"
    assert body(sent[0]) == {"peer_id": ID, "reason": "r"}


def test_filters_become_a_query(sent: list[httpx.Request]) -> None:
    assert run(["grant", "list", "--status", "active", "--no-sensitive", "--limit", "5"]) == 0
    assert dict(sent[0].url.params) == {"status": "active", "sensitive": "false", "limit": "5"}


@pytest.mark.parametrize("hostile", ["../peers", "a/b", "a?x=1", "a#b", "%2e%2e", "ä"])
def test_an_argument_cannot_become_another_path(sent: list[httpx.Request], hostile: str) -> None:
    assert run(["peer", "show", hostile]) == 0
    assert sent[0].url.raw_path.startswith(b"/v1/peers/")
    assert sent[0].url.raw_path.count(b"/") == 3
    assert sent[0].url.query == b""


def test_a_moment_ahead_is_written_as_one(sent: list[httpx.Request]) -> None:
    assert run(["grant", "amend", ID, "--reason", "r", "--expires-at", "+30d"]) == 0
    written = body(sent[0])["expires_at"]
    assert written.endswith("Z")
    assert len(written) == 20


@pytest.mark.parametrize("text", ["tomorrow", "30d", "+1x", "+", "+999999999w"])
def test_what_is_no_moment_is_refused_here(sent: list[httpx.Request], text: str) -> None:
    assert run(["grant", "amend", ID, "--reason", "r", "--expires-at", text]) == 2
    assert sent == []


def answering(monkeypatch: pytest.MonkeyPatch, **document: Any) -> None:
    def connect(url: str | None, token_file: Path | None) -> Client:
        transport = httpx.MockTransport(lambda _: httpx.Response(201, json=document))
        return Client("http://127.0.0.1:1", "flo_x", transport)

    monkeypatch.setattr("api.cli.client.connect", connect)


def test_a_secret_goes_to_a_private_file_and_not_to_the_terminal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answering(monkeypatch, token="fle_secret", accessor="a", grant_id=ID)
    out = tmp_path / "token"
    assert run(["enroll", "token", ID, "--out", str(out), "--json"]) == 0
    shown = capsys.readouterr()
    assert "fle_secret" not in shown.out + shown.err
    assert json.loads(shown.out)["token"] == str(out)
    assert out.read_text() == "fle_secret\n"
    assert out.stat().st_mode & 0o777 == 0o600


def test_a_secrets_file_is_never_overwritten(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answering(monkeypatch, token="fle_secret", accessor="a", grant_id=ID)
    out = tmp_path / "token"
    out.write_text("precious")
    assert run(["enroll", "token", ID, "--out", str(out)]) == 2
    assert out.read_text() == "precious"


def test_a_repeated_answer_has_no_secret_to_keep(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answering(monkeypatch, token=None, accessor="a", grant_id=ID)
    assert run(["enroll", "token", ID, "--out", str(tmp_path / "token")]) == 1
    assert not (tmp_path / "token").exists()


@pytest.mark.parametrize(("valid", "code"), [(True, 0), (False, 2)])
def test_a_verdict_is_an_exit_code_too(
    monkeypatch: pytest.MonkeyPatch, valid: bool, code: int
) -> None:
    scope = {"resources": ["tasks"], "max_rows_per_query": 1}
    answering(monkeypatch, valid=valid, scope=scope, digest="d", text="why")
    arguments = ["grant", "validate-scope", "--resource", "tasks", "--max-rows", "1"]
    assert run(arguments) == run([*arguments, "--json"]) == code


@pytest.mark.parametrize(
    ("verb", "status", "code"),
    [("show", "pass", 0), ("show", "warn", 0), ("show", "fail", 7), ("ready", "ready", 0),
     ("ready", "not-ready", 7)],
)  # fmt: skip
def test_health_is_an_exit_code_too(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    verb: str,
    status: str,
    code: int,
) -> None:
    checks = {"ledger:alarms": [{"status": status, "output": "2 open", "time": "x"}]}
    document = {"status": status, "checks": checks} if verb == "show" else {"status": status}

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200 if code == 0 else 503, json=document)

    def opened(url: str, token: str | None = None) -> Client:
        return Client(url, token, httpx.MockTransport(answer))

    monkeypatch.setattr("api.cli.client._wait", lambda _: 0.0)
    monkeypatch.setattr(
        "api.cli.client.connect", lambda url, file: opened("http://127.0.0.1:1", "flo_x")
    )
    monkeypatch.setattr("api.cli.client.Client", opened)
    assert run(["health", verb]) == code
    said = capsys.readouterr().out
    assert status in said
    assert ("2 open" in said) is (verb == "show")


def test_a_moment_is_read_alike_wherever_one_is_named(
    sent: list[httpx.Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    monkeypatch.setattr("time.time", now.timestamp)
    earlier = "2026-03-01T00:00:00Z"
    assert run(["grant", "show", ID, "--as-of", "-12h"]) == 0
    assert run(["audit", "diff", "--from", "700", "--to", "-12h", "--json"]) == 0
    assert dict(sent[0].url.params) == {"as_of": earlier}
    assert dict(sent[1].url.params) == {"from": "700", "to": earlier}
    for written, meant in (("-12h", datetime.fromisoformat(earlier)), ("700", 700)):
        assert replay.make_context("replay", ["--to", written]).params["to"] == meant
    for arguments in (["audit", "diff", "--from", "7", "--to"], ["replay", "--to"]):
        assert run([*arguments, "yesterday"]) == 2
    assert run(["replay", "--to", "+1h"]) == 2
