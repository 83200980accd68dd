"""The adapter to step-ca against our own small fake: the contract, and answers nobody can ask for."""

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ca import jose
from ca.authority import AuthorityFilesError, AuthorityRefused, AuthorityUnavailable
from ca.hierarchy import new_root
from ca.http1 import MAX_ANSWER_BYTES
from ca.https import _is_silent
from ca.profile import SigningOrder, check_certificate, der_utf8
from ca.step_ca import StepCaAuthority
from ca.step_ca_client import Answer, checked_url
from ca.step_ca_home import StepCaHome
from support.authority_contract import StepCaContract
from support.csrs import ec_key, order, request
from support.fake_step_ca import FakeStepCa, fake_step_ca
from support.waiting import wait_until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FakeStepCa]:
    with fake_step_ca(tmp_path) as fake:
        yield fake


class TestFakeStepCa(StepCaContract):
    @pytest.fixture
    def server(self, server: FakeStepCa) -> FakeStepCa:
        return server

    @pytest.fixture
    def authority(self, server: FakeStepCa, tmp_path: Path) -> Iterator[StepCaAuthority]:
        authority = server.authority(tmp_path / "authority")
        yield authority
        authority.client.close()


# ---- what a real server cannot be asked for ---------------------------------------------------


@pytest.fixture
def authority(server: FakeStepCa, tmp_path: Path) -> Iterator[StepCaAuthority]:
    authority = replace(server.authority(tmp_path / "authority"), _pause=lambda seconds: None)
    yield authority
    authority.close()


def asked() -> SigningOrder:
    return order(request(ec_key()), datetime.now(UTC))  # noqa: TID251 - the fake's clock


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 500, 501])
def test_a_final_answer_is_asked_for_once(
    server: FakeStepCa, authority: StepCaAuthority, status: int
) -> None:
    server.faults.append(status)
    with pytest.raises(AuthorityRefused) as caught:
        authority.sign(asked(), timeout=5.0)
    assert caught.value.status == status
    assert f"answers {status}: fault {status}" in caught.value.detail
    assert server.issued() == []


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
def test_an_answer_that_passes_is_asked_for_again_with_a_fresh_token(
    server: FakeStepCa, authority: StepCaAuthority, status: int
) -> None:
    server.faults.extend([status, "lost"])
    wanted = asked()
    der = authority.sign(wanted, timeout=5.0)
    assert server.issued() == [der, der]
    first, second = (body for _, body in server.asked)
    assert first.pop("ott") != second.pop("ott")
    assert first == second
    server.faults.extend([status] * 3)
    with pytest.raises(AuthorityUnavailable, match=str(status)):
        authority.sign(asked(), timeout=5.0)
    assert not server.faults


def test_a_connection_is_kept_and_used_again(
    server: FakeStepCa, authority: StepCaAuthority
) -> None:
    for _ in range(3):
        authority.sign(asked(), timeout=5.0)
    assert server.connections == 1


def test_one_that_the_server_closed_meanwhile_costs_no_try(
    server: FakeStepCa, authority: StepCaAuthority
) -> None:
    server.faults.append("hangs up")
    authority.sign(asked(), timeout=5.0)
    ((_, kept),) = authority.client._connections._idle
    wait_until(lambda: not _is_silent(kept), "the server has hung up")
    authority.sign(asked(), timeout=5.0)
    assert (server.connections, len(server.asked)) == (2, 2)


def test_it_waits_between_tries_longer_each_time(
    server: FakeStepCa, authority: StepCaAuthority
) -> None:
    waited: list[float] = []
    server.faults.extend([503] * 3)
    with pytest.raises(AuthorityUnavailable):
        replace(authority, _pause=waited.append).sign(asked(), timeout=5.0)
    first, second = waited
    assert 0.05 <= first <= 0.15
    assert 0.1 <= second <= 0.3


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"[1]",
        b'{"crt": 5}',
        b'{"crt": null}',
        b"{}",
        b"[" * 100_000,
        b"x" * (MAX_ANSWER_BYTES + 1),
    ],
)
def test_an_answer_that_makes_no_sense_is_none(
    server: FakeStepCa, authority: StepCaAuthority, body: bytes
) -> None:
    """The server may have signed: what is open can still be closed by its serial."""
    server.faults.extend([body] * 3)
    with pytest.raises(AuthorityUnavailable):
        authority.sign(asked(), timeout=5.0)


@pytest.mark.parametrize("text", ["", "junk", "-----BEGIN CERTIFICATE-----\nAAA\n-----END", "é"])
def test_whatever_it_calls_a_certificate_is_handed_on_to_be_judged(
    server: FakeStepCa, authority: StepCaAuthority, text: str
) -> None:
    server.faults.append(json.dumps({"crt": text}).encode())
    wanted = asked()
    der = authority.sign(wanted, timeout=5.0)
    assert check_certificate(der, wanted, authority.chain()) != ()


def test_what_it_says_is_shown_on_one_line_and_bounded(
    server: FakeStepCa, authority: StepCaAuthority
) -> None:
    answer = Answer(400, {}, json.dumps({"message": "a\n\x1b[31mb" + "c" * 5000}).encode())
    assert answer.message.startswith("a [31mb")
    assert len(answer.message) == 500
    assert Answer(404, {}, b"404 page not found\n").message == "404 page not found"
    assert Answer(200, {}, b"not JSON").document == {}


@pytest.mark.parametrize(
    "url",
    [
        "http://ca.example:9000", "ca.example:9000", "https://", "https://ca.example/acme",
        "https://u:p@ca.example", "https://ca.example?x=1", "https://ca.example:port", "",
    ],
)  # fmt: skip
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        checked_url(url)


def test_an_order_the_template_has_no_place_for_is_not_sent(
    server: FakeStepCa, authority: StepCaAuthority
) -> None:
    good = asked()
    extensions = (
        good.extensions[:1],
        (*good.extensions, ("1.2.3.3", der_utf8("more"))),
        (good.extensions[0], (good.extensions[1][0], b"\x04\x01a")),
        good.extensions[::-1],
    )
    for some in extensions:
        with pytest.raises(AuthorityRefused):
            authority.sign(replace(good, extensions=some), timeout=5.0)
    assert server.asked == []


# ---- what a ledger keeps of it ----------------------------------------------------------------


def test_the_directory_is_private_and_read_again(server: FakeStepCa, tmp_path: Path) -> None:
    home = server.connection(tmp_path / "home" / "authority")
    files = {
        path.name: stat.S_IMODE(path.stat().st_mode)
        for path in (tmp_path / "home" / "authority").iterdir()
    }
    names = ("authority.json", "root.pem", "issuing.pem", "provisioner.jwe", "provisioner.password")
    assert files == dict.fromkeys(names, 0o600)
    again = StepCaHome.read(tmp_path / "home" / "authority")
    assert (again.id, again.url, again.kid) == (home.id, server.url, home.kid)
    assert again.key.private_numbers() == server.provisioner.private_numbers()
    assert "EllipticCurve" not in repr(again)


def test_it_is_never_made_over_another(server: FakeStepCa, tmp_path: Path) -> None:
    server.connection(tmp_path / "authority")
    before = {path: path.read_bytes() for path in (tmp_path / "authority").iterdir()}
    with pytest.raises(AuthorityFilesError, match="already holds"):
        server.connection(tmp_path / "authority")
    assert {path: path.read_bytes() for path in (tmp_path / "authority").iterdir()} == before


def test_what_does_not_belong_together_is_not_made(server: FakeStepCa, tmp_path: Path) -> None:
    good = {
        "url": server.url, "provisioner": "mosaic-fed", "root": server.root.certificate,
        "issuing": server.issuer.certificate, "password": b"password",
        "encrypted_key": jose.encrypt(
            json.dumps(jose.private_jwk(server.provisioner)).encode(), b"password", iterations=1000
        ),
    }  # fmt: skip
    for wrong in (
        {"url": "http://ca.example"}, {"root": server.issuer.certificate},
        {"issuing": new_root("Fake", 1, datetime.now(UTC), os.urandom).certificate},  # noqa: TID251
        {"password": b"another"}, {"encrypted_key": "junk"},
        {"encrypted_key": jose.encrypt(b"5", b"password", iterations=1000)},
        {"password": tmp_path / "nowhere"},
    ):  # fmt: skip
        with pytest.raises(AuthorityFilesError):
            StepCaHome.make(tmp_path / "authority", **{**good, **wrong})  # type: ignore[arg-type]
        assert not (tmp_path / "authority").exists()


def test_the_password_may_stand_in_a_file_that_others_may_read(
    server: FakeStepCa, tmp_path: Path
) -> None:
    """As a container's secrets do."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"password\n")
    secret.chmod(0o444)
    made = server.connection(tmp_path / "authority", password=secret)
    assert not (tmp_path / "authority" / "provisioner.password").exists()
    assert StepCaHome.read(tmp_path / "authority").id == made.id
    secret.chmod(0o666)
    with pytest.raises(AuthorityFilesError, match="open to others"):
        StepCaHome.read(tmp_path / "authority")
    secret.unlink()
    with pytest.raises(AuthorityFilesError, match="secret"):
        StepCaHome.read(tmp_path / "authority")


@pytest.mark.parametrize("name", ["provisioner.jwe", "provisioner.password"])
def test_loose_secrets_are_refused(server: FakeStepCa, tmp_path: Path, name: str) -> None:
    server.connection(tmp_path / "authority")
    (tmp_path / "authority" / name).chmod(0o640)
    with pytest.raises(AuthorityFilesError, match="open to others"):
        StepCaHome.read(tmp_path / "authority")


@pytest.mark.parametrize(
    "name",
    ["authority.json", "root.pem", "issuing.pem", "provisioner.jwe", "provisioner.password"],
)
@pytest.mark.parametrize("content", [None, b"", b"junk", b"{}", b"[]", b"\xff"])
def test_damaged_files_are_refused(
    server: FakeStepCa, tmp_path: Path, name: str, content: bytes | None
) -> None:
    server.connection(tmp_path / "authority")
    path = tmp_path / "authority" / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(AuthorityFilesError):
        StepCaHome.read(tmp_path / "authority")
