"""The whole HTTP side over a test's own database, with a clock that tests move."""

import itertools
import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_der_x509_csr, load_pem_x509_certificate
from falcon.testing import Result, TestClient

from api import init, wiring
from api.client_certificates import believing
from api.operations import BY_NAME
from api.settings import Settings
from support import csrs
from support.conformity import conforms
from support.databases import Database

_keys = itertools.count(1000)
ORIGIN = "test.fedledger.example"


@dataclass
class Clock:
    """The database's clock is compared with it, so it starts at the present; tests add to it."""

    ahead: timedelta = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead  # noqa: TID251 - the test's own clock


@dataclass
class Seconds:
    """Monotonic seconds that only tests move."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class House:
    """An initialised ledger, its application, and the two operators' tokens."""

    parts: wiring.Parts
    home: Path
    clock: Clock
    seconds: Seconds
    admin: str
    approver: str
    dsn: str
    client: TestClient = field(init=False)

    def __post_init__(self) -> None:
        # As the server does it, with everybody in the proxy's place (`certificate` of `call`).
        self.client = TestClient(believing(self.parts.app, "127.0.0.1", "client-cert"))

    def call(
        self,
        name: str,
        body: object = None,
        *,
        token: str | None = None,
        certificate: str | None = None,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        **path: object,
    ) -> Result:
        """Do an operation of the table by its name. `certificate`: presented to the proxy, PEM."""
        row = BY_NAME[name]
        sent = {"Content-Type": "application/json"} if body is not None else {}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        if certificate is not None:
            sent["Client-Cert"] = handed_on(certificate)
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = self.client.simulate_request(
            row.method,
            row.url(**path),
            body=raw if body is not None else b"",
            headers={**sent, **(headers or {})},
            query_string=query,
            remote_addr="127.0.0.1",
        )
        conforms(row, answer)
        return answer

    def ok(self, name: str, body: object = None, *, token: str | None = None, **more: Any) -> Any:
        """Do an operation that must succeed, as the admin if nobody else is named; its JSON."""
        if "certificate" not in more:
            token = token or self.admin
        answer = self.call(name, body, token=token, **more)
        assert answer.status_code < 300, (answer.status_code, answer.text)
        return answer.json if answer.content else None

    def operator(self, *roles: str) -> str:
        """A new operator with these roles; its token."""
        maker = self.approver if "approver" in roles else self.admin
        made = self.ok("operator.register", {"kind": "person", "roles": list(roles)}, token=maker)
        issued = self.ok("credential.issue", {}, token=maker, operator_id=made["id"])
        return str(issued["token"])

    def peer(self, name: str = "Example Peer", *, active: bool = True) -> dict[str, Any]:
        made = self.ok("peer.register", {"name": name, "base_url": "https://peer.example"})
        if active:
            made = self.ok("peer.activate", {"verification": "called them"}, peer_id=made["id"])
        return dict(made)

    def proposal(self, peer_id: str, *resources: str, **more: object) -> dict[str, Any]:
        """The body of a proposal, for 30 days."""
        end = self.clock() + timedelta(days=30)
        return {
            "peer_id": peer_id,
            "subject_user_id": "user-17",
            "scope": {"resources": list(resources or ("tasks",)), "max_rows_per_query": 100},
            "expires_at": end.isoformat(),
            "reason": "needed",
        } | more

    def grant(self, peer_id: str, *resources: str, **more: object) -> dict[str, Any]:
        return dict(self.ok("grant.propose", self.proposal(peer_id, *resources, **more)))

    def token(self, grant_id: str) -> str:
        return str(self.ok("enrollment-token.issue", {}, grant_id=grant_id)["token"])

    def enroll(self, token: str, csr: str) -> Result:
        return self.call("enrollment.redeem", {"token": token, "csr": csr})

    def holder(self, grant_id: str) -> str:
        """Enroll for a grant; the certificate as PEM."""
        answer = self.enroll(self.token(grant_id), csr())
        assert answer.status_code == 200, answer.text
        return str(answer.json["certificate"])

    def close(self) -> None:
        self.parts.close()


def csr(name: str | None = None) -> str:
    """A PEM request with a key of its own."""
    made = csrs.request(csrs.ec_key(next(_keys)), name)
    return load_der_x509_csr(made).public_bytes(Encoding.PEM).decode()


def handed_on(certificate: str) -> str:
    """A PEM certificate as a proxy hands it on (RFC 9440 §2.2)."""
    der = load_pem_x509_certificate(certificate.encode()).public_bytes(Encoding.DER)
    return f":{b64encode(der).decode()}:"


def serial_of(certificate: str) -> str:
    """The serial in a PEM certificate, as the ledger writes it."""
    return f"{load_pem_x509_certificate(certificate.encode()).serial_number:032x}"


def house(database: Database, home: Path, **settings: Any) -> House:
    """Initialise the database and put the parts together, as `init` and `serve` do."""
    clock, seconds = Clock(), Seconds()
    init.furnish(database.service_dsn, home, ORIGIN, clock)
    proxy = {"behind_proxy": True, "client_certificates": "client-cert"}
    chosen = Settings(home=home, threads=4, **proxy | settings)
    parts = wiring.compose(database.service_dsn, chosen, clock=clock, seconds=seconds)
    admin, approver = ((home / f"{role}.token").read_text().strip() for role in init.ROLES)
    return House(parts, home, clock, seconds, admin, approver, database.service_dsn)
