"""Real nginx and haproxy on a loopback address, configured by the how-to page's own blocks.

They end TLS with a certificate made here for the occasion. What is in front of what, and which
client calls, is the test's business. (`support/proxy.py` is another one: it speaks PostgreSQL.)
"""

import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from api.settings import without_real_ledger
from api.wiring import system_clock
from support.installation import free_port
from support.pages import blocks
from support.waiting import wait_until

PAGE = "how-to/behind-a-proxy.md"
# All of 127/8 is this machine, but the command line takes only 127.0.0.1 for it: to its eyes this
# is another host, so it believes SSL_CERT_FILE and wants TLS as it would from afar.
ADDRESS = "127.0.0.2"
KINDS = ("nginx", "haproxy")


@dataclass(frozen=True)
class TlsProxy:
    """A running proxy; `authority` is the PEM file that makes its certificate believed.

    upstream: the port of the service behind it.
    """

    kind: str
    port: int
    upstream: int
    authority: Path
    log: Path

    @property
    def url(self) -> str:
        return f"https://{ADDRESS}:{self.port}"

    def client(
        self, source: str, token: Path | None = None, presents: tuple[Path, Path] | None = None
    ) -> httpx.Client:
        """An HTTPS client that calls from the loopback address `source`.

        `presents`: files of a client certificate with its chain, and of its key.
        """
        context = ssl.create_default_context(cafile=self.authority)
        if presents:
            context.load_cert_chain(*presents)
        return client(self.url, source, token, context)

    def connect(self, source: str) -> ssl.SSLSocket:
        """A bare TLS connection from the loopback address `source`."""
        context = ssl.create_default_context(cafile=self.authority)
        plain = socket.create_connection((ADDRESS, self.port), 10, (source, 0))
        return context.wrap_socket(plain, server_hostname=ADDRESS)


def client(
    url: str, source: str, token: Path | None = None, verify: ssl.SSLContext | bool = True
) -> httpx.Client:
    """An HTTP client that calls from the loopback address `source`, past the environment."""
    return httpx.Client(
        base_url=url,
        headers={"Authorization": f"Bearer {token.read_text().strip()}"} if token else {},
        transport=httpx.HTTPTransport(local_address=source, verify=verify, trust_env=False),
        timeout=30,
        trust_env=False,
    )


@contextmanager
def tls_proxy(kind: str, folder: Path, upstream: int, roots: str) -> Iterator[TlsProxy]:
    """The page's proxy of that kind in front of this machine's port `upstream`; gone afterwards.

    `roots`: PEM of what client certificates end in.
    """
    proxy = TlsProxy(kind, free_port(), upstream, folder / "authority.pem", folder / "proxy.log")
    certificate, key = _certificate(folder)
    (folder / "roots.pem").write_text(roots)
    configuration = folder / "proxy.conf"
    configuration.write_text(_configuration(kind, folder, proxy.port, upstream, certificate, key))
    with proxy.log.open("wb") as output:
        process = subprocess.Popen(
            _command(kind, folder, configuration), stdin=subprocess.DEVNULL, stdout=output,
            stderr=output, start_new_session=True,
        )  # fmt: skip

    def listening() -> bool:
        assert process.poll() is None, proxy.log.read_text(errors="replace")
        with suppress(OSError):
            socket.create_connection((ADDRESS, proxy.port), 5).close()
            return True
        return False

    try:
        wait_until(listening, f"{kind} listens")
        yield proxy
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def _command(kind: str, folder: Path, configuration: Path) -> list[str]:
    path = os.pathsep.join([without_real_ledger().get("PATH", os.defpath), "/usr/sbin"])
    program = shutil.which(kind, path=path)
    assert program is not None, f"{kind} is not installed: .ci/run does it"
    if kind == "nginx":
        return [program, "-p", str(folder), "-e", "stderr", "-c", str(configuration)]
    return [program, "-db", "-f", str(configuration)]


def _configuration(
    kind: str, folder: Path, port: int, upstream: int, certificate: Path, key: Path
) -> str:
    """The page's block with this machine's ports and files, in as little around it as will do."""
    ((_, text),) = blocks(PAGE, kind)
    text = _replaced(text, "127.0.0.1:8440", f"127.0.0.1:{upstream}")
    text = _replaced(text, "/etc/ssl/fedledger-roots.pem", str(folder / "roots.pem"))
    if kind == "haproxy":
        text = _replaced(text, "bind :443", f"bind {ADDRESS}:{port}")
        both = folder / "both.pem"
        both.write_bytes(certificate.read_bytes() + key.read_bytes())
        return _replaced(text, "/etc/haproxy/ledger.pem", str(both))
    text = _replaced(text, "listen 443 ssl", f"listen {ADDRESS}:{port} ssl")
    text = _replaced(text, "/etc/ssl/ledger.pem", str(certificate))
    text = _replaced(text, "/etc/ssl/ledger.key", str(key))
    temporary = "".join(
        f"    {what}_temp_path {folder}/{what};\n"
        for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    # As root nginx would make its workers nobody's, who cannot enter the test's folder.
    user = "user root;\n" if os.geteuid() == 0 else ""
    return (
        f"{user}daemon off;\nworker_processes 1;\npid {folder}/nginx.pid;\n"
        f"events {{}}\nhttp {{\n    access_log off;\n{temporary}{text}}}\n"
    )


def _replaced(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"the page no longer says {old!r} once"
    return text.replace(old, new)


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A throw-away authority and a server certificate under it, as PEM files; returns the latter."""
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "throw-away")])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ledger.example.org")])
    root = (
        _valid_today(root_name, root_name, root_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(root_key, hashes.SHA256())
    )
    alternatives = [x509.DNSName("ledger.example.org"), x509.IPAddress(ip_address(ADDRESS))]
    server = (
        _valid_today(name, root_name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    (folder / "authority.pem").write_bytes(root.public_bytes(Encoding.PEM))
    (folder / "ledger.pem").write_bytes(server.public_bytes(Encoding.PEM))
    (folder / "ledger.key").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    return folder / "ledger.pem", folder / "ledger.key"


def _valid_today(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = system_clock()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
    )
