"""A certificate in a header: from whom it is taken, and the one spelling of each form."""

import base64
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote

import pytest

from api.client_certificates import LONGEST, PRESENTED, Form, believing, read
from api.server import Server
from api.settings import Settings

DER = bytes(range(256)) * 3
BASE64 = base64.b64encode(DER).decode()


def sequence(text: str = BASE64) -> str:
    return f":{text}:"


def pem(text: str = BASE64, *, width: int = 64) -> str:
    lines = "".join(text[at : at + width] + "\n" for at in range(0, len(text), width))
    return f"-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n"


def escaped(text: str) -> str:
    return quote(text, safe="")


def test_both_forms_are_read() -> None:
    assert read("client-cert", sequence()) == DER
    assert read("x-ssl-client-cert", escaped(pem())) == DER
    assert read("x-ssl-client-cert", escaped(pem().rstrip())) == DER


def test_a_form_is_read_as_no_other() -> None:
    assert read("client-cert", escaped(pem())) is None
    assert read("x-ssl-client-cert", sequence()) is None


HOSTILE: dict[str, str] = {
    "two headers, as servers join them": f"{sequence()}, {sequence()}",
    "a list": f"{sequence()},{sequence()}",
    "parameters": f"{sequence()};a=1",
    "nothing": "",
    "an empty sequence": "::",
    "no colons": BASE64,
    "one colon": f":{BASE64}",
    "white space inside": sequence(f"{BASE64[:40]} {BASE64[40:]}"),
    "a line end inside": sequence(f"{BASE64[:40]}\n{BASE64[40:]}"),
    "white space behind": f"{sequence()} ",
    "a quoted string": f'"{BASE64}"',
    "the URL's alphabet": sequence("-_-_"),
    "not base64": sequence("!!!!"),
    "padding that is missing": sequence("AAA"),
    "padding in the middle": sequence("AA==AAAA"),
    "bits that are dropped": sequence("AB=="),
    "beyond ASCII": sequence("ÀÀÀÀ"),
    "too long": sequence("A" * (LONGEST - 1)),
}
HOSTILE_PEM: dict[str, str] = {
    "two certificates": escaped(pem() + pem()),
    "two headers, as servers join them": f"{escaped(pem())}, {escaped(pem())}",
    "not escaped": pem(),
    "nothing": "",
    "no lines": escaped(pem("")),
    "another label": escaped(pem().replace("CERTIFICATE", "PUBLIC KEY")),
    "text before": escaped("x\n" + pem()),
    "text behind": escaped(pem() + "x"),
    "headers in it": escaped(pem().replace("-----\n", "-----\nProc-Type: 4\n\n", 1)),
    "long lines": escaped(pem(width=76)),
    "not base64": escaped(pem("!!!!")),
    "bits that are dropped": escaped(pem("AB==")),
    "half an escape": escaped(pem()) + "%4",
    "NUL": escaped(pem()) + "%00",
    "too long": escaped(pem("A" * LONGEST)),
}


@pytest.mark.parametrize(
    ("form", "text"),
    [("client-cert", text) for text in HOSTILE.values()]
    + [("x-ssl-client-cert", text) for text in HOSTILE_PEM.values()],
    ids=[*HOSTILE, *(f"PEM: {name}" for name in HOSTILE_PEM)],
)
def test_whatever_else_comes_is_no_certificate(form: Form, text: str) -> None:
    assert read(form, text) is None


# ---- from whom it is taken ------------------------------------------------------------------


def seen_by(form: Form, address: str, **sent: str) -> dict[str, Any]:
    """What the application sees of a request from `address` with the header variables `sent`."""
    seen: dict[str, Any] = {}

    def application(environ: dict[str, Any], _: Callable[..., object]) -> Iterable[bytes]:
        seen.update(environ)
        return ()

    believing(application, "192.0.2.7", form)({"REMOTE_ADDR": address, **sent}, None)
    return seen


def test_only_the_proxy_is_believed() -> None:
    sent = {"HTTP_CLIENT_CERT": "x", "HTTP_X_FORWARDED_FOR": "192.0.2.7"}
    assert seen_by("client-cert", "192.0.2.7", **sent)[PRESENTED] == "x"
    for address in ("192.0.2.70", "127.0.0.1", "::ffff:192.0.2.7", ""):
        seen = seen_by("client-cert", address, **sent)
        assert PRESENTED not in seen
        assert "HTTP_CLIENT_CERT" not in seen


def test_only_the_header_that_was_chosen_counts() -> None:
    proxy = "192.0.2.7"
    assert PRESENTED not in seen_by("client-cert", proxy, HTTP_X_SSL_CLIENT_CERT="x")
    assert PRESENTED not in seen_by("x-ssl-client-cert", proxy, HTTP_CLIENT_CERT="x")
    assert seen_by("x-ssl-client-cert", proxy, HTTP_X_SSL_CLIENT_CERT="x")[PRESENTED] == "x"
    # The chain is not asked for, and an empty header is none.
    assert PRESENTED not in seen_by("client-cert", proxy, HTTP_CLIENT_CERT_CHAIN="x")
    assert PRESENTED not in seen_by("client-cert", proxy, HTTP_CLIENT_CERT="")


def told_over_a_socket(headers: list[str], **settings: Any) -> str | None:
    """What a served application is told of a request from 127.0.0.1 with these header lines."""
    told: list[str | None] = []

    def application(environ: dict[str, Any], start: Callable[..., object]) -> Iterable[bytes]:
        told.append(environ.get(PRESENTED))
        start("204 No Content", [])
        return ()

    server = Server(application, Settings(port=0, **settings))
    serving = threading.Thread(target=server.run)
    serving.start()
    try:
        with socket.create_connection(("127.0.0.1", server.port), 30) as caller:
            lines = "".join(f"{line}\r\n" for line in headers)
            caller.sendall(f"GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode())
            assert caller.recv(100).startswith(b"HTTP/1.1 204")
    finally:
        server.stop()
        serving.join()
    [one] = told
    return one


def test_the_server_tells_of_what_its_proxy_hands_on() -> None:
    """Whom the proxy speaks for does not matter, but who speaks."""
    behind = {"behind_proxy": True, "client_certificates": "client-cert"}
    sent = ["Client-Cert: :AAAA:", "X-Forwarded-For: 192.0.2.9"]
    assert told_over_a_socket(sent, **behind) == ":AAAA:"
    assert told_over_a_socket([*sent, "Client-Cert: :BBBB:"], **behind) == ":AAAA:, :BBBB:"
    assert told_over_a_socket(["Client_Cert: :AAAA:"], **behind) is None
    assert told_over_a_socket(sent, behind_proxy=True) is None
    elsewhere = [*sent, "X-Forwarded-For: 127.0.0.2"]
    assert told_over_a_socket(elsewhere, trusted_proxy="127.0.0.2", **behind) is None
