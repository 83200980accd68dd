"""HTTPS to one step-ca, within limits of time and size: its pinned root is believed, nobody else.

It asks and reads answers; what they mean is the business of `ca/step_ca.py`. Nothing is tried a
second time here, and no status is an error: an answer is an answer.
"""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from ca.authority import AuthorityUnavailable
from ca.csr import PARSER_ERRORS
from ca.http1 import OutOfBoundsError
from ca.https import FAILURES, Connections

_LONGEST_MESSAGE: Final = 500
_ENCODING_DER: Final = 2  # `_ssl.ENCODING_DER`


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server answered. `headers`: lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def document(self) -> Mapping[str, Any]:
        """The JSON object in its body; empty if that is anything else, such as text."""
        try:
            document = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return {}
        return document if isinstance(document, dict) else {}

    @property
    def message(self) -> str:
        """What it said, for people: one printable line of up to 500 characters."""
        said = self.document.get("message")
        text = said if isinstance(said, str) else self.body.decode("utf-8", "replace")
        line = "".join(one if one.isprintable() else " " for one in text[: 4 * _LONGEST_MESSAGE])
        return " ".join(line.split())[:_LONGEST_MESSAGE]


class StepCaClient:
    """Calls one server. Thread-safe; connections are kept and used again."""

    def __init__(self, url: str, root: x509.Certificate) -> None:
        """`url`: https, without a path. `root`: the only certificate that is believed.

        Raises:
            ValueError: the URL is no such thing.
        """
        self.url = checked_url(url)
        pem = root.public_bytes(Encoding.PEM).decode()
        self._connections = Connections(self.url, ssl.create_default_context(cadata=pem))

    def call(
        self,
        method: str,
        path: str,
        document: Mapping[str, object] | None = None,
        *,
        timeout: float,
        request_id: str | None = None,
    ) -> Answer:
        """Send one request, and read the answer within `timeout` seconds.

        `request_id`: how the server's own log names it (from step-ca 0.26).

        Raises:
            AuthorityUnavailable: no answer, or none within the limits. What was asked for may have
                been done all the same.
        """
        headers = {"Content-Type": "application/json"}
        if request_id is not None:
            headers["X-Request-Id"] = request_id
        content = None if document is None else orjson.dumps(document)
        with _explained(self.url):
            return Answer(*self._connections.send(method, path, content, headers, timeout=timeout))

    def close(self) -> None:
        """Close the connections kept for the next call; those of later calls are closed after them."""
        self._connections.close()


def checked_url(url: str) -> str:
    """Return the URL of a server without a slash at its end.

    Raises:
        ValueError: it is not https, or has a path, a query or a user.
    """
    try:
        parsed = urlsplit(url)
        port = parsed.port
    except ValueError as error:
        raise ValueError("not a URL") from error
    more = parsed.path.strip("/") or parsed.query or parsed.fragment or "@" in parsed.netloc
    if parsed.scheme != "https" or not parsed.hostname or port == 0 or more:
        raise ValueError("the URL of a step-ca is https://name:port and nothing more")
    return url.rstrip("/")


def fetch_root(url: str, fingerprint: str, *, timeout: float) -> x509.Certificate:
    """Fetch the root with this fingerprint (SHA-256 of its DER, hex) from a server not yet trusted.

    Raises:
        AuthorityUnavailable: it does not answer.
        LookupError: it does not hold this root.
        ValueError: the URL or the fingerprint is none.
    """
    wanted = fingerprint.strip().lower().replace(":", "")
    if len(wanted) != 2 * hashes.SHA256.digest_size or set(wanted) - set("0123456789abcdef"):
        raise ValueError("a fingerprint is 64 hex digits")
    # Whoever answers, only a certificate with this digest is taken for the root.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with _passing(url, context) as connections:
        answer = Answer(*connections.send("GET", f"/root/{wanted}", None, {}, timeout=timeout))
    try:
        root = x509.load_pem_x509_certificate(str(answer.document.get("ca")).encode())
    except PARSER_ERRORS:
        raise LookupError(f"{url} answers {answer.status} and no root: {answer.message}") from None
    if root.fingerprint(hashes.SHA256()).hex() != wanted:
        raise LookupError(f"{url} answers with another root than the one asked for")
    return root


def fetch_issuing(url: str, root: x509.Certificate, *, timeout: float) -> x509.Certificate:
    """Fetch the certificate that signs: the one above the server's own, directly under `root`.

    A step-ca signs its own TLS certificate as it signs any other, and no interface of all its
    releases tells the issuing one.

    Raises:
        AuthorityUnavailable: it does not answer, or not as one under `root`.
        LookupError: it does not show what is between itself and `root`.
    """
    pem = root.public_bytes(Encoding.PEM).decode()
    with (
        _passing(url, ssl.create_default_context(cadata=pem)) as connections,
        closing(connections.connect(timeout)) as stream,
    ):
        chain = _shown_chain(stream)
    for der in chain[1:]:
        try:
            issuing = x509.load_der_x509_certificate(der)
            issuing.verify_directly_issued_by(root)
            x509.load_der_x509_certificate(chain[0]).verify_directly_issued_by(issuing)
        except (*PARSER_ERRORS, InvalidSignature):
            continue
        return issuing
    raise LookupError(f"{url} does not show the certificate between its own and the root")


@contextmanager
def _passing(url: str, context: ssl.SSLContext) -> Iterator[Connections]:
    """Connections for one question, closed after it."""
    with closing(Connections(checked_url(url), context)) as connections, _explained(url):
        yield connections


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Whatever goes wrong on the way to `url` and back is an AuthorityUnavailable."""
    try:
        yield
    except OutOfBoundsError:
        raise AuthorityUnavailable(f"{url}: the answer is out of bounds") from None
    except TimeoutError as error:
        raise AuthorityUnavailable(f"{url} does not answer in time") from error
    except FAILURES as error:
        raise AuthorityUnavailable(f"{url}: {str(error) or type(error).__name__}") from error


def _shown_chain(stream: Any) -> list[bytes]:
    """The certificates (DER) that the server showed in the handshake, its own first."""
    # Public from Python 3.13 on; before, only the object underneath has it.
    found = getattr(stream, "_sslobj", stream).get_unverified_chain() or ()
    return [one.public_bytes(_ENCODING_DER) for one in found]
