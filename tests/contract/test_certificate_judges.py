"""Certificates judged by programs that are not ours: OpenSSL's strict verifier and pkilint."""

import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import cryptography_vectors
import pytest
import validators  # type: ignore[import-untyped]
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pkilint import loader  # type: ignore[import-untyped]
from pkilint.pkix import certificate as pkix  # type: ignore[import-untyped]
from pkilint.pkix import extension, name
from pkilint.validation import ValidationFindingSeverity  # type: ignore[import-untyped]

from ca.local import LocalAuthority
from support.csrs import GRANT, KINDS, key, order, request

NOW = datetime(2026, 11, 23, 15, 7, 8, 123456, tzinfo=UTC)
VECTORS = Path(cryptography_vectors.__file__).parent

# pkilint judges URIs with `validators.url`, which knows web addresses only: it refuses the URN in
# RFC 8141 §1 itself. Ours is the URN that RFC 9562 §4 defines; RFC 5280 §4.2.1.6 asks for an
# absolute URI with a scheme, which it is. The only finding let through, on this one value.
KNOWN_FALSE = ("pkix.invalid_uri_syntax", f'Invalid URI syntax: "urn:uuid:{GRANT}"')


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> LocalAuthority:
    directory = tmp_path_factory.mktemp("judges") / "authority"
    return LocalAuthority.create(directory, name="Example", now=NOW)


@pytest.fixture(scope="module")
def leaves(authority: LocalAuthority) -> dict[str, bytes]:
    return {kind: authority.sign(order(request(key(kind)), NOW), timeout=1) for kind in KINDS}


def openssl(*arguments: str | Path) -> str:
    program = shutil.which("openssl")
    assert program, "these tests need the openssl program: install the package openssl"
    done = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=30
    )
    return done.stdout + done.stderr


def pem(*ders: bytes) -> bytes:
    return b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in ders)


@pytest.fixture
def verify(tmp_path: Path, authority: LocalAuthority) -> list[str | Path]:
    issuing, root = authority.chain()
    (tmp_path / "root.pem").write_bytes(pem(root))
    (tmp_path / "issuing.pem").write_bytes(pem(issuing))
    return [
        "verify",
        "-x509_strict",
        "-check_ss_sig",
        "-attime",
        str(int(NOW.timestamp())),
        "-CAfile",
        tmp_path / "root.pem",
        "-untrusted",
        tmp_path / "issuing.pem",
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_openssl_verifies_strictly_for_tls_clients_only(
    kind: str, leaves: dict[str, bytes], verify: list[str | Path], tmp_path: Path
) -> None:
    leaf = tmp_path / "leaf.pem"
    leaf.write_bytes(pem(leaves[kind]))
    assert openssl(*verify, "-purpose", "sslclient", leaf) == f"{leaf}: OK\n"
    assert "unsuitable certificate purpose" in openssl(*verify, "-purpose", "sslserver", leaf)


def test_openssl_verifies_the_authority(
    verify: list[str | Path], tmp_path: Path, authority: LocalAuthority
) -> None:
    for file in ("root.pem", "issuing.pem"):
        assert openssl(*verify, tmp_path / file) == f"{tmp_path / file}: OK\n"


def findings(der: bytes) -> list[tuple[str, str | None]]:
    """Everything `lint_pkix_cert lint` says that is graver than INFO, as (code, message)."""
    judge = pkix.create_pkix_certificate_validator_container(
        pkix.create_decoding_validators(name.ATTRIBUTE_TYPE_MAPPINGS, extension.EXTENSION_MAPPINGS),
        [
            pkix.create_issuer_validator_container([]),
            pkix.create_validity_validator_container(),
            pkix.create_subject_validator_container([]),
            pkix.create_extensions_validator_container([]),
            pkix.create_spki_validator_container([]),
        ],
    )
    return [
        (described.finding.code, described.message)
        for result in judge.validate(loader.load_certificate(der, "certificate").root)
        for described in result.finding_descriptions
        if described.finding.severity < ValidationFindingSeverity.INFO  # FATAL is 0
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_pkilint_finds_nothing_in_leaves(kind: str, leaves: dict[str, bytes]) -> None:
    assert [found for found in findings(leaves[kind]) if found != KNOWN_FALSE] == []


def test_pkilint_finds_nothing_in_the_authority(authority: LocalAuthority) -> None:
    assert [findings(der) for der in authority.chain()] == [[], []]


def test_the_one_finding_let_through_is_the_judges_own_mistake() -> None:
    """When this fails, the judge has learned what a URN is: remove KNOWN_FALSE."""
    assert not validators.url("urn:isbn:0451450523")


def test_the_judge_can_see() -> None:
    """A linter that is called wrongly finds nothing either."""
    bad = VECTORS / "x509" / "custom" / "basic_constraints_not_critical.pem"
    der = x509.load_pem_x509_certificate(bad.read_bytes()).public_bytes(Encoding.DER)
    assert findings(der)
