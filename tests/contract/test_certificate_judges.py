"""Certificates and CRLs judged by programs that are not ours: OpenSSL's strict verifier, pkilint."""

import shutil
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cryptography_vectors
import pkilint.pkix  # type: ignore[import-untyped]
import pytest
import validators  # type: ignore[import-untyped]
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from pkilint import loader
from pkilint.pkix import certificate as pkix
from pkilint.pkix import crl as pkix_crl
from pkilint.pkix import extension, name
from pkilint.validation import ValidationFindingSeverity  # type: ignore[import-untyped]

from ca.crl import RevocationList, Revoked
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
    return _grave(judge.validate(loader.load_certificate(der, "certificate").root))


def list_findings(der: bytes) -> list[tuple[str, str | None]]:
    """Everything `lint_crl lint -t CRL -p PKIX` says that is graver than INFO."""
    judge = pkix_crl.create_pkix_crl_validator_container(
        [
            pkilint.pkix.create_attribute_decoder(name.ATTRIBUTE_TYPE_MAPPINGS),
            pkilint.pkix.create_extension_decoder(extension.EXTENSION_MAPPINGS),
        ],
        [
            pkix_crl.create_issuer_validator_container([]),
            pkix_crl.create_validity_validator_container([]),
            pkix_crl.create_extensions_validator_container([]),
        ],
    )
    document = loader.RFC5280CertificateListDocumentLoader().load_document(der, "list")
    return _grave(judge.validate(document.root))


def _grave(results: Iterable[Any]) -> list[tuple[str, str | None]]:
    return [
        (described.finding.code, described.message)
        for result in results
        for described in result.finding_descriptions
        if described.finding.severity < ValidationFindingSeverity.INFO  # FATAL is 0
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_pkilint_finds_nothing_in_leaves(kind: str, leaves: dict[str, bytes]) -> None:
    assert [found for found in findings(leaves[kind]) if found != KNOWN_FALSE] == []


def test_pkilint_finds_nothing_in_the_authority(authority: LocalAuthority) -> None:
    assert [findings(der) for der in authority.chain()] == [[], []]


REASONS = (
    "unspecified", "keyCompromise", "affiliationChanged", "superseded", "cessationOfOperation",
    "certificateHold", "privilegeWithdrawn",
)  # fmt: skip


def revocation_list(*entries: Revoked, number: int = 41) -> RevocationList:
    begin = NOW.replace(microsecond=0)
    return RevocationList(number, begin, begin + timedelta(hours=24), entries)


def test_nobody_finds_anything_in_a_revocation_list(authority: LocalAuthority) -> None:
    entries = [Revoked(f"{number:032x}", NOW, why) for number, why in enumerate(REASONS, 4 << 124)]
    for wanted in (revocation_list(), revocation_list(*entries)):
        der = authority.sign_list(wanted)
        assert list_findings(der) == []
        assert der == authority.sign_list(wanted)
        read = x509.load_der_x509_crl(der)
        issuing = x509.load_der_x509_certificate(authority.chain()[0])
        public = issuing.public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        assert read.is_signature_valid(public)
        assert read.issuer == issuing.subject
        assert (read.last_update_utc, read.next_update_utc) == (
            wanted.this_update,
            wanted.next_update,
        )
        assert [f"{one.serial_number:032x}" for one in read] == [
            one.serial for one in wanted.entries
        ]
    # RFC 5280 §5.3.1: `unspecified` is said by silence.
    assert [len(one.extensions) for one in read] == [0, 1, 1, 1, 1, 1, 1]


def test_the_judge_of_lists_can_see(authority: LocalAuthority) -> None:
    number = 1 << 160  # RFC 5280 §5.2.3 allows 20 octets
    assert list_findings(authority.sign_list(revocation_list(number=number)))


def test_the_one_finding_let_through_is_the_judges_own_mistake() -> None:
    """When this fails, the judge has learned what a URN is: remove KNOWN_FALSE."""
    assert not validators.url("urn:isbn:0451450523")


def test_the_judge_can_see() -> None:
    """A linter that is called wrongly finds nothing either."""
    bad = VECTORS / "x509" / "custom" / "basic_constraints_not_critical.pem"
    der = x509.load_pem_x509_certificate(bad.read_bytes()).public_bytes(Encoding.DER)
    assert findings(der)
