"""A small step-ca of ours: its protocol in one page, and the faults a real one cannot be asked for.

It checks a token as the real one does and signs what the token says. `faults` is what becomes of
the next requests, one each: a status to answer instead, `lost` (done, and the connection cut before
the answer), `hangs up` (cut after the answer, unannounced), `cut` (before anything is done), or a
body to answer with. `sign` makes the certificate, and can make another one than it should.
"""

import json
import ssl
import threading
import time
from base64 import b64encode
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from ca.csr import PARSER_ERRORS, key_digest
from ca.hierarchy import Issuer, new_issuing, new_root, pkcs8
from ca.jose import encrypt, from_base64url, private_jwk, thumbprint
from ca.profile import SigningOrder, certificate_builder, order_extensions
from ca.step_ca import PROVISIONER_EXTENSION, StepCaAuthority, provisioner_extension
from ca.step_ca_home import StepCaHome

Fault = int | str | bytes
LEEWAY = 60  # seconds


class RefusedError(Exception):
    """The answer is this status."""


@dataclass
class FakeStepCa:
    """`certificates`: all it ever signed (DER), delivered or not. `asked`: path and body."""

    issuer: Issuer
    root: Issuer
    provisioner: ec.EllipticCurvePrivateKey
    faults: deque[Fault] = field(default_factory=deque)
    certificates: list[bytes] = field(default_factory=list)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    revoked: set[str] = field(default_factory=set)
    database: bool = True
    delay: float = 0.0  # seconds before each answer, or until `awake`
    awake: threading.Event = field(default_factory=threading.Event)
    connections: int = 0
    url: str = ""
    _used: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def sign(self, order: SigningOrder) -> bytes:
        """What it makes of an order; tests put something else in its place."""
        kid = thumbprint(self.provisioner.public_key())
        extension = provisioner_extension("mosaic-fed", kid)
        builder = certificate_builder(order, self.issuer.certificate).add_extension(
            x509.UnrecognizedExtension(x509.ObjectIdentifier(PROVISIONER_EXTENSION), extension),
            critical=False,
        )
        signed = builder.sign(self.issuer.key, hashes.SHA256(), ecdsa_deterministic=True)
        return signed.public_bytes(Encoding.DER)

    def issued(self) -> list[bytes]:
        return self.certificates

    @contextmanager
    def losing(self, answers: int) -> Iterator[None]:
        self.faults.extend(["lost"] * answers)
        yield
        assert not self.faults

    @contextmanager
    def slow(self) -> Iterator[None]:
        self.delay = 60.0
        yield
        self.delay = 0.0
        self.awake.set()

    @contextmanager
    def down(self) -> Iterator[None]:
        self.faults.extend(["cut"] * 100)
        yield
        self.faults.clear()

    def restart(self) -> None:
        self.faults.append("cut")

    def connection(self, into: Path, password: bytes | Path = b"password") -> StepCaHome:
        """Make in `into` what a ledger keeps of it."""
        key = json.dumps(private_jwk(self.provisioner)).encode()
        return StepCaHome.make(
            into,
            url=self.url,
            provisioner="mosaic-fed",
            root=self.root.certificate,
            issuing=self.issuer.certificate,
            encrypted_key=encrypt(key, b"password", iterations=1000),
            password=password,
        )

    def authority(self, into: Path) -> StepCaAuthority:
        """The adapter to it, on a directory made in `into`."""
        self.connection(into)
        return StepCaAuthority.open(into)

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, object]]:
        """Its interface: POST /1.0/sign and /1.0/revoke."""
        with self._lock:
            self.asked.append((path, body))
            if path == "/1.0/sign":
                return 201, self._signed(body)
            if path == "/1.0/revoke":
                return 200, self._revoked(body)
        raise RefusedError(404, "404 page not found")

    def _signed(self, body: dict[str, Any]) -> dict[str, object]:
        try:
            request = x509.load_pem_x509_csr(str(body.get("csr")).encode())
            order = self._order(request, self._claims(body, "sign"), body)
        except PARSER_ERRORS as error:
            raise RefusedError(
                400, "The request could not be completed: error decoding json."
            ) from error
        der = self.sign(order)
        self.certificates.append(der)
        return {"crt": pem(der), "ca": pem(self.issuer.certificate.public_bytes(Encoding.DER))}

    def _revoked(self, body: dict[str, Any]) -> dict[str, object]:
        self._claims(body, "revoke")
        if not self.database or body.get("passive") is not True:
            raise RefusedError(501, "The requested method is not implemented.")
        if body["serial"] in self.revoked:
            raise RefusedError(
                400, f"certificate with serial number '{body['serial']}' is already revoked"
            )
        self.revoked.add(body["serial"])
        return {"status": "ok"}

    def _order(
        self, request: x509.CertificateSigningRequest, claims: dict[str, Any], body: dict[str, Any]
    ) -> SigningOrder:
        """The request and the token, as the template reads them; a claim that is missing fails."""
        if any(one.oid.dotted_string == "2.5.29.17" for one in request.extensions):
            raise RefusedError(403, "certificate request does not contain the valid names")
        try:
            serial = format(int(claims["mosaic_serial"]), "032x")
            texts = claims["mosaic_grant_id"], claims["mosaic_subject_user_id"]
        except KeyError as error:
            raise RefusedError(400, f"{error} is missing or malformed") from error
        return SigningOrder(
            issuance_id=str(claims["jti"]),
            csr_der=request.public_bytes(Encoding.DER),
            key_digest=key_digest(request.public_key()),  # type: ignore[arg-type]
            serial=serial,
            not_before=datetime.fromisoformat(body["notBefore"]),
            not_after=datetime.fromisoformat(body["notAfter"]),
            common_name=claims["sub"],
            san_uri=claims["sans"][0],
            extensions=order_extensions(*texts),
        )

    def _claims(self, body: dict[str, Any], verb: str) -> dict[str, Any]:
        """The claims of a token that is good, now, here, for this, and for the first time."""
        try:
            signed, _, signature = str(body["ott"]).rpartition(".")
            r, s = (int.from_bytes(from_base64url(signature)[i : i + 32], "big") for i in (0, 32))
            self.provisioner.public_key().verify(
                encode_dss_signature(r, s), signed.encode(), ec.ECDSA(hashes.SHA256())
            )
            claims = json.loads(from_base64url(signed.partition(".")[2]))
            now, audience = time.time(), urlsplit(claims["aud"])
            good = (
                claims["iss"] == "mosaic-fed"
                and (audience.hostname, audience.path) == ("localhost", f"/1.0/{verb}")
                and max(claims["nbf"], claims["iat"]) - LEEWAY <= now <= claims["exp"] + LEEWAY
                and claims["jti"] not in self._used
            )
        except (KeyError, ValueError, InvalidSignature) as error:
            raise RefusedError(401, "The request lacked necessary authorization.") from error
        if not good:
            raise RefusedError(401, "The request lacked necessary authorization.")
        self._used.add(claims["jti"])
        return dict(claims)


def pem(der: bytes) -> str:
    return f"-----BEGIN CERTIFICATE-----\n{b64encode(der).decode()}\n-----END CERTIFICATE-----\n"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    fake: FakeStepCa

    def setup(self) -> None:
        self.fake.connections += 1
        super().setup()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fault = self.fake.faults.popleft() if self.fake.faults else None
        if self.fake.delay:
            self.fake.awake.wait(self.fake.delay)
        if fault == "cut":
            self.close_connection = True
        elif isinstance(fault, int):
            self._send(fault, json.dumps({"status": fault, "message": f"fault {fault}"}).encode())
        else:
            self._done(body, fault)

    def _done(self, body: dict[str, Any], fault: Fault | None) -> None:
        try:
            status, document = self.fake.answer(self.path, body)
        except RefusedError as refused:
            status, message = refused.args
            document = {"status": status, "message": message}
        if fault in ("lost", "hangs up"):
            self.close_connection = True
        if fault != "lost":
            self._send(status, fault if isinstance(fault, bytes) else json.dumps(document).encode())

    def _send(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        """Nothing: tests look at `asked`."""


@contextmanager
def fake_step_ca(folder: Path) -> Iterator[FakeStepCa]:
    """A fake that listens on a free loopback port, until the end."""
    now = datetime.now(UTC)  # noqa: TID251 - like the real one, it has its own clock
    root = new_root("Fake", 1, now, lambda n: b"\x11" * n)
    issuer = new_issuing("Fake", 1, root, now, lambda n: b"\x22" * n)
    fake = FakeStepCa(issuer, root, ec.generate_private_key(ec.SECP256R1()))
    handler = type("Handler", (_Handler,), {"fake": fake})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_server_certificate(folder, issuer, now))
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    fake.url = f"https://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _server_certificate(folder: Path, issuer: Issuer, now: datetime) -> Path:
    """Signed by itself, as a step-ca's is; key, certificate and chain in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Step Online CA")]))
        .issuer_name(issuer.certificate.subject)
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(days=1))
        .public_key(key.public_key())
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(issuer.key, hashes.SHA256())
    )
    chain = b"".join(one.public_bytes(Encoding.PEM) for one in (certificate, issuer.certificate))
    path = folder / "server.pem"
    path.write_bytes(pkcs8(key) + chain)
    return path
