"""The adapter to step-ca against the real server: the contract, and what its set-up decides."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from ca.authority import AuthorityRefused, AuthorityUnavailable, RevocationAnswer
from ca.profile import check_certificate
from ca.step_ca import StepCaAuthority
from ca.step_ca_client import fetch_issuing, fetch_root
from support.authority_contract import TIMEOUT, StepCaContract
from support.csrs import ec_key, request
from support.installation import free_port
from support.relay import Relay, relayed
from support.step_ca import StepCa, step_ca, with_template

pytestmark = pytest.mark.step_ca


def without_late_tls(document: dict[str, Any]) -> None:
    """So that the relay can tell an answer from a handshake."""
    document["tls"] = {"minVersion": 1.2, "maxVersion": 1.2, "renegotiation": False}


@dataclass
class Relayed:
    """The real server behind a relay, as the contract wants to see it."""

    real: StepCa
    relay: Relay
    before: int  # certificates that earlier tests made it sign

    def issued(self) -> list[bytes]:
        return self.real.issued()[self.before :]

    @contextmanager
    def losing(self, answers: int) -> Iterator[None]:
        self.relay.to_lose, self.relay.lost = answers, 0
        yield
        assert self.relay.lost == answers
        self.relay.to_lose = 0

    def slow(self) -> AbstractContextManager[None]:
        return self.real.held_up()

    @contextmanager
    def down(self) -> Iterator[None]:
        self.real.kill()
        yield
        self.real.start()

    def restart(self) -> None:
        self.real.restart()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StepCa]:
    with step_ca(tmp_path_factory.mktemp("real"), without_late_tls) as real:
        yield real


class TestStepCa(StepCaContract):
    @pytest.fixture
    def server(self, real: StepCa) -> Iterator[Relayed]:
        with relayed(real.port) as relay:
            yield Relayed(real, relay, len(real.issued()))

    @pytest.fixture
    def authority(self, server: Relayed, tmp_path: Path) -> Iterator[StepCaAuthority]:
        url = f"https://localhost:{server.relay.port}"
        authority = server.real.authority(tmp_path / "authority", url=url)
        yield authority
        authority.client.close()

    def test_what_it_signed_is_in_its_log(
        self, authority: StepCaAuthority, server: Relayed
    ) -> None:
        """What `fedledger ca reconcile` relies on."""
        asked = self.order(request(ec_key()))
        der = self.assert_as_ordered(authority, asked)
        assert server.issued() == [der]
        (line,) = [
            one for one in server.real.lines() if one.get("serial") == str(int(asked.serial, 16))
        ]
        assert (line["status"], line["path"]) == (201, "/1.0/sign")

    def test_a_life_longer_than_the_provisioner_s_is_refused(
        self, authority: StepCaAuthority
    ) -> None:
        asked = self.order(request(ec_key()))
        asked = replace(asked, not_after=asked.not_after + timedelta(days=2))
        with pytest.raises(AuthorityRefused) as caught:
            authority.sign(asked, timeout=TIMEOUT)
        assert caught.value.status == 403
        assert "durations" in caught.value.detail


WRONG_TEMPLATES: dict[str, tuple[Callable[[str], str], str]] = {
    "serverAuth": (
        lambda text: text.replace('["clientAuth"]', '["clientAuth", "serverAuth"]'),
        "extension 2.5.29.37: not as ordered",
    ),
    "another extension": (
        lambda text: text.replace("99999.2", "99999.3"),
        "extension 1.3.6.1.4.1.99999.2: missing",
    ),
    "another value": (
        lambda text: text.replace("(len $grant) $grant", "(len $user) $user"),
        "extension 1.3.6.1.4.1.99999.1: not as ordered",
    ),
    "its own serial": (
        lambda text: text.replace('"serialNumber": {{ toJson $serial }},', ""),
        "serial: not the ordered one",
    ),
    "another name": (
        lambda text: text.replace("{{ toJson .Subject }}", '{"commonName": "Somebody Else"}'),
        "subject: not exactly the ordered common name",
    ),
    "more usages": (
        lambda text: text.replace('["digitalSignature"]', '["digitalSignature", "keyAgreement"]'),
        "extension 2.5.29.15: not as ordered",
    ),
}


@pytest.mark.parametrize("what", WRONG_TEMPLATES)
def test_what_a_wrong_template_makes_is_noticed(what: str, tmp_path: Path) -> None:
    alter, finding = WRONG_TEMPLATES[what]
    with step_ca(tmp_path, with_template(alter)) as real:
        authority = real.authority(tmp_path / "authority")
        asked = TestStepCa().order(request(ec_key()))
        der = authority.sign(asked, timeout=TIMEOUT)
        extra = authority.extra_extensions
        findings = check_certificate(der, asked, authority.chain(), allowed_extra_oids=extra)
        authority.client.close()
    assert finding in findings


def test_without_a_database_it_cannot_revoke_and_says_so(tmp_path: Path) -> None:
    with step_ca(tmp_path, lambda document: document.pop("db")) as real:
        authority = real.authority(tmp_path / "authority")
        answer = authority.revoke("4" * 32, "superseded", timeout=TIMEOUT)
        authority.client.close()
    assert answer is RevocationAnswer.UNSUPPORTED


def test_root_and_issuing_certificate_are_fetched_and_only_the_right_ones(real: StepCa) -> None:
    root, issuing = (
        x509.load_pem_x509_certificate((real.directory / "certs" / name).read_bytes())
        for name in ("root_ca.crt", "intermediate_ca.crt")
    )
    fingerprint = root.fingerprint(hashes.SHA256()).hex()
    assert fetch_root(real.url, fingerprint, timeout=TIMEOUT) == root
    assert fetch_root(f"{real.url}/", fingerprint.upper(), timeout=TIMEOUT) == root
    assert fetch_issuing(real.url, root, timeout=TIMEOUT) == issuing
    with pytest.raises(LookupError):
        fetch_root(real.url, "0" * 64, timeout=TIMEOUT)
    with pytest.raises(ValueError, match="64 hex"):
        fetch_root(real.url, "../health", timeout=TIMEOUT)
    with pytest.raises(AuthorityUnavailable):
        fetch_issuing(real.url, issuing, timeout=TIMEOUT)
    with pytest.raises(AuthorityUnavailable):
        fetch_root(f"https://localhost:{free_port()}", fingerprint, timeout=TIMEOUT)
