"""What `fedledger ca init-step-ca` makes, on a real server: it signs our tokens, and no others."""

import hashlib
import signal
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from api.wiring import system_clock
from ca import jose
from ca.profile import der_utf8
from ca.step_ca_config import PROVISIONER
from ca.step_ca_files import read_password, unlocked
from ca.step_ca_setup import Wish, set_up
from ca.step_ca_template import template
from support.csrs import request
from support.step_ca import StepCa, running
from support.step_ca_places import edit
from support.waiting import wait_until

pytestmark = pytest.mark.step_ca

GRANT = "0d9cb46e-8d2c-4b0e-9c39-5c2f0d1c1a77"
SERIAL = int("4f" * 16, 16)
CLAIMS: dict[str, Any] = {
    "mosaic_grant_id": GRANT,
    "mosaic_subject_user_id": "user-17@example.org",
    "mosaic_serial": str(SERIAL),
    "sub": "Example Hospital",
    "sans": [f"urn:uuid:{GRANT}"],
}
EXTENSIONS = {"1.3.6.1.4.1.99999.1": GRANT, "1.3.6.1.4.1.99999.2": "user-17@example.org"}


@dataclass
class Made:
    """A server on what was made, and a client that believes its root alone."""

    server: StepCa
    directory: Path
    http: httpx.Client
    key: ec.EllipticCurvePrivateKey

    def sign(self, key: ec.EllipticCurvePrivateKey | None = None, **claims: Any) -> httpx.Response:
        """Ask with a token of these claims; a claim of None is left out."""
        der = request(key or ec.generate_private_key(ec.SECP256R1()))
        bound = {"x5rt#S256": jose.base64url(hashlib.sha256(der).digest())}
        return self.ask("sign", {"csr": pem(der)}, {**CLAIMS, "cnf": bound, **claims})

    def ask(self, verb: str, body: dict[str, Any], claims: dict[str, Any]) -> httpx.Response:
        now = int(time.time())
        standard = {
            "iss": PROVISIONER, "aud": f"{self.server.url}/1.0/{verb}", "iat": now, "nbf": now,
            "exp": now + 60, "jti": str(uuid4()),
        }  # fmt: skip
        token = {name: value for name, value in {**standard, **claims}.items() if value is not None}
        kid = jose.thumbprint(self.key.public_key())
        return self.http.post(
            f"/1.0/{verb}", json={**body, "ott": jose.sign(token, self.key, kid=kid)}
        )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    with serving(tmp_path_factory.mktemp("step-ca") / "home") as found:
        yield found


@contextmanager
def serving(directory: Path) -> Iterator[Made]:
    done = set_up(directory, Wish(), system_clock())
    key = unlocked(
        (done.for_ledger / "provisioner.jwe").read_text(),
        read_password(done.for_ledger / "provisioner.password"),
    )
    trust = ssl.create_default_context(cafile=str(done.root))
    with running(done.config, directory / "secrets" / "password") as server, httpx.Client(
        base_url=server.url, verify=trust, trust_env=False
    ) as http:  # fmt: skip
        yield Made(server, directory, http, key)


def pem(der: bytes) -> str:
    return x509.load_der_x509_csr(der).public_bytes(Encoding.PEM).decode()


def test_a_token_of_ours_becomes_exactly_the_profile(made: Made) -> None:
    answer = made.sign()
    assert answer.status_code == 201, answer.text
    certificate = x509.load_pem_x509_certificate(answer.json()["crt"].encode())
    assert certificate.serial_number == SERIAL
    assert certificate.subject.rfc4514_string() == "CN=Example Hospital"
    values = {one.oid.dotted_string: one.value for one in certificate.extensions}
    for oid, text in EXTENSIONS.items():
        found = values.pop(oid)
        assert isinstance(found, x509.UnrecognizedExtension)
        assert found.value == der_utf8(text)
    assert set(values) == {
        "2.5.29.14", "2.5.29.15", "2.5.29.17", "2.5.29.19", "2.5.29.35", "2.5.29.37",
        "1.3.6.1.4.1.37476.9000.64.1",
    }  # fmt: skip
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names == x509.SubjectAlternativeName([x509.UniformResourceIdentifier(CLAIMS["sans"][0])])


@pytest.mark.parametrize(
    "claims",
    [
        {"mosaic_grant_id": None}, {"mosaic_grant_id": ""}, {"mosaic_grant_id": GRANT.upper()},
        {"mosaic_grant_id": GRANT.replace("-", "")}, {"mosaic_grant_id": f"{GRANT}\n"},
        {"mosaic_subject_user_id": None}, {"mosaic_subject_user_id": ""},
        {"mosaic_subject_user_id": "x" * 101}, {"mosaic_subject_user_id": 'a", "x": "b'},
        {"mosaic_subject_user_id": "é"}, {"mosaic_subject_user_id": ["user-17"]},
        {"mosaic_serial": None}, {"mosaic_serial": ""}, {"mosaic_serial": 2**62},
        {"mosaic_serial": "7"}, {"mosaic_serial": f"0x{SERIAL:x}"}, {"mosaic_serial": "-1"},
        {"sans": []}, {"sans": None}, {"sans": ["server.example.org"]},
        {"sans": [CLAIMS["sans"][0], "server.example.org"]}, {"sans": ["urn:uuid:0d9cb46e-0000-4000-8000-000000000000"]},
        {"sans": ["127.0.0.1"]},
    ],
    ids=str,
)  # fmt: skip
def test_whatever_is_missing_or_malformed_is_refused_by_name(
    made: Made, claims: dict[str, Any]
) -> None:
    answer = made.sign(**claims)
    assert answer.status_code == 400, answer.text
    (name,) = claims
    assert ("the names are not" if name == "sans" else name) in answer.json()["message"]


def test_nobody_is_given_the_provisioners_key(made: Made) -> None:
    (entry,) = made.http.get("/provisioners").json()["provisioners"]
    assert entry["name"] == PROVISIONER
    assert "encryptedKey" not in entry
    kid = entry["key"]["kid"]
    assert made.http.get(f"/provisioners/{kid}/encrypted-key").status_code == 404


def test_the_server_shows_the_template_and_the_claims(made: Made) -> None:
    (entry,) = made.http.get("/provisioners").json()["provisioners"]
    assert entry["options"]["x509"]["template"] == template()
    assert entry["claims"]["disableRenewal"] is True


def test_a_certificate_is_not_renewed(made: Made, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    answer = made.sign(key, mosaic_serial=str(SERIAL + 1)).json()
    own = tmp_path / "client.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    own.write_text("".join([*answer["certChain"], private]))
    trust = ssl.create_default_context(cafile=str(made.directory / "certs" / "root_ca.crt"))
    trust.load_cert_chain(own)
    with httpx.Client(base_url=made.server.url, verify=trust, trust_env=False) as http:
        for verb in ("renew", "rekey"):
            refused = http.post(f"/1.0/{verb}", json={"csr": pem(request(key))})
            assert refused.status_code in (401, 403), refused.text


def test_it_has_a_database_and_can_revoke(made: Made) -> None:
    serial = str(SERIAL + 2)
    assert made.sign(mosaic_serial=serial).status_code == 201
    body = {"serial": serial, "reason": "", "reasonCode": 4, "passive": True}
    answers = [made.ask("revoke", body, {"sub": serial}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 400]
    assert "already revoked" in answers[1].json()["message"]
    assert (made.directory / "db" / "step-ca.bolt").stat().st_size > 0


def test_an_upgrade_takes_effect_without_a_restart(tmp_path: Path) -> None:
    """SIGHUP: the server reads what the second run brought up to date."""
    directory = tmp_path / "home"
    with serving(directory) as made:
        assert made.server.process is not None

        def older(document: dict[str, Any]) -> None:
            (entry,) = document["authority"]["provisioners"]
            entry["claims"] = {}
            entry["options"]["x509"]["template"] = '{"subject": {{ toJson .Subject }}}'

        edit(directory, older)

        def shown() -> str:
            (found,) = made.http.get("/provisioners").json()["provisioners"]
            return str(found["options"]["x509"]["template"])

        made.server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: shown() != template(), "the old template is in use", 30)
        assert set_up(directory, Wish(), system_clock()).done
        made.server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: shown() == template(), "the new template is in use", 30)
        assert made.sign().status_code == 201
