"""The set-up of a step-ca: made once, brought up to date ever after, whole wherever it is cut short.

What a real server makes of it is tested in tests/step_ca/.
"""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)

from ca import jose
from ca.step_ca_config import PROVISIONER, REQUIRED_CLAIMS
from ca.step_ca_files import SetUpError, locked, read_ca_key, read_password, unlocked
from ca.step_ca_setup import SetUp, Wish, set_up
from ca.step_ca_template import arc_of, template
from support.killing import KilledError, Killer
from support.step_ca_places import NOW, config, edit, files, make_quick, provisioner

LATER = NOW + timedelta(days=400)
SECRETS = (
    "secrets/root_ca_key", "secrets/intermediate_ca_key", "secrets/password",
    "for-ledger/provisioner.jwe", "for-ledger/provisioner.password",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    make_quick(monkeypatch)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "step-ca"


def make(place: Path, now: datetime = NOW, **wish: Any) -> SetUp:
    return set_up(place, Wish(**wish), now)


def certificate(place: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((place / "certs" / name).read_bytes())


def ca_password(place: Path) -> bytes:
    return read_password(place / "secrets" / "password")


# ---- what is made ---------------------------------------------------------------------------


def test_certificates_keys_and_passwords_fit_together(place: Path) -> None:
    made = make(place)
    root, issuing = (certificate(place, name) for name in ("root_ca.crt", "intermediate_ca.crt"))
    root.verify_directly_issued_by(root)
    issuing.verify_directly_issued_by(root)
    assert made.fingerprint == root.fingerprint(hashes.SHA256()).hex()
    assert (place / "for-ledger/root_fingerprint").read_text() == f"{made.fingerprint}\n"
    for name, one in (("root_ca_key", root), ("intermediate_ca_key", issuing)):
        key = read_ca_key(place / "secrets" / name, ca_password(place))
        assert key.public_key() == one.public_key()
    own = read_password(place / "for-ledger/provisioner.password")
    assert own != ca_password(place)
    key = unlocked((place / "for-ledger/provisioner.jwe").read_text(), own)
    assert jose.public_jwk(key.public_key()) == provisioner(place)["key"]
    assert made.kid == provisioner(place)["key"]["kid"]


def test_everything_secret_is_for_its_owner_alone(place: Path) -> None:
    make(place)
    for name in (*SECRETS, "config/ca.json"):
        assert stat.S_IMODE((place / name).stat().st_mode) == 0o600, name
    for folder in (place, place / "secrets", place / "for-ledger", place / "db"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder
    assert b"PRIVATE KEY" not in (place / "config/ca.json").read_bytes()


def test_the_configuration_is_what_the_ledger_relies_on(place: Path) -> None:
    make(place)
    found, ours = config(place), provisioner(place)
    assert found["db"] == {"type": "bbolt", "dataSource": f"{place}/db/step-ca.bolt"}
    assert ours["name"] == PROVISIONER == "mosaic-fed"
    assert "encryptedKey" not in ours
    assert ours["claims"]["disableRenewal"] is True
    assert ours["claims"].items() >= REQUIRED_CLAIMS.items()
    assert ours["options"]["x509"] == {"template": template()}


def test_what_can_be_chosen(place: Path, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ca", tmp_path / "provisioner"
    ours.write_text("a password of mine \n")
    theirs.write_text("another password")
    make(
        place, names=("ca.example.org",), address="10.0.0.1:443", arc="1.3.6.1.4.1.5",
        password=ours, provisioner_password=theirs, seen_as=Path("/home/step"), name="Example",
    )  # fmt: skip
    found = config(place)
    assert (found["dnsNames"], found["address"]) == (["ca.example.org"], "10.0.0.1:443")
    assert found["crt"] == "/home/step/certs/intermediate_ca.crt"
    assert found["db"]["dataSource"].startswith("/home/step/db/")
    assert arc_of(provisioner(place)["options"]["x509"]["template"]) == "1.3.6.1.4.1.5"
    assert not (place / "secrets/password").exists()
    assert not (place / "for-ledger/provisioner.password").exists()
    read_ca_key(place / "secrets/root_ca_key", b"a password of mine")
    unlocked((place / "for-ledger/provisioner.jwe").read_text(), b"another password")
    assert "Example root CA" in certificate(place, "root_ca.crt").subject.rfc4514_string()
    # And none of it has to be said again.
    again = make(place, password=ours, provisioner_password=theirs)
    assert again.done == ()
    assert config(place) == found


@pytest.mark.parametrize(
    "wish",
    [{"names": ("a b",)}, {"names": ("",)}, {"address": "9000"}, {"arc": "1.3.x"}, {"arc": "9.1"}],
)
def test_nonsense_is_refused(place: Path, wish: dict[str, Any]) -> None:
    with pytest.raises(SetUpError):
        make(place, **wish)
    assert not (place / "config/ca.json").exists()


def test_one_password_for_both_is_refused(place: Path, tmp_path: Path) -> None:
    both = tmp_path / "both"
    both.write_text("the same for both")
    with pytest.raises(SetUpError, match="different passwords"):
        make(place, password=both, provisioner_password=both)


@pytest.mark.parametrize("content", [b"", b"\n", b"short\n"])
def test_a_password_that_is_none_is_refused(place: Path, tmp_path: Path, content: bytes) -> None:
    empty = tmp_path / "password"
    empty.write_bytes(content)
    with pytest.raises(SetUpError, match="under 12 characters"):
        make(place, password=empty)


# ---- again ------------------------------------------------------------------------------------


def test_again_it_changes_nothing(place: Path) -> None:
    make(place)
    before = files(place)
    assert make(place, LATER).done == ()
    assert files(place) == before


@pytest.mark.parametrize("name", [None, "for-ledger", "secrets/root_ca_key"])
def test_what_was_taken_to_its_place_is_not_made_again(place: Path, name: str | None) -> None:
    """The root's key belongs off-line, the ledger's folder to the ledger."""
    made = make(place)
    if name == "for-ledger":
        for path in (place / "for-ledger").iterdir():
            path.unlink()
    elif name:
        (place / name).unlink()
    again = make(place, LATER)
    assert (again.kid, again.fingerprint) == (made.kid, made.fingerprint)
    assert not (place / "for-ledger/provisioner.jwe").exists() or name != "for-ledger"
    assert not (place / "secrets/root_ca_key").exists() or name != "secrets/root_ca_key"


def old_release(document: dict[str, Any]) -> None:
    (ours,) = document["authority"]["provisioners"]
    ours["options"]["x509"] = {"templateFile": "templates/federation.tpl"}
    ours["claims"] = {"maxTLSCertDuration": "48h0m0s", "disableSmallstepExtensions": True}
    del document["db"]


def test_an_upgrade_brings_template_claims_and_database_up_to_date(place: Path) -> None:
    make(place)
    before = files(place)
    edit(place, old_release)
    made = make(place, LATER)
    after = files(place)
    assert {name for name in before if before[name] != after[name]} <= {"config/ca.json"}
    ours = provisioner(place)
    assert ours["options"]["x509"] == {"template": template()}
    assert ours["claims"].items() >= REQUIRED_CLAIMS.items()
    assert ours["claims"]["maxTLSCertDuration"] == "48h0m0s"  # the operator's own
    assert config(place)["db"]["type"] == "bbolt"
    assert any("template" in line for line in made.done)
    assert make(place, LATER).done == ()


def test_an_arc_once_chosen_stays_over_an_upgrade(place: Path) -> None:
    make(place, arc="1.3.6.1.4.1.5")

    def older(document: dict[str, Any]) -> None:
        x509_options = document["authority"]["provisioners"][0]["options"]["x509"]
        x509_options["template"] = x509_options["template"].replace("digitalSignature", "x")

    edit(place, older)
    make(place)
    assert provisioner(place)["options"]["x509"]["template"] == template("1.3.6.1.4.1.5")


def test_what_is_the_operators_stays(place: Path) -> None:
    make(place)
    acme = {"type": "ACME", "name": "acme"}

    def theirs(document: dict[str, Any]) -> None:
        document["authority"]["provisioners"].insert(0, acme)
        document |= {"address": ":443", "crl": {"enabled": True}, "db": {"type": "badgerv2"}}
        document["authority"]["claims"] = {"minTLSCertDuration": "1m"}

    edit(place, theirs)
    before = config(place)
    assert make(place).done == ()
    assert config(place) == before


# ---- a CA that `step ca init` made --------------------------------------------------------------


@pytest.fixture
def smallstep(place: Path) -> Path:
    """As `step ca init --provisioner mosaic-fed` leaves it: one password, the old format of keys."""
    make(place)
    password = ca_password(place)
    for name in ("root_ca_key", "intermediate_ca_key"):
        path = place / "secrets" / name
        key = read_ca_key(path, password)
        old = PrivateFormat.TraditionalOpenSSL
        path.write_bytes(key.private_bytes(Encoding.PEM, old, BestAvailableEncryption(password)))
    key = ec.generate_private_key(ec.SECP256R1())
    entry = {
        "type": "JWK", "name": PROVISIONER, "key": jose.public_jwk(key.public_key()),
        "encryptedKey": locked(key, password).decode().strip(),
    }  # fmt: skip
    edit(place, lambda document: document["authority"].update(provisioners=[entry]))
    for path in (place / "for-ledger").iterdir():
        path.unlink()
    return place


def test_its_provisioner_is_taken_over_and_served_no_more(smallstep: Path) -> None:
    kid = provisioner(smallstep)["key"]["kid"]
    made = make(smallstep)
    assert made.kid == kid
    assert "encryptedKey" not in provisioner(smallstep)
    # Under a password of its own from now on.
    own = read_password(smallstep / "for-ledger/provisioner.password")
    assert own != ca_password(smallstep)
    key = unlocked((smallstep / "for-ledger/provisioner.jwe").read_text(), own)
    assert jose.thumbprint(key.public_key()) == kid
    assert make(smallstep).done == ()


def test_a_foreign_ca_gets_our_provisioner_beside_its_own(place: Path) -> None:
    make(place)
    before = {name: content for name, content in files(place).items() if "for-ledger" not in name}
    admin = {"type": "JWK", "name": "admin", "key": {}}
    edit(place, lambda document: document["authority"].update(provisioners=[admin]))
    for path in (place / "for-ledger").iterdir():
        path.unlink()
    make(place)
    assert [p["name"] for p in config(place)["authority"]["provisioners"]] == ["admin", PROVISIONER]
    assert (
        files(place).items() >= {n: c for n, c in before.items() if n != "config/ca.json"}.items()
    )


def test_a_foreign_ca_with_files_of_other_names_is_refused(place: Path) -> None:
    """Its keys would not be found, and others be made beside them."""
    make(place)
    (place / "certs").rename(place / "certificates")
    before = files(place)
    with pytest.raises(SetUpError, match=r"root_ca\.crt is missing"):
        make(place)
    assert files(place) == before


def test_of_several_at_once_one_makes_it(place: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: make(place), range(4)))
    assert len({(one.fingerprint, one.kid) for one in made}) == 1
    assert sorted(bool(one.done) for one in made) == [False, False, False, True]


# ---- what does not fit ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["certs/root_ca.crt", "secrets/intermediate_ca_key", "secrets/password",
     "for-ledger/provisioner.password"],
)  # fmt: skip
def test_what_is_missing_is_named_and_not_made_anew(place: Path, name: str) -> None:
    make(place)
    (place / name).unlink()
    before = files(place)
    with pytest.raises(SetUpError, match=Path(name).name):
        make(place)
    assert files(place) == before


@pytest.mark.parametrize(
    "name",
    ["certs/root_ca.crt", "certs/intermediate_ca.crt", "secrets/intermediate_ca_key",
     "secrets/password", "for-ledger/provisioner.jwe", "for-ledger/provisioner.password"],
)  # fmt: skip
@pytest.mark.parametrize("other", [True, False], ids=["another's", "damaged"])
def test_what_does_not_fit_is_refused_and_not_replaced(
    place: Path, tmp_path: Path, name: str, other: bool
) -> None:
    make(place)
    make(tmp_path / "other")
    content = (tmp_path / "other" / name).read_bytes() if other else b"damaged damaged damaged\n"
    (place / name).write_bytes(content)
    before = files(place)
    with pytest.raises(SetUpError) as refused:
        make(place)
    assert files(place) == before
    assert "damaged damaged" not in str(refused.value)


@pytest.mark.parametrize("name", SECRETS[:2] + SECRETS[3:4])
def test_a_key_that_lies_open_is_refused(place: Path, name: str) -> None:
    make(place)
    if name == "secrets/root_ca_key":
        (place / "certs/intermediate_ca.crt").unlink()  # else nobody reads it
    (place / name).chmod(0o640)
    with pytest.raises(SetUpError, match="open to others"):
        make(place)


def test_a_directory_others_may_write_is_refused(place: Path) -> None:
    make(place)
    (place / "secrets").chmod(0o770)
    with pytest.raises(SetUpError, match="open to others"):
        make(place)


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{}", '{"authority": {}}', '{"authority": {"provisioners": {}}}',
        '{"authority": {"enableAdmin": true, "provisioners": []}}',
        '{"authority": {"provisioners": [{"name": "mosaic-fed", "type": "ACME"}]}}',
        '{"authority": {"provisioners": [{"name": "mosaic-fed", "type": "JWK"}]}}',
    ],
)  # fmt: skip
def test_a_configuration_that_cannot_be_worked_with(place: Path, content: str) -> None:
    make(place)
    (place / "config/ca.json").write_text(content)
    before = files(place)
    with pytest.raises(SetUpError):
        make(place)
    assert files(place) == before


# ---- cut short --------------------------------------------------------------------------------------


STEPS = 52  # seven for the folders, five for each of nine files


@pytest.mark.parametrize("step", range(STEPS + 1))
def test_killed_anywhere_it_goes_on(
    place: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    place.mkdir(0o700)
    with monkeypatch.context() as patch:
        killer = Killer(patch, step)
        with suppress(KilledError):
            make(place)
        assert killer.dead == (step < STEPS), "the number of steps has changed: count again"
    # Whatever has its name is whole; what is not, has none.
    kept = {n: c for n, c in files(place).items() if not n.rpartition("/")[2].startswith(".")}
    assert all(kept.values())
    made = make(place, LATER)
    after_all = files(place)
    assert after_all.items() >= kept.items()
    assert not any(".unfinished" in name for name in after_all)
    assert {*SECRETS, "config/ca.json"} <= after_all.keys()
    assert made.kid == provisioner(place)["key"]["kid"]
    certificate(place, "intermediate_ca.crt").verify_directly_issued_by(
        certificate(place, "root_ca.crt")
    )
    assert make(place, LATER).done == ()


def test_a_full_disk_changes_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(place)
    edit(place, old_release)
    before = files(place)

    def full(*_: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            make(place)
    assert files(place) == before
