"""Doctor at a real step-ca: each danger made for real, named, and nothing else named with it."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from api.findings import Check
from api.settings import Settings
from api.step_ca_checks import checks
from api.wiring import system_clock
from ca import jose, private_files
from ca.profile import DEFAULT_ARC
from ca.step_ca_config import PROVISIONER
from ca.step_ca_files import DEVELOPMENT_PASSWORDS, locked
from ca.step_ca_probes import IDS, Subject, judge
from ca.step_ca_rotation import Passwords, rotate_provisioner_password
from ca.step_ca_setup import Wish, set_up
from support.step_ca import StepCa, step_ca

pytestmark = pytest.mark.step_ca

Entry = dict[str, Any]


@dataclass
class Patient:
    """A ledger's home and the server that it issues with."""

    server: StepCa
    home: Path

    def examine(self, seconds: float = 0) -> dict[str, Check]:
        found = checks(
            Settings(home=self.home), lambda: system_clock() + timedelta(seconds=seconds)
        )
        assert [check.id for check in found] == list(IDS)
        assert all(
            check.hint or check.status == "ok" or "see above" in check.detail for check in found
        )
        return {check.id: check for check in found}

    def ails(self, seconds: float = 0) -> dict[str, str]:
        """What is not as it should be: check → status."""
        found = self.examine(seconds)
        return {name: check.status for name, check in found.items() if check.status != "ok"}

    def server_shows(self) -> list[Entry]:
        """The provisioners as the server shows them to anybody."""
        shown = httpx.get(f"{self.server.url}/provisioners", verify=False, trust_env=False)
        found: list[Entry] = shown.json()["provisioners"]
        return found

    def subject(self, entry: Entry) -> Subject:
        """What a ledger knows of this server."""
        pem = (self.home / "authority" / "root.pem").read_bytes()
        root = x509.load_pem_x509_certificate(pem)
        key = jose.read_public_jwk(entry["key"])
        return Subject(self.server.url, PROVISIONER, root, None, key, [], DEFAULT_ARC)

    def change(self, change: Callable[[dict[str, Any]], object]) -> None:
        self.server.configure(change)
        self.server.restart()

    def change_ours(self, change: Callable[[Entry], object]) -> None:
        self.change(lambda document: change(document["authority"]["provisioners"][0]))


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Patient]:
    (tmp_path / "server").mkdir()
    (tmp_path / "home").mkdir(0o700)
    with step_ca(tmp_path / "server") as server:
        server.authority(tmp_path / "home" / "authority")
        yield Patient(server, tmp_path / "home")


def test_a_healthy_one(patient: Patient) -> None:
    assert patient.ails() == {}


def test_a_ledger_with_an_authority_of_its_own_has_nothing_to_look_at(tmp_path: Path) -> None:
    assert checks(Settings(home=tmp_path), system_clock) == []


def test_unreachable(patient: Patient) -> None:
    patient.server.stop()
    found = patient.examine()
    assert found["ca-reachable"].status == "fail"
    assert {c.status for name, c in found.items() if name != "ca-password"} == {"fail"}
    assert "not examined" in found["ca-root"].detail


def test_another_ca_at_its_place(patient: Patient, tmp_path: Path) -> None:
    """On the same port, with the same name of everything, and other keys."""
    set_up(tmp_path / "other", Wish(name="Test"), system_clock())
    patient.server.stop()
    for folder in ("certs", "secrets"):
        shutil.rmtree(patient.server.directory / folder)
        shutil.copytree(tmp_path / "other" / folder, patient.server.directory / folder)
    patient.server.start()
    found = patient.examine()
    assert (found["ca-reachable"].status, found["ca-root"].status) == ("ok", "fail")
    assert "not examined" in found["ca-key"].detail


def test_another_issuing_certificate_than_the_one_adopted(patient: Patient) -> None:
    for name in ("certs/intermediate_ca.crt", "secrets/intermediate_ca_key"):
        (patient.server.directory / name).unlink()
    set_up(patient.server.directory, Wish(), system_clock())
    patient.server.restart()
    assert patient.ails() == {"ca-issuing": "fail"}


@pytest.mark.parametrize(
    ("seconds", "found"),
    [(-90, {"ca-clock": "fail"}), (-15, {"ca-clock": "warn"}), (0, {}), (15, {"ca-clock": "warn"}),
     (90, {"ca-clock": "fail"})],
)  # fmt: skip
def test_clocks_that_differ(patient: Patient, seconds: int, found: dict[str, str]) -> None:
    assert patient.ails(seconds) == found
    if found:
        said = "behind" if seconds > 0 else "ahead of"
        assert said in patient.examine(seconds)["ca-clock"].detail


def test_a_provisioner_that_is_gone(patient: Patient) -> None:
    patient.change_ours(lambda entry: entry.update(name="another"))
    found = patient.examine()
    assert found["ca-provisioner"].status == "fail"
    assert "JWK another" in found["ca-others"].detail


def test_a_key_that_does_not_open(patient: Patient) -> None:
    (patient.home / "authority" / "provisioner.password").write_text("another password\n")
    assert patient.ails() == {"ca-key": "fail"}
    assert "does not open" in patient.examine()["ca-key"].detail


def test_a_key_that_is_not_the_servers(patient: Patient) -> None:
    password = (patient.home / "authority" / "provisioner.password").read_bytes().rstrip()
    other = locked(ec.generate_private_key(ec.SECP256R1()), password)
    private_files.replace(patient.home / "authority" / "provisioner.jwe", other)
    assert patient.ails() == {"ca-key": "fail"}
    assert "another key" in patient.examine()["ca-key"].detail


@pytest.mark.parametrize("value", [None, False])
def test_renewal_that_is_not_disabled(patient: Patient, value: bool | None) -> None:
    def renew(entry: Entry) -> None:
        del entry["claims"]["disableRenewal"]
        if value is not None:
            entry["claims"]["disableRenewal"] = value

    patient.change_ours(renew)
    assert patient.ails() == {"ca-renewal": "fail"}


def test_another_template(patient: Patient) -> None:
    def alter(entry: Entry) -> None:
        text = entry["options"]["x509"]["template"]
        entry["options"]["x509"]["template"] = text.replace('["clientAuth"]', '["serverAuth"]')

    patient.change_ours(alter)
    assert patient.ails() == {"ca-template": "fail"}


def test_no_template(patient: Patient) -> None:
    patient.change_ours(lambda entry: entry.pop("options"))
    assert patient.ails() == {"ca-template": "fail"}


def test_an_encrypted_key_that_is_served(patient: Patient) -> None:
    given = (patient.home / "authority" / "provisioner.jwe").read_text().strip()
    patient.change_ours(lambda entry: entry.update(encryptedKey=given))
    assert patient.ails() == {"ca-encrypted-key": "fail"}


@pytest.mark.parametrize("password", sorted(DEVELOPMENT_PASSWORDS))
def test_a_development_password(patient: Patient, tmp_path: Path, password: bytes) -> None:
    chosen = tmp_path / "password"
    chosen.write_bytes(password + b"\n")
    rotate_provisioner_password(patient.home / "authority", Passwords(new=chosen))
    assert patient.ails() == {"ca-password": "warn"}


@pytest.mark.parametrize(
    "other",
    [
        {"type": "ACME", "name": "acme"},
        {"type": "JWK", "name": "admin"},
    ],
    ids=lambda other: other["type"],
)
def test_other_provisioners(patient: Patient, other: Entry) -> None:
    if other["type"] == "JWK":
        key = ec.generate_private_key(ec.SECP256R1()).public_key()
        other = {**other, "key": jose.public_jwk(key)}
    patient.change(lambda document: document["authority"]["provisioners"].append(other))
    assert patient.ails() == {"ca-others": "warn"}
    assert f"{other['type']} {other['name']}" in patient.examine()["ca-others"].detail


def test_scep(patient: Patient) -> None:
    """It needs an RSA issuer, which ours never is: on what a CA with one shows."""
    entry = {"type": "SCEP", "name": "scep"}
    shown = [*patient.server_shows(), entry]
    found = {one.id: one for one in judge(shown, patient.subject(shown[0]))}
    assert found["ca-others"].status == "warn"
    assert "SCEP scep" in found["ca-others"].detail


def test_smallstep_extensions_that_are_disabled(patient: Patient) -> None:
    """This server is too old to know the claim and does not show it: on what a newer one shows."""
    (entry,) = patient.server_shows()
    subject = patient.subject(entry)
    assert {found.status for found in judge([entry], subject)} == {"ok"}
    entry["claims"]["disableSmallstepExtensions"] = True
    ailing = [found.id for found in judge([entry], subject) if found.status != "ok"]
    assert ailing == ["ca-extensions"]
