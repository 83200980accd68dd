"""No secret is anywhere but where it belongs: one installation, every job and error, then a search.

The service and its PostgreSQL log all they can. Sought are every token, every private key and every
password of the database, as they are and in the encodings they might travel in; searched are the
logs, every row of every table, every answer over HTTP, what the commands said on stderr, and the
command lines of all processes. That the search itself works is shown with secrets that were planted.
"""

import base64
import binascii
import json
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from psycopg import sql

from ledger.scope import SENSITIVE
from migrations.embedded import DATABASE, Embedded
from support.databases import bindir
from support.http import csr
from support.installation import Installation, installation, running
from support.waiting import wait_until

pytestmark = [pytest.mark.postgres, pytest.mark.slow]


# ---- what is sought -------------------------------------------------------------------------


def needles(name: str, *values: bytes) -> dict[bytes, str]:
    """How a secret may look: as it is, in hex, in base64 from each of its three beginnings."""
    found = {}
    for value in values:
        forms = [value, value.hex().encode(), value.hex().upper().encode()]
        for skipped in range(3):
            # Without the ends, which depend on what stands before and after.
            encoded = base64.b64encode(value[skipped:])
            forms += [encoded[:-4], base64.urlsafe_b64encode(value[skipped:])[:-4]]
        found |= {form: name for form in forms if len(form) >= 16}
    return found


def of_key(name: str, pem: bytes) -> dict[bytes, str]:
    """The private number itself, and the lines of the file that hold of it: the others hold the
    public key, which is in every certificate."""
    key = load_pem_private_key(pem, None)
    if isinstance(key, EllipticCurvePrivateKey):
        raw = key.private_numbers().private_value.to_bytes((key.key_size + 7) // 8)
        decimal = [str(key.private_numbers().private_value).encode()]
    else:
        assert isinstance(key, Ed25519PrivateKey), type(key)
        raw, decimal = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()), []
    body = [line for line in pem.splitlines() if b"-" not in line]
    start = base64.b64decode(b"".join(body)).index(raw)
    lines = [
        line
        for number, line in enumerate(body)
        if start - 24 < number * 48 < start + len(raw) - 8  # 64 characters are 48 bytes
    ]
    assert lines
    return needles(name, raw) | dict.fromkeys([*lines, *decimal], name)


@dataclass
class Secrets:
    """Everything that must not be found: the form sought → whose it is."""

    forms: dict[bytes, str] = field(default_factory=dict)

    def token(self, text: str) -> str:
        """Take note of a token's secret part (its accessor may be shown) and return the token."""
        kind, accessor, secret = text.strip().split("_")
        self.forms |= needles(f"{kind} token {accessor}", secret.encode(), secret[:43].encode())
        return text.strip()

    def in_home(self, home: Path) -> Self:
        """Take note of all that the installation's own files hold. An unknown kind is an error."""
        for file in [path for path in home.rglob("*") if path.suffix in {".pgpass", ".key"}]:
            if "data" in file.relative_to(home).parts:
                continue
            content = file.read_bytes()
            if file.suffix == ".pgpass":
                password = content.strip().rpartition(b":")[2]
                assert len(password) >= 16
                self.forms |= needles(file.name, password)
            elif b"PRIVATE KEY" in content:
                self.forms |= of_key(str(file.relative_to(home)), content)
            else:
                self.forms |= needles(str(file.relative_to(home)), content.strip())
        return self


# ---- what is searched -----------------------------------------------------------------------


@dataclass
class Traces:
    """Everything the installation left behind or gave away, by kind."""

    place: Installation
    answers: list[bytes] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    command_lines: set[bytes] = field(default_factory=set)

    def kept(self) -> Iterator[tuple[str, bytes]]:
        """Kind of place → its content."""
        for log in self.place.home.glob("*.log"):
            yield "service log", log.read_bytes()
        for log in (self.place.home / "log").iterdir():
            yield "database log", log.read_bytes()
        with Embedded(self.place.home, bindir=bindir()) as postgres:
            dsn = psycopg.conninfo.make_conninfo(postgres.superuser_dsn, dbname=DATABASE)
            with psycopg.connect(dsn) as connection:
                yield from _rows(connection)
        yield "answers", b"\n".join(self.answers)
        yield "stderr", "\n".join(self.said).encode()
        yield "command lines", b"\n".join(self.command_lines)

    def findings(self, sought: Mapping[bytes, str]) -> set[tuple[str, str]]:
        """(kind of place, whose secret) for every one that shows."""
        return {
            (kind, whose)
            for kind, content in self.kept()
            for form, whose in sought.items()
            if form in content
        }

    @contextmanager
    def watching_processes(self) -> Iterator[None]:
        """Take down the command line of everything that runs meanwhile."""
        ending = threading.Event()

        def watch() -> None:
            while not ending.wait(0.03):
                for entry in Path("/proc").glob("[0-9]*/cmdline"):
                    with suppress(OSError):
                        self.command_lines.add(entry.read_bytes())

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            ending.set()
            thread.join()


def _rows(connection: psycopg.Connection[Any]) -> Iterator[tuple[str, bytes]]:
    """Every row of every table of ours, in each of its columns' plain forms."""
    tables = connection.execute(
        "SELECT c.oid::regclass::text FROM pg_class c WHERE c.relkind = 'r' "
        "AND c.relnamespace = 'public'::regnamespace"
    ).fetchall()
    assert len(tables) >= 12
    for (table,) in tables:
        kind = "event bodies" if table == "ledger_events" else "tables"
        query = sql.SQL("SELECT * FROM {}").format(sql.Identifier(table))
        for row in connection.execute(query):
            values = [value if isinstance(value, bytes) else str(value).encode() for value in row]
            yield kind, b"\n".join(values)


# ---- what is done ---------------------------------------------------------------------------


class Life:
    """One installation's life: the main job by command line, every error over HTTP."""

    def __init__(self, traces: Traces, sought: Secrets, folder: Path, client: httpx.Client) -> None:
        self.place, self.traces, self.sought, self.folder = traces.place, traces, sought, folder
        self.client = client
        self.admin = sought.token(self.place.admin.read_text())
        self.approver = sought.token(self.place.approver.read_text())

    def run(self, *arguments: str, code: int = 0, form: tuple[str, ...] = ("--json",)) -> Any:
        ended = self.place.run(*arguments, *form)
        self.traces.said.append(ended.err)
        assert ended.code == code, ended
        return json.loads(ended.out) if ended.out.startswith("{") else None

    def send(self, method: str, path: str, token: str = "", **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        headers |= more.pop("headers", {})
        answer = self.client.request(method, path, headers=headers, **more)
        shown = f"{answer.headers}".encode() + answer.content
        # A success may show a token once, to whom it was made for; an error never.
        if answer.is_error:
            self.traces.answers.append(shown)
        return answer

    def grant(self, *resources: str) -> str:
        made = self.run(
            "peer", "register", "--name", f"Peer {secrets.token_hex(4)}",
            "--base-url", "https://peer.example",
        )  # fmt: skip
        self.run("peer", "activate", made["id"], "--verification", "phoned")
        named = [word for resource in resources for word in ("--resource", resource)]
        proposed = self.run(
            "grant", "propose", "--peer-id", made["id"], "--subject-user-id", "user-1",
            "--max-rows", "10", "--expires-at", "+10d", "--reason", "needed", *named,
        )  # fmt: skip
        if set(resources) & set(SENSITIVE):
            self.run(
                "grant", "approve", proposed["id"], "--terms-digest", proposed["terms_digest"],
                "--reason", "seen", "--token-file", str(self.place.approver),
            )  # fmt: skip
        return str(proposed["id"])

    def main_job(self) -> str:
        """Propose, approve, enroll, look, revoke; returns a token that is still good."""
        grant = self.grant("credentials")
        file = self.folder / "enrollment.token"
        self.run("enroll", "token", grant, "--out", str(file))
        self.sought.token(file.read_text())
        self.run("enroll", "redeem", "--out", str(self.folder / "peer"), "--token-file", str(file))
        self.sought.forms |= of_key(
            "the peer's key", (self.folder / "peer" / "client.key").read_bytes()
        )
        used = file.read_text().strip()
        self.redeem(used, csr(), 401)  # replayed with another request: an alarm
        operator = self.run("operator", "register", "--kind", "machine", "--roles", "gateway")
        credential = self.folder / "gateway.token"
        self.run("operator", "credential", operator["id"], "--out", str(credential))
        gateway = self.sought.token(credential.read_text())
        assert self.send("GET", "/v1/peers", gateway).status_code == 403
        self.run("operator", "disable", operator["id"], "--reason", "gone")
        assert self.send("GET", "/v1/peers", gateway).status_code == 401
        made = self.send("POST", f"/v1/grants/{grant}/enrollment-tokens", self.admin, json={})
        good = self.sought.token(made.json()["token"])
        self.run("ca", "rotate")
        self.run("database", "rotate", form=())
        self.run("grant", "revoke", grant, "--reason", "over")
        return good

    def redeem(self, token: str, request: str, status: int) -> None:
        answer = self.send("POST", "/v1/enrollments", json={"token": token, "csr": request})
        assert answer.status_code == status, answer.text

    def mistakes(self) -> None:
        """Secrets where they do not belong, as people and programs put them there."""
        grant = self.grant("tasks")
        made = self.send("POST", f"/v1/grants/{grant}/enrollment-tokens", self.admin, json={})
        token = self.sought.token(made.json()["token"])
        key = (self.folder / "peer" / "client.key").read_text()
        self.redeem(token, "no request", 422)
        self.redeem(token, key, 422)
        self.redeem(self.admin, csr(), 401)
        self.redeem(_another_secret(token), csr(), 401)
        for bearer in (token, _another_secret(self.admin), self.approver + "x", key.split("\n")[1]):
            assert self.send("GET", "/v1/peers", bearer).status_code == 401
        headers = {"Authorization": f"Token {self.admin}"}
        assert self.send("GET", "/v1/peers", headers=headers).status_code == 401
        for body in self._hostile_bodies(token, key):
            answer = self.send(
                "POST", "/v1/enrollments", content=body,
                headers={"Content-Type": "application/json"},
            )  # fmt: skip
            assert 400 <= answer.status_code < 500, (body, answer.text)
        name = {"name": self.admin, "base_url": f"https://x:{self.approver}@peer.example"}
        assert self.send("POST", "/v1/peers", self.admin, json=name).status_code == 422
        for path in (f"/v1/peers/{self.admin}", f"/v1/{self.admin}", f"/{token}?x={self.admin}"):
            assert self.send("GET", path, self.admin).status_code == 404
        for query in (f"name={self.approver}", f"{self.approver}=1", f"cursor={self.approver}"):
            assert self.send("GET", f"/v1/peers?{query}", self.admin).status_code in {200, 422}
        for header in ("If-Match", "X-Request-Id", "X-Correlation-Id", "Content-Type", "Cookie"):
            sent = {header: self.approver}
            self.send("POST", "/v1/peers", self.admin, content=b"{}", headers=sent)
        self.run("peer", "list", "--token-file", str(self._file("bad", token)), code=4)
        self.run("peer", "list", "--token-file", str(self._file("worse", key)), code=2)

    def _hostile_bodies(self, token: str, key: str) -> list[bytes]:
        whole = json.dumps({"token": token, "csr": key}).encode()
        return [
            whole[:-1],
            whole + b"}",
            whole.replace(b'"csr"', b'"token"'),
            json.dumps({token: 1, "token": token, "csr": key}).encode(),
            json.dumps([token, key]).encode(),
            json.dumps({"token": [token], "csr": {token: key}}).encode(),
            json.dumps({"token": token + "\0", "csr": "\ud800" + token}).encode(),
            b'{"token": "' + token.encode() + b'\xff", "csr": ""}',
            token.encode(),
            key.encode(),
        ]

    def _file(self, name: str, content: str) -> Path:
        path = self.folder / name
        path.write_text(content)
        path.chmod(0o600)
        return path

    def tracebacks(self) -> None:
        """Connections that end in the middle: whatever is logged then, with all its frames."""
        ending = threading.Event()
        with Embedded(self.place.home, bindir=bindir()) as postgres:

            def cut() -> None:
                query = (
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE usename = 'fedledger_service'"
                )
                with psycopg.connect(postgres.superuser_dsn, autocommit=True) as connection:
                    while not ending.wait(0.01):
                        connection.execute(query)

            thread = threading.Thread(target=cut)
            thread.start()
            try:
                for _ in range(300):
                    self.send("GET", "/v1/peers", self.admin)
                    self.redeem_somehow()
                    if b'"failed"' in b"".join(log for kind, log in self._service_logs()):
                        break
            finally:
                ending.set()
                thread.join()

    def redeem_somehow(self) -> None:
        token = f"fle_{'0' * 16}_{'0' * 49}"
        self.send("POST", "/v1/enrollments", json={"token": token, "csr": csr()})

    def _service_logs(self) -> Iterator[tuple[str, bytes]]:
        for log in self.place.home.glob("*.log"):
            yield "service log", log.read_bytes()


def _another_secret(token: str) -> str:
    kind, accessor, secret = token.split("_")
    return f"{kind}_{accessor}_{secret[::-1]}"


def _log_everything(home: Path) -> None:
    """Every statement with its parameters, however long."""
    with (
        Embedded(home, bindir=bindir()) as postgres,
        psycopg.connect(postgres.superuser_dsn, autocommit=True) as connection,
    ):
        for setting in ("log_statement = 'all'", "log_error_verbosity = verbose",
                        "log_min_messages = debug1", "log_parameter_max_length_on_error = -1"):  # fmt: skip
            connection.execute(f"ALTER SYSTEM SET {setting}".encode())
        connection.execute("SELECT pg_reload_conf()")


def test_no_secret_is_found_anywhere_and_a_planted_one_is(tmp_path: Path) -> None:
    with installation() as place:
        place.extra |= {
            "FEDLEDGER_URL": place.url,
            "FEDLEDGER_LOG_LEVEL": "debug",
            "FEDLEDGER_TOKEN_FILE": str(place.admin),
        }
        traces, sought = Traces(place), Secrets()
        with traces.watching_processes():
            traces.said.append(place.run("init").err)
            _log_everything(place.home)
            sought.in_home(place.home)
            with running(place, "serve"), place.http(None) as client:
                life = Life(traces, sought, tmp_path, client)
                good = life.main_job()
                life.mistakes()
                life.tracebacks()
                sought.in_home(place.home)  # what was rotated in has secrets of its own
                assert len(sought.forms) > 100
                log = (place.home / f"serve-{place.port}.log").read_text()
                assert "Traceback" in log, "no failure was logged: the search would prove little"
                assert traces.findings(sought.forms) == set()
                _assert_planted_ones_are_found(traces, life, good)


def _assert_planted_ones_are_found(traces: Traces, life: Life, secret: str) -> None:
    """The same search finds the same secret once it stands where each of the places would be."""
    place, shown = traces.place, secret.split("_")[2]
    everywhere = {"service log", "database log", "event bodies", "tables", "answers", "stderr",
                  "command lines"}  # fmt: skip
    made = life.send(
        "POST", "/v1/peers", life.admin, json={"name": shown, "base_url": "https://p.example"}
    )
    assert made.status_code == 201, made.text  # an event's body, a row, a statement's parameter
    with (place.home / f"serve-{place.port}.log").open("a") as log:
        log.write(json.dumps({"event": base64.b64encode(f"x{shown}".encode()).decode()}))
    traces.answers.append(binascii.hexlify(shown.encode()))
    traces.said.append(f"error: {shown}")
    with traces.watching_processes():
        command = [sys.executable, "-c", "import sys; sys.stdin.read()", shown]
        with subprocess.Popen(command, stdin=subprocess.PIPE):  # ends with its input, at the end
            wait_until(
                lambda: any(shown.encode() in line for line in traces.command_lines.copy()),
                "the command line was seen",
            )
    found = traces.findings(needles("planted", shown.encode()))
    assert {kind for kind, _ in found} == everywhere
