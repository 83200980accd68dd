"""Calls the REST interface of a ledger for the command line. It renders nothing.

Every POST carries an Idempotency-Key, so that a call whose answer was lost can be repeated and gets
the truth instead of a second event. Errors leave here as `CommandError` with their exit code.
"""

import json
import os
import ssl
import stat
import time
import tomllib
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import httpx

from api.cli.exits import CommandError, Exit, from_problem
from api.settings import ClientSettings, Settings, SettingsError, load, load_client

ADMIN_TOKEN: Final = "admin.token"  # noqa: S105 - a file's name
_TIMEOUT: Final = httpx.Timeout(30.0, connect=5.0)  # seconds; above every limit of the server's own
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_PROBLEM: Final = "application/problem+json"
_RETRIES: Final = 2
_RETRIED_STATUS: Final = 503
_LONGEST_WAIT: Final = 2.0  # seconds; somebody is waiting at a terminal
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_PROFILE_KEYS: Final = frozenset({"url", "token", "token_file"})


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer: `document` is its JSON or None, `content` its bytes as they came."""

    status: int
    document: Any
    content: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Profile:
    """What a profile file says; each may be missing."""

    url: str | None = None
    token: str | None = None
    token_file: Path | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which ledger to call, with which token, and the file the token is in, if it is in one."""

    url: str
    token: str | None = field(repr=False)
    file: Path | None


def private_text(path: Path) -> str:
    """Return the text of a file only its owner may read.

    Raises:
        CommandError: the file is missing or unreadable, or others than its owner can read it.
    """
    try:
        with path.open(encoding="utf-8") as file:
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & _OTHERS:
                raise CommandError(
                    Exit.INVALID,
                    f"{path} can be read by others (mode {mode:04o})",
                    "A secret that others could have read is not used.",
                    f"Make it private (chmod 600 {path}) and consider replacing the token.",
                )
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(Exit.INVALID, f"cannot read {path}", str(error)) from error


def read_token(path: Path) -> str:
    """Return the token in a private file, without the white space around it."""
    return private_text(path).strip()


def read_profile(path: Path) -> Profile:
    """Return what the TOML file says (`url`, and `token` or `token_file`); nothing if it is absent.

    Raises:
        CommandError: it is not private, not TOML, or holds another key.
    """
    if not path.exists():
        return Profile()
    try:
        values = tomllib.loads(private_text(path))
    except tomllib.TOMLDecodeError as error:
        raise CommandError(Exit.INVALID, f"{path} is not TOML", str(error)) from error
    if unknown := sorted(values.keys() - _PROFILE_KEYS):
        known = ", ".join(sorted(_PROFILE_KEYS))
        raise CommandError(Exit.INVALID, f"{path} holds {', '.join(unknown)}", f"Known: {known}.")
    token, file = values.get("token"), None
    if token is None and "token_file" in values:
        file = path.parent / Path(values["token_file"]).expanduser()
        token = read_token(file)
    return Profile(values.get("url"), token, file)


def refuse_in_the_clear(url: str) -> None:
    """Refuse to carry a secret to another machine without TLS.

    Raises:
        CommandError: the URL is http and its host is not this machine.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
        raise CommandError(
            Exit.INVALID,
            "a token is never sent in the clear",
            f"{parts.hostname} is not this machine and the URL is not https.",
        )


_S = TypeVar("_S", Settings, ClientSettings)


def _read(environment: Callable[[], _S]) -> _S:
    try:
        return environment()
    except SettingsError as error:
        raise CommandError(Exit.INVALID, "A setting cannot be used", str(error)) from error


def ledger_url(given: str | None) -> str:
    """Return the URL to call: the option, the environment, the profile, this machine's own."""
    chosen = _read(load_client)
    return given or chosen.url or read_profile(chosen.profile).url or _local_url()


def connect(url: str | None, token_file: Path | None) -> "Client":
    """Return a client for what was asked, by option, environment, profile, or this machine's.

    Raises:
        CommandError: no token is found, or its file is not private.
    """
    found = chosen(url, token_file)
    if found.token is None:
        raise CommandError(
            Exit.AUTH,
            "no token to call the ledger with",
            hint="Give --token-file FILE, set FEDLEDGER_TOKEN_FILE, or write a profile "
            f"({_read(load_client).profile}, mode 0600).",
        )
    return Client(found.url, found.token)


def chosen(url: str | None, token_file: Path | None) -> Chosen:
    """Return what `connect` would use, and where the token comes from.

    Raises:
        CommandError: a file with a token is not private or cannot be read.
    """
    environment = _read(load_client)
    profile = read_profile(environment.profile)
    address = url or environment.url or profile.url or _local_url()
    if path := token_file or environment.token_file:
        return Chosen(address, read_token(path), path)
    if environment.token:
        return Chosen(address, environment.token.get_secret_value(), None)
    if profile.token:
        return Chosen(address, profile.token, profile.token_file)
    path = _local_token_file(address)
    return Chosen(address, read_token(path) if path else None, path)


def _local_url() -> str:
    local = _read(load)
    host = f"[{local.host}]" if ":" in local.host else local.host
    return f"http://{host}:{local.port}"


def _local_token_file(address: str) -> Path | None:
    """Return the file that `init` left on this machine, for calls to this machine only."""
    path = _read(load).home / ADMIN_TOKEN
    if urlsplit(address).hostname not in _LOOPBACK or not os.access(path, os.R_OK):
        return None
    return path


class Client:
    """One ledger, seen with one token (or none). Close it, or use it as a context manager."""

    def __init__(
        self,
        url: str,
        token: str | None,
        transport: httpx.BaseTransport | None = None,
        *,
        presents: tuple[Path, Path] | None = None,
    ) -> None:
        """`presents`: files of the client certificate, with its chain if there is one, and its key.

        Raises:
            CommandError: the URL, the token or the certificate cannot be used.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise CommandError(Exit.INVALID, "the ledger's URL is not an http or https URL")
        if token:
            refuse_in_the_clear(url)
            if not (token.isascii() and token.isprintable() and " " not in token):
                # Such as a key file given by mistake: the HTTP library's error would quote it.
                raise CommandError(Exit.INVALID, "what was given as the token is no token")
        self.url = url.rstrip("/")
        headers = {"Accept": "application/json, application/problem+json;q=0.9, */*;q=0.1"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        # A proxy from the environment must never see a call to this machine.
        self._http = httpx.Client(
            base_url=self.url,
            headers=headers,
            timeout=_TIMEOUT,
            transport=transport,
            trust_env=parts.hostname not in _LOOPBACK,
            verify=_presenting(url, *presents) if presents else _believing(parts.scheme),
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        reports: Sequence[int] = (),
    ) -> Answer:
        """Do one call; `key` is the Idempotency-Key of a POST, a new one by default.

        `reports`: statuses that may come with the document of a success, as for bad health.

        Raises:
            CommandError: any other answer but 2xx, or none.
        """
        sent = dict(headers or {})
        if method.upper() == "POST":
            sent["Idempotency-Key"] = key or str(uuid.uuid4())
        content = None
        if body is not None:
            sent["Content-Type"] = "application/json"
            content = json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
        request = self._http.build_request(
            method.upper(), path, params=dict(query or {}), content=content, headers=sent
        )
        return _answer(self._send(request), reports)

    @contextmanager
    def download(
        self, path: str, query: Mapping[str, str]
    ) -> Iterator[tuple[Mapping[str, str], Iterator[bytes]]]:
        """Yield the headers and the bytes of a long answer, as they come.

        Raises:
            CommandError: any answer but 2xx, none, or one that is cut off.
        """
        try:
            with self._http.stream("GET", path, params=dict(query)) as response:
                if not response.is_success:
                    response.read()
                    _answer(response, ())
                yield dict(response.headers), response.iter_bytes()
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def pages(self, path: str, query: Mapping[str, str]) -> Iterator[Any]:
        """Yield the document of each page, following its `next` cursor to the end."""
        cursor: dict[str, str] = {}
        while True:
            document = self.call("GET", path, query={**query, **cursor}).document
            yield document
            following = document.get("next") if isinstance(document, Mapping) else None
            if not following:
                return
            cursor = {"cursor": following}

    def _send(self, request: httpx.Request) -> httpx.Response:
        """Send; repeat a call that may be repeated when no answer came or the server is busy."""
        repeatable = request.method in {"GET", "HEAD"} or "Idempotency-Key" in request.headers
        for left in reversed(range(_RETRIES + 1)):
            try:
                response = self._http.send(request)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                raise self._unreachable(error) from error  # nothing was sent, nobody is there
            except httpx.TransportError as error:
                if not (left and repeatable):
                    raise self._unreachable(error, request) from error
            else:
                passing = response.status_code == _RETRIED_STATUS and not _is_for_good(response)
                if not (passing and left and repeatable):
                    return response
                time.sleep(_wait(response.headers.get("retry-after", "")))
        raise AssertionError("the last try returns or raises")

    def _unreachable(
        self, error: httpx.TransportError, request: httpx.Request | None = None
    ) -> CommandError:
        key = request.headers.get("Idempotency-Key") if request is not None else None
        return CommandError(
            Exit.UNREACHABLE,
            f"no answer from {self.url}",
            f"{type(error).__name__}: {error}",
            f"It may have been done: repeat it with --idempotency-key {key} to learn the truth."
            if key
            else "Is the service running (`fedledger up`), and is the URL right (FEDLEDGER_URL)?",
        )


def _believing(scheme: str) -> ssl.SSLContext | bool:
    """Whom a call believes: the HTTP library's roots. Over http nobody is asked, and to read them
    would take longer than the call."""
    if scheme == "https":
        return True
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # believes nobody


def _presenting(url: str, certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS that proves who calls. Raises CommandError."""
    if urlsplit(url).scheme != "https":
        raise CommandError(
            Exit.INVALID,
            "a client certificate is presented over https only",
            "TLS ends in the proxy in front of the ledger.",
            "Give the proxy's URL.",
        )
    context = httpx.create_ssl_context()  # which believes SSL_CERT_FILE, as all calls do
    try:
        # An encrypted key gets an error instead of a question that nobody is there to answer.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise CommandError(
            Exit.INVALID, f"{certificate} and {key} cannot be presented", str(error)
        ) from error
    return context


def _is_for_good(response: httpx.Response) -> bool:
    """Whether asking again can change nothing: a person has to look first."""
    return b'"lost-history"' in response.content


def _wait(retry_after: str) -> float:
    """Return how long to wait before the next try, in seconds: what was asked for, but not long."""
    return min(float(retry_after), _LONGEST_WAIT) if retry_after.isdecimal() else 0.0


def _answer(response: httpx.Response, reports: Sequence[int]) -> Answer:
    kind = response.headers.get("content-type", "").partition(";")[0].strip()
    document: Any = None
    if kind.endswith("json") and response.content:
        try:
            document = response.json()
        except ValueError as error:
            raise CommandError(Exit.UNREACHABLE, "the answer is not JSON", str(error)) from error
    is_report = response.status_code in reports and kind != _PROBLEM and document is not None
    if not response.is_success and not is_report:
        problem = document if isinstance(document, Mapping) else {}
        raise from_problem(response.status_code, problem, response.headers.get("x-request-id", ""))
    return Answer(response.status_code, document, response.content, dict(response.headers))
