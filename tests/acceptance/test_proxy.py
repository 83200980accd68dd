"""fedledger behind real proxies, set up as the how-to page says: who called, limits, and the end."""

import itertools
import shlex
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from api.cli.redeem import Files, prepare, store
from api.handlers.views import pem
from api.wiring import system_clock
from migrations.embedded import Embedded
from support.aged import LONG_AGO, issued_before
from support.databases import bindir
from support.installation import Installation, installation, running
from support.pages import blocks
from support.tls_proxy import ADDRESS, KINDS, PAGE, TlsProxy, client, tls_proxy
from support.waiting import wait_until

pytestmark = pytest.mark.proxy

LIMIT = 6  # bad credentials from one source in a minute
# Every way to say "I am 203.0.113.9" that some server somewhere believes.
FORGERIES: tuple[dict[str, str], ...] = (
    {"X-Forwarded-For": "203.0.113.9"},
    {"X-Forwarded-For": "203.0.113.9, 127.0.0.1"},
    {"X_Forwarded_For": "203.0.113.9"},
    {"Forwarded": 'for=203.0.113.9;proto=https;host="evil.example"'},
    {"X-Real-IP": "203.0.113.9", "True-Client-IP": "203.0.113.9", "Client-IP": "203.0.113.9"},
    {"Connection": "close, X-Forwarded-For", "X-Forwarded-For": "203.0.113.9"},
)
HEADER = {"haproxy": "Client-Cert", "nginx": "X-SSL-Client-Cert"}
_numbers = itertools.count(1)


def somebody() -> str:
    """The address of a client that has not called before."""
    number = next(_numbers)
    return f"127.0.{1 + number // 250}.{1 + number % 250}"


@pytest.fixture(scope="module")
def place() -> Iterator[Installation]:
    (export,) = [
        text for _, text in blocks(PAGE, "sh") if "BEHIND_PROXY=true\nfedledger serve" in text
    ]
    said = dict(word.split("=", 1) for word in shlex.split(export) if "=" in word)
    with installation() as made:
        made.extra |= said | {"FEDLEDGER_BAD_CREDENTIALS_PER_MINUTE": str(LIMIT)}
        with running(made):
            yield made


@pytest.fixture(scope="module")
def roots(place: Installation) -> str:
    """What clients' chains end in, by the page's own command."""
    (export,) = [text for _, text in blocks(PAGE, "sh") if "cert roots" in text]
    (command,) = [line for line in export.splitlines() if "cert roots" in line]
    program, *arguments = shlex.split(command.partition(">")[0])
    assert program == "fedledger"
    return place.run(*arguments).out


def behind(place: Installation, kind: str) -> Installation:
    """Another service on the same home, which reads that proxy's header."""
    service = place.neighbour()
    service.extra = place.extra | {"FEDLEDGER_CLIENT_CERTIFICATES": HEADER[kind].lower()}
    return service


@pytest.fixture(scope="module", params=KINDS)
def proxy(
    request: pytest.FixtureRequest,
    place: Installation,
    roots: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[TlsProxy]:
    service, folder = behind(place, request.param), tmp_path_factory.mktemp("proxy")
    with running(service, "serve"), tls_proxy(request.param, folder, service.port, roots) as made:
        yield made


def last_denied(place: Installation) -> Any:
    """Who was turned away last, by the page's own command."""
    (command,) = [text for _, text in blocks(PAGE, "sh") if "call.denied" in text]
    program, *arguments = shlex.split(command)
    assert program == "fedledger"
    ended = place.run(*arguments)
    assert ended.code == 0, ended
    return ended.document["items"][0]["body"]["actor"]["source"]


def through(proxy: TlsProxy) -> dict[str, str]:
    """The environment of a command line somewhere else."""
    return {
        "FEDLEDGER_URL": proxy.url,
        "SSL_CERT_FILE": str(proxy.authority),
        "NO_PROXY": ADDRESS,
        "FEDLEDGER_HOME": "/nonexistent",
    }


# ---- the main requests ----------------------------------------------------------------------


def test_the_command_line_works_through_it(
    place: Installation, proxy: TlsProxy, tmp_path: Path
) -> None:
    afar = through(proxy) | {"FEDLEDGER_TOKEN_FILE": str(place.admin)}
    name = f"Through {proxy.kind}"
    peer = place.ok("peer", "register", "--name", name, "--base-url", "https://a.example", **afar)
    assert peer["id"] in {one["id"] for one in place.ok("peer", "list", "--all", **afar)["items"]}
    place.ok("peer", "activate", peer["id"], "--verification", "phoned", **afar)
    grant = place.ok(
        "grant", "propose", "--peer-id", peer["id"], "--subject-user-id", "user-1",
        "--max-rows", "10", "--resource", "tasks", "--expires-at", "+10d", **afar,
    )  # fmt: skip
    token = tmp_path / "enrollment.token"
    place.ok("enroll", "token", grant["id"], "--out", str(token), **afar)

    redeem = ("enroll", "redeem", "--out", str(tmp_path / "peer"), "--token-file", str(token))
    distrusting = place.run(*redeem, **through(proxy) | {"SSL_CERT_FILE": ""})
    assert distrusting.code == 7
    assert "certificate verify failed" in distrusting.err.lower()
    issued = place.ok(*redeem, **through(proxy))
    assert place.ok("cert", "status", issued["serial"], **afar)["status"] == "good"


def test_fifty_requests_over_one_connection(place: Installation, proxy: TlsProxy) -> None:
    source, ours = somebody(), set()
    with proxy.client(source, place.admin) as caller:
        for _ in range(50):
            answer = caller.get("/v1/peers")
            assert answer.status_code == 200
            ours.add(answer.extensions["network_stream"].get_extra_info("client_addr"))
    ((address, _),) = ours  # the proxy kept the connection
    assert address == source


# ---- who it was -----------------------------------------------------------------------------


def test_the_ledger_knows_the_real_client(place: Installation, proxy: TlsProxy) -> None:
    """Also where the proxy sends two clients' requests over one connection of its own."""
    one, other = somebody(), somebody()
    with proxy.client(one, place.admin) as first, proxy.client(other, place.admin) as second:
        for number, caller in enumerate((first, second, first)):
            name = f"{proxy.kind} {one} {number}"
            body = {"name": name, "base_url": "https://b.example"}
            assert caller.post("/v1/peers", json=body).status_code == 201
        events = first.get("/v1/events?topic=peer.registered.v1&newest_first=true&limit=3")
        assert events.status_code == 200, events.text
    sources = [event["body"]["actor"]["source"] for event in events.json()["items"]]
    assert sources == [one, other, one]


@pytest.mark.parametrize("forged", FORGERIES, ids=lambda forged: ", ".join(forged))
def test_the_address_cannot_be_forged(
    place: Installation, proxy: TlsProxy, forged: dict[str, str]
) -> None:
    real = somebody()
    with proxy.client(real) as caller:
        assert caller.get("/v1/peers", headers=forged).status_code == 401
    assert last_denied(place) == real


def test_several_forged_lines_are_no_better_than_one(place: Installation, proxy: TlsProxy) -> None:
    real = somebody()
    lines = [("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-For", "203.0.113.10")]
    with proxy.client(real) as caller:
        assert caller.get("/v1/peers", headers=lines).status_code == 401
    assert last_denied(place) == real


def test_past_the_proxy_the_header_is_not_believed(place: Installation) -> None:
    real = somebody()
    for forged in FORGERIES:
        with client(place.url, real) as caller:
            assert caller.get("/v1/peers", headers=forged).status_code == 401
        assert last_denied(place) == real


# ---- peers with their certificates ----------------------------------------------------------


@dataclass
class Peer:
    """A peer's machine: its files of one certificate in the last third of its life."""

    grant_id: str
    serial: str
    files: Files

    @property
    def presents(self) -> tuple[Path, Path]:
        return self.files.chain, self.files.key


def peer_with_an_old_certificate(
    place: Installation, proxy: TlsProxy, folder: Path, name: str
) -> Peer:
    with proxy.client(somebody(), place.admin) as admin:

        def made(path: str, body: dict[str, Any]) -> Any:
            answer = admin.post(path, json=body)
            assert answer.is_success, answer.text
            return answer.json()

        peer = made("/v1/peers", {"name": name, "base_url": "https://d.example"})
        made(f"/v1/peers/{peer['id']}/activate", {"verification": "phoned"})
        scope = {"resources": ["tasks"], "max_rows_per_query": 10}
        now = system_clock()
        grant = made("/v1/grants", {
            "peer_id": peer["id"], "subject_user_id": "user-1", "scope": scope,
            "not_before": (now - LONG_AGO).isoformat(),
            "expires_at": (now + timedelta(days=9)).isoformat(),
        })  # fmt: skip
        token = made(f"/v1/grants/{grant['id']}/enrollment-tokens", {})["token"]
    files = Files(folder / name)
    request = prepare(files)
    with Embedded(place.home, bindir=bindir()) as postgres:
        issued = issued_before(postgres.service_dsn, place.home, token, request)
    store(files, pem(issued.certificate), "".join(map(pem, (issued.certificate, *issued.chain))))
    return Peer(grant["id"], issued.serial, files)


def handed_on(kind: str, certificate: Path) -> str:
    """A certificate as the proxy of that kind would hand it on: what a forger would send."""
    text = certificate.read_text()
    if kind == "nginx":
        return quote(text, safe="")
    return f":{b64encode(ssl.PEM_cert_to_DER_cert(text)).decode()}:"


def grants_shown(caller: httpx.Client, **headers: str) -> tuple[int, list[str]]:
    answer = caller.get("/v1/grants", headers=headers)
    return answer.status_code, [one["id"] for one in answer.json().get("items", ())]


def test_a_peer_renews_through_it(place: Installation, proxy: TlsProxy, tmp_path: Path) -> None:
    peer = peer_with_an_old_certificate(place, proxy, tmp_path, f"Renews by {proxy.kind}")
    (page,) = [text for _, text in blocks(PAGE, "sh") if "cert renew" in text]
    program, *arguments = shlex.split(page)
    assert program == "fedledger"
    new = Files(tmp_path / "new")
    told = {"https://ledger.example.org": proxy.url, "old/chain.pem": str(peer.files.chain),
            "old/client.key": str(peer.files.key), "new": str(new.directory)}  # fmt: skip
    renew = [told.get(word, word) for word in arguments]
    first = place.ok(*renew, **through(proxy))
    assert first["grant_id"] == peer.grant_id
    assert first["serial"] != peer.serial
    key = new.key.read_bytes()
    assert key != peer.files.key.read_bytes()
    # It is finished, and says so; what a crash left unfinished goes on where it was.
    assert place.run(*renew, **through(proxy)).code == 1
    new.certificate.unlink()
    new.chain.unlink()
    assert place.ok(*renew, **through(proxy))["serial"] == first["serial"]
    assert new.key.read_bytes() == key
    with proxy.client(somebody(), presents=(new.chain, new.key)) as caller:
        assert grants_shown(caller) == (200, [peer.grant_id])
        assert place.ok("cert", "revoke", first["serial"], "--reason", "lost")["revoked_at"]
        assert grants_shown(caller) == (401, [])
    # The predecessor works on to its own end, and is renewed once only.
    with proxy.client(somebody(), presents=peer.presents) as caller:
        assert grants_shown(caller) == (200, [peer.grant_id])
    early = [str(tmp_path / "third") if word == str(new.directory) else word for word in renew]
    assert place.run(*early, **through(proxy)).code == 4
    assert place.ok("grant", "show", peer.grant_id)["status"] == "suspended"


def test_a_forged_certificate_is_dropped(
    place: Installation, proxy: TlsProxy, tmp_path: Path
) -> None:
    mine, theirs = (
        peer_with_an_old_certificate(place, proxy, tmp_path, f"{name} by {proxy.kind}")
        for name in ("Mine", "Theirs")
    )
    forged = {name: handed_on(kind, theirs.files.certificate) for kind, name in HEADER.items()}
    forged |= {name.replace("-", "_"): text for name, text in forged.items()}
    with proxy.client(somebody()) as caller:
        assert grants_shown(caller, **forged) == (401, [])
    with proxy.client(somebody(), presents=mine.presents) as caller:
        assert grants_shown(caller, **forged) == (200, [mine.grant_id])
        assert grants_shown(caller) == (200, [mine.grant_id])
    with proxy.client(somebody(), place.admin, presents=mine.presents) as caller:
        assert grants_shown(caller) == (401, [])  # which of the two was meant?
    # Past the proxy nobody is believed, but who comes from its address.
    with client(f"http://127.0.0.1:{proxy.upstream}", somebody()) as caller:
        assert grants_shown(caller, **forged) == (401, [])
    with client(f"http://127.0.0.1:{proxy.upstream}", "127.0.0.1") as caller:
        assert grants_shown(caller, **forged) == (200, [theirs.grant_id])


# ---- limits ---------------------------------------------------------------------------------


def test_failures_are_counted_per_client_not_per_proxy(proxy: TlsProxy) -> None:
    bad = {"Authorization": "Bearer flo_0000000000000000_" + "0" * 49}
    with proxy.client(somebody()) as guesser, proxy.client(somebody()) as other:

        def guess() -> httpx.Response:
            # A new forged address each time must not be a new source.
            forged = {"X-Forwarded-For": f"198.51.100.{next(_numbers) % 250}"}
            return guesser.get("/v1/peers", headers=bad | forged)

        assert [guess().status_code for _ in range(LIMIT)] == [401] * LIMIT
        # The allowance grows again while a slow machine uses it up.
        answer = wait_until(
            lambda: again if (again := guess()).status_code == 429 else None, "too many"
        )
        assert answer is not None
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert other.get("/v1/peers", headers=bad).status_code == 401


@pytest.mark.parametrize("size", [300_000, 900_000, 3_000_000])
def test_a_body_that_is_too_large_is_refused(
    place: Installation, proxy: TlsProxy, size: int
) -> None:
    body = b'{"name": "' + b"x" * size + b'"}'
    with proxy.client(somebody(), place.admin) as caller:
        answer = caller.post(
            "/v1/peers", content=body, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 413
        if size < 1024 * 1024:
            assert answer.headers["Content-Type"] == "application/problem+json"
        assert caller.get("/livez").status_code == 200


def test_slow_clients_hold_nobody_up(place: Installation, proxy: TlsProxy) -> None:
    """More of them than the service has threads, half in the headers, half in the body."""
    beginnings = (
        b"GET /v1/peers HTTP/1.1\r\nHost: ledger.example.org\r\nX-Slow: ",
        b"POST /v1/peers HTTP/1.1\r\nHost: ledger.example.org\r\nContent-Length: 100000\r\n\r\n{",
    )
    with ExitStack() as held:
        for number in range(40):
            slow = held.enter_context(proxy.connect(somebody()))
            slow.sendall(beginnings[number % 2])
        with proxy.client(somebody(), place.admin) as caller:
            for _ in range(10):
                begun = time.monotonic()
                assert caller.get("/v1/peers").status_code == 200
                assert time.monotonic() - begun < 5


# ---- the end --------------------------------------------------------------------------------


@dataclass
class Caller:
    """Registers peers one after the other until told to stop, and remembers every answer."""

    proxy: TlsProxy
    token: Path
    stop: threading.Event

    def __post_init__(self) -> None:
        self.source = somebody()
        self.statuses: list[int] = []
        self.registered: set[str] = set()
        self.broken: list[str] = []
        self.thread = threading.Thread(target=self._call)
        self.thread.start()

    def _call(self) -> None:
        with self.proxy.client(self.source, self.token) as http:
            for number in itertools.count():
                if self.stop.is_set():
                    return
                name = f"{self.proxy.kind} until the end {self.source} {number}"
                try:
                    answer = http.post(
                        "/v1/peers", json={"name": name, "base_url": "https://c.example"}
                    )
                except httpx.TransportError as error:
                    self.broken.append(f"after {self.statuses[-3:]}: {error!r}")
                    continue
                self.statuses.append(answer.status_code)
                if answer.status_code == 201:
                    self.registered.add(answer.json()["id"])


def test_the_service_ends_behind_it_without_a_broken_answer(
    place: Installation, proxy: TlsProxy, roots: str, tmp_path: Path
) -> None:
    ending = place.neighbour()
    stop = threading.Event()
    with running(ending) as service, tls_proxy(proxy.kind, tmp_path, ending.port, roots) as front:
        callers = [Caller(front, place.admin, stop) for _ in range(4)]
        try:
            wait_until(lambda: all(len(one.statuses) > 5 for one in callers), "they call")
            assert service.terminate() == 0
            wait_until(lambda: all(one.statuses[-1] > 499 for one in callers), "they notice")
        finally:
            stop.set()
            for one in callers:
                one.thread.join()
        assert [one.broken for one in callers] == [[]] * len(callers)
        for one in callers:
            answered = one.statuses.index(next(s for s in one.statuses if s != 201))
            assert set(one.statuses[answered:]) <= {502, 503}
        with running(ending), front.client(somebody(), place.admin) as http:
            wait_until(lambda: http.get("/livez").status_code == 200, "the proxy finds it again")
    # Whatever was promised was kept.
    kept = {peer["id"] for peer in place.ok("peer", "list", "--all")["items"]}
    assert set().union(*(one.registered for one in callers)) <= kept
