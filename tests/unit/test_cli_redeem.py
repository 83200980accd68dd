"""The peer's files: made once, private, never overwritten, and only for the key that asked."""

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from api.cli import redeem, run
from api.cli.exits import CommandError

OID = "1.3.6.1.4.1.99999.1"


@pytest.fixture
def files(tmp_path: Path) -> redeem.Files:
    return redeem.Files(tmp_path / "peer")


def certificate_for(key: ec.EllipticCurvePublicKey, text: str = "grant") -> str:
    content = text.encode()
    long_form = bytes([0x81, len(content)]) if len(content) > 127 else bytes([len(content)])
    builder = (
        x509.CertificateBuilder(x509.Name([]), x509.Name([]), key, 7)
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=1))
        .add_extension(
            x509.UnrecognizedExtension(x509.ObjectIdentifier(OID), b"\x0c" + long_form + content),
            critical=False,
        )
    )
    signed = builder.sign(ec.generate_private_key(ec.SECP256R1()), SHA256())
    return signed.public_bytes(Encoding.PEM).decode()


def key_of(files: redeem.Files) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(files.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def test_the_key_is_p256_pkcs8_and_private(files: redeem.Files) -> None:
    old = os.umask(0)
    try:
        redeem.prepare(files)
    finally:
        os.umask(old)
    assert stat.S_IMODE(files.key.stat().st_mode) == 0o600
    assert files.key.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")
    assert key_of(files).curve.name == "secp256r1"


def test_the_request_is_for_that_key_with_an_empty_subject(files: redeem.Files) -> None:
    request = x509.load_pem_x509_csr(redeem.prepare(files).encode())
    assert request.is_signature_valid
    assert request.public_key() == key_of(files).public_key()
    assert len(request.subject) == 0
    assert len(request.extensions) == 0


def test_a_second_run_goes_on_with_the_same_key_and_request(files: redeem.Files) -> None:
    first = redeem.prepare(files)
    key = files.key.read_bytes()
    assert redeem.prepare(files) == first
    assert files.key.read_bytes() == key


def test_a_run_cut_short_before_the_request_keeps_the_key(files: redeem.Files) -> None:
    redeem.prepare(files)
    key = files.key.read_bytes()
    files.request.unlink()
    request = x509.load_pem_x509_csr(redeem.prepare(files).encode())
    assert files.key.read_bytes() == key
    assert request.public_key() == key_of(files).public_key()


def test_a_finished_enrollment_is_never_touched(files: redeem.Files) -> None:
    redeem.prepare(files)
    pem = certificate_for(key_of(files).public_key())
    redeem.store(files, pem, pem)
    with pytest.raises(CommandError, match="exists") as caught:
        redeem.prepare(files)
    assert caught.value.exit == 1


def test_a_certificate_for_another_key_is_not_stored(files: redeem.Files) -> None:
    redeem.prepare(files)
    pem = certificate_for(ec.generate_private_key(ec.SECP256R1()).public_key())
    with pytest.raises(CommandError, match="not for the key") as caught:
        redeem.store(files, pem, pem)
    assert caught.value.exit == 6
    assert not files.certificate.exists()
    assert not files.chain.exists()


def test_garbage_is_not_stored(files: redeem.Files) -> None:
    redeem.prepare(files)
    with pytest.raises(CommandError) as caught:
        redeem.store(files, "nonsense", "nonsense")
    assert caught.value.exit == 6


def test_a_link_put_in_the_way_is_not_followed(files: redeem.Files, tmp_path: Path) -> None:
    files.directory.mkdir()
    files.key.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CommandError) as caught:
        redeem.prepare(files)
    assert caught.value.exit == 2
    assert not (tmp_path / "elsewhere").exists()


# ---- renewal: the same files, with a certificate presented in place of a token ----------------


def renewing(url: str, certificate: Path, key: Path, out: Path) -> int:
    return run(
        ["cert", "renew", "--url", url, "--cert", str(certificate), "--key", str(key),
         "--out", str(out)]
    )  # fmt: skip


def test_what_cannot_be_presented_makes_no_new_key(
    files: redeem.Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    redeem.prepare(files)
    pem = certificate_for(key_of(files).public_key())
    redeem.store(files, pem, pem)
    foreign = redeem.Files(tmp_path / "foreign")
    redeem.prepare(foreign)
    out = tmp_path / "new"
    proxy = "https://127.0.0.1:1"
    assert renewing("http://127.0.0.1:1", files.chain, files.key, out) == 2
    assert "over https only" in capsys.readouterr().err
    assert renewing(proxy, files.chain, foreign.key, out) == 2
    assert "cannot be presented" in capsys.readouterr().err
    assert renewing(proxy, files.request, files.key, out) == 2
    assert "holds no certificate" in capsys.readouterr().err
    assert renewing(proxy, tmp_path / "nothing", files.key, out) == 2
    assert not out.exists()


def test_without_an_answer_key_and_request_are_kept(files: redeem.Files, tmp_path: Path) -> None:
    redeem.prepare(files)
    pem = certificate_for(key_of(files).public_key())
    redeem.store(files, pem, pem)
    new = redeem.Files(tmp_path / "new")
    kept = []
    for _ in range(2):
        assert renewing("https://127.0.0.1:1", files.chain, files.key, new.directory) == 7
        kept.append((new.key.read_bytes(), new.request.read_bytes()))
    assert kept[0] == kept[1]
    assert stat.S_IMODE(new.key.stat().st_mode) == 0o600
    assert not new.certificate.exists()


@pytest.mark.parametrize("text", ["g", "x" * 127, "x" * 200])
def test_an_extensions_text_is_read(text: str) -> None:
    pem = certificate_for(ec.generate_private_key(ec.SECP256R1()).public_key(), text)
    assert redeem.read_extension(pem, OID) == text
    assert redeem.read_extension(pem, "1.2.3") is None
