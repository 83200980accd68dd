"""What the command line sends, repeats, and refuses to send; and whom it trusts with a token."""

import json
import ssl
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from api.cli import run
from api.cli.client import Client, connect, read_profile, read_token, refuse_in_the_clear
from api.cli.exits import CommandError, Exit

HERE = "http://127.0.0.1:1"


def client(answer: Callable[[httpx.Request], httpx.Response], token: str | None = None) -> Client:
    return Client(HERE, token, transport=httpx.MockTransport(answer))


def test_a_post_always_has_an_idempotency_key_and_a_read_never() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={})

    with client(answer, "flo_x") as ledger:
        ledger.call("GET", "/v1/peers", query={"limit": "2"})
        ledger.call("POST", "/v1/peers", body={"name": "Zürich"})
        ledger.call("POST", "/v1/peers", body={}, key="mine")
    read, first, second = seen
    assert "Idempotency-Key" not in read.headers
    assert str(read.url) == f"{HERE}/v1/peers?limit=2"
    assert len(first.headers["Idempotency-Key"]) == 36
    assert second.headers["Idempotency-Key"] == "mine"
    assert first.headers["Authorization"] == "Bearer flo_x"
    assert json.loads(first.content) == {"name": "Zürich"}


@pytest.mark.parametrize("failure", ["dropped", "busy"])
def test_a_post_without_an_answer_is_repeated_with_the_same_key(failure: str) -> None:
    keys: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["Idempotency-Key"])
        if len(keys) == 1 and failure == "dropped":
            raise httpx.RemoteProtocolError("gone")
        return httpx.Response(503 if len(keys) == 1 else 201, json={"code": "busy"})

    with client(answer) as ledger:
        assert ledger.call("POST", "/v1/peers", body={}).status == 201
    assert len(keys) == 2
    assert len(set(keys)) == 1


def test_a_delete_without_an_answer_is_not_repeated() -> None:
    calls: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(request.method)
        raise httpx.ReadTimeout("slow")

    with client(answer) as ledger, pytest.raises(CommandError) as caught:
        ledger.call("DELETE", "/v1/x")
    assert (caught.value.exit, calls) == (7, ["DELETE"])


def test_when_the_outcome_stays_unknown_the_key_to_ask_again_is_told() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("slow")

    with client(answer) as ledger, pytest.raises(CommandError) as caught:
        ledger.call("POST", "/v1/x", body={}, key="k-1")
    assert "--idempotency-key k-1" in caught.value.hint


def test_nobody_there_is_exit_7() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with client(answer) as ledger, pytest.raises(CommandError) as caught:
        ledger.call("POST", "/v1/x", body={})
    assert caught.value.exit == 7
    assert "fedledger up" in caught.value.hint


def test_a_problem_becomes_its_exit_code_with_the_request_id_of_the_header() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(
            412,
            headers={"content-type": "application/problem+json", "x-request-id": "r-9"},
            content=b'{"code":"stale","title":"Changed in the meantime","status":412}',
        )

    with client(answer) as ledger, pytest.raises(CommandError) as caught:
        ledger.call("GET", "/v1/x")
    assert (caught.value.exit, caught.value.request_id) == (5, "r-9")


@pytest.mark.parametrize(
    ("kind", "document", "reported"),
    [
        ("application/health+json", {"status": "fail"}, True),
        ("application/problem+json", {"code": "storage-unavailable"}, False),
        ("text/html", None, False),
    ],
)
def test_a_report_of_bad_health_is_an_answer_and_a_problem_is_none(
    monkeypatch: pytest.MonkeyPatch, kind: str, document: object, reported: bool
) -> None:
    monkeypatch.setattr("api.cli.client._wait", lambda _: 0.0)

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(503, json=document, headers={"Content-Type": kind})

    with client(answer) as ledger:
        if reported:
            assert ledger.call("GET", "/health", reports=(503,)).document == document
        else:
            with pytest.raises(CommandError) as caught:
                ledger.call("GET", "/health", reports=(503,))
            assert caught.value.exit is Exit.UNREACHABLE


def test_a_gateways_error_page_is_not_parsed() -> None:
    with (
        client(lambda _: httpx.Response(502, html="<h1>Bad gateway</h1>")) as ledger,
        pytest.raises(CommandError) as caught,
    ):
        ledger.call("GET", "/v1/x")
    assert caught.value.exit == 7


def test_pages_are_followed_by_their_cursor_with_the_same_filter() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.query.decode())
        return httpx.Response(200, json={"next": "b" if len(asked) < 3 else None})

    with client(answer) as ledger:
        assert len(list(ledger.pages("/v1/peers", {"limit": "1"}))) == 3
    assert asked == ["limit=1", "limit=1&cursor=b", "limit=1&cursor=b"]


@pytest.mark.parametrize("url", ["http://ledger.example", "http://10.0.0.1:8080"])
def test_a_token_is_never_sent_in_the_clear(url: str) -> None:
    with pytest.raises(CommandError, match="in the clear"):
        Client(url, "flo_x")
    with pytest.raises(CommandError, match="in the clear"):
        refuse_in_the_clear(url)


@pytest.mark.parametrize("url", ["", "ledger", "ftp://x", "https://"])
def test_a_url_must_be_one(url: str) -> None:
    with pytest.raises(CommandError) as caught:
        Client(url, None)
    assert caught.value.exit == 2


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_secret_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    secret = tmp_path / "profile.toml"
    secret.write_text('token = "flo_x"')
    secret.chmod(mode)
    for read in (read_profile, read_token):
        with pytest.raises(CommandError, match="can be read by others") as caught:
            read(secret)
        assert caught.value.exit == 2
        assert "flo_x" not in str(caught.value.detail)


def test_a_profile_gives_url_and_token(tmp_path: Path) -> None:
    token, profile = tmp_path / "admin.token", tmp_path / "profile.toml"
    token.write_text("flo_x\n")
    profile.write_text('url = "https://ledger.example"\ntoken_file = "admin.token"\n')
    token.chmod(0o600)
    profile.chmod(0o600)
    found = read_profile(profile)
    assert (found.url, found.token) == ("https://ledger.example", "flo_x")


def test_no_profile_is_an_empty_one(tmp_path: Path) -> None:
    assert read_profile(tmp_path / "none").url is None


@pytest.mark.parametrize("text", ["url = ", 'password = "x"'])
def test_a_profile_that_is_not_understood_is_refused(tmp_path: Path, text: str) -> None:
    profile = tmp_path / "profile.toml"
    profile.write_text(text)
    profile.chmod(0o600)
    with pytest.raises(CommandError) as caught:
        read_profile(profile)
    assert caught.value.exit == 2


def test_a_bad_setting_is_said_as_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("FEDLEDGER_PROFILE", str(tmp_path / "none"))
    monkeypatch.setenv("FEDLEDGER_PORT", "many")
    assert run(["peer", "list"]) == 2
    assert "FEDLEDGER_PORT" in capsys.readouterr().err


def test_without_a_token_nothing_is_sent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("FEDLEDGER_TOKEN", "FEDLEDGER_TOKEN_FILE", "FEDLEDGER_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FEDLEDGER_PROFILE", str(tmp_path / "none"))
    monkeypatch.setenv("FEDLEDGER_HOME", str(tmp_path))
    assert run(["peer", "list"]) == 4
    assert "no token" in capsys.readouterr().err


def test_the_tokens_of_this_machine_are_not_sent_to_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "admin.token").write_text("flo_x")
    (tmp_path / "admin.token").chmod(0o600)
    monkeypatch.delenv("FEDLEDGER_TOKEN", raising=False)
    monkeypatch.delenv("FEDLEDGER_TOKEN_FILE", raising=False)
    monkeypatch.setenv("FEDLEDGER_PROFILE", str(tmp_path / "none"))
    monkeypatch.setenv("FEDLEDGER_HOME", str(tmp_path))
    connect("http://127.0.0.1:1", None).close()
    with pytest.raises(CommandError) as caught:
        connect("https://elsewhere.example", None)
    assert caught.value.exit == 4


@pytest.mark.parametrize(
    "text", ["one two", "-----BEGIN\nsekrit\n-----END", "sekr\u00eft", "a\x00b"]
)
def test_what_is_no_token_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(CommandError) as caught:
        Client("http://127.0.0.1:1", text)
    assert caught.value.exit is Exit.INVALID
    assert not any(word in repr(caught.value) for word in ("sekr", "two", "a\x00b"))


def test_over_https_the_roots_are_believed_and_over_http_none_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[str] = []

    def roots(cafile: str) -> ssl.SSLContext:
        read.append(cafile)
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    monkeypatch.setattr(ssl, "create_default_context", roots)
    Client(HERE, None).close()
    assert read == []
    Client("https://ledger.example", None).close()
    assert len(read) == 1
