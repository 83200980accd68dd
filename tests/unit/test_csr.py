"""Requests from strangers: what is accepted, what each refusal is called, and no other exception."""

import base64
import time
from pathlib import Path

import cryptography_vectors
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from ca.csr import MAX_CSR_BYTES, Csr, CsrError, check_names, key_digest, read_csr
from support.csrs import (
    KINDS,
    ec_key,
    element,
    handmade_request,
    key,
    request,
    spki_with_point,
)

VECTORS = sorted(
    path
    for path in Path(cryptography_vectors.__file__).parent.rglob("*")
    if path.suffix in (".pem", ".der")
)
SLOWEST_ALLOWED = (
    5.0  # seconds of processor time, not of a busy machine's clock; they take 1 to 4 ms:
)
# this finds work that grows without bound
P256 = ec_key()
EXTENSION_REQUEST = bytes.fromhex("06092a864886f70d01090e")
SAN = x509.SubjectAlternativeName([x509.DNSName("a.example")])


def pem(der: bytes, label: str = "CERTIFICATE REQUEST", newline: str = "\n") -> str:
    body = base64.b64encode(der).decode()
    lines = [body[start : start + 64] for start in range(0, len(body), 64)]
    return newline.join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])


def code_of(text: bytes | str) -> str:
    with pytest.raises(CsrError) as caught:
        read_csr(text)
    assert str(caught.value) == f"{caught.value.code}: {caught.value.detail}"
    return caught.value.code


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [None, "Example Peer-1"])
def test_a_good_request_in_every_form(kind: str, name: str | None) -> None:
    der = request(key(kind), name)
    expected = read_csr(der)
    assert expected.der == der
    assert expected.common_name == name
    assert expected.key_digest == key_digest(key(kind).public_key())
    for text in (
        pem(der),
        pem(der).encode(),
        pem(der, "NEW CERTIFICATE REQUEST"),
        pem(der, newline="\r\n"),
        "\n\n" + pem(der) + "\n \n",
        pem(der).rstrip(),
    ):
        again = read_csr(text)
        assert (again.der, again.key_digest) == (der, expected.key_digest)


def test_one_key_has_one_digest_however_its_point_is_written() -> None:
    plain = read_csr(handmade_request(P256))
    assert plain.key_digest == key_digest(P256.public_key())
    compressed = read_csr(
        handmade_request(P256, spki=spki_with_point(P256, PublicFormat.CompressedPoint))
    )
    assert compressed.der != plain.der
    assert compressed.key_digest == plain.key_digest


@pytest.mark.parametrize("digest", [hashes.SHA384(), hashes.SHA512()])
def test_longer_digests_are_accepted(digest: hashes.SHA384 | hashes.SHA512) -> None:
    assert isinstance(read_csr(request(key("p256"), digest=digest)), Csr)
    assert isinstance(read_csr(request(key("rsa3072"), digest=digest)), Csr)


def test_requested_extensions_are_ignored_but_names_are_not() -> None:
    others: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=True, path_length=None), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), True),
        (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"junk"), True),
    ]
    assert isinstance(read_csr(request(P256, extensions=others)), Csr)
    assert code_of(request(P256, extensions=[*others, (SAN, False)])) == "csr-names"


def test_a_name_in_microsofts_older_attribute_is_still_a_name() -> None:
    extension = element(0x30, bytes.fromhex("0603551d11"), element(0x04, SAN.public_bytes()))
    microsoft = element(
        0x30,
        bytes.fromhex("060a2b060104018237") + b"\x02\x01\x0e",
        element(0x31, element(0x30, extension)),
    )
    usage = element(0x30, bytes.fromhex("0603551d0f0404030206c0"))
    standard = element(0x30, EXTENSION_REQUEST, element(0x31, element(0x30, usage)))
    for attributes in (microsoft, b"".join(sorted([microsoft, standard]))):
        assert code_of(handmade_request(P256, attributes=attributes)) == "csr-names"


@pytest.mark.parametrize("kind", ["p521", "k256", "rsa2048"])
def test_other_keys_are_refused(kind: str) -> None:
    assert code_of(request(key(kind))) == "csr-key"


def test_an_rsa_key_with_a_tiny_exponent_is_refused() -> None:
    tiny = rsa.generate_private_key(3, 3072)
    assert code_of(request(tiny)) == "csr-key"


def test_an_enormous_rsa_key_is_refused_before_it_costs_anything() -> None:
    modulus = element(0x02, b"\x00" + b"\xff" * 14_000)
    for exponent in (element(0x02, b"\x01\x00\x01"), element(0x02, b"\x7f" + b"\xff" * 1_000)):
        rsa_key = element(0x03, b"\x00", element(0x30, modulus, exponent))
        spki = element(0x30, bytes.fromhex("300d06092a864886f70d0101010500"), rsa_key)
        began = time.process_time()
        assert code_of(handmade_request(P256, spki=spki)) == "csr-key"
        assert time.process_time() - began < SLOWEST_ALLOWED


def test_the_largest_accepted_rsa_key_is_verified_quickly() -> None:
    """An 8192-bit modulus with the largest exponent: the dearest signature we ever verify."""
    numbers = rsa.RSAPublicNumbers(e=2**32 - 1, n=2**8192 - 1)
    spki = numbers.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    info = element(0x30, b"\x02\x01\x00\x30\x00", spki, b"\xa0\x00")
    algorithm = bytes.fromhex("300d06092a864886f70d01010b0500")
    der = element(0x30, info, algorithm, element(0x03, b"\x00\x7f" + b"\xff" * 1023))
    began = time.process_time()
    assert code_of(der) == "csr-signature"
    assert time.process_time() - began < SLOWEST_ALLOWED


def test_signatures() -> None:
    der = bytearray(request(P256))
    der[-1] ^= 1
    assert code_of(bytes(der)) == "csr-signature"
    other = ec_key(1)
    stolen = P256.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert code_of(handmade_request(other, spki=stolen)) == "csr-signature"


def test_sha_1_is_refused() -> None:
    sha1 = request(P256).replace(
        bytes.fromhex("300a06082a8648ce3d040302"), bytes.fromhex("300906072a8648ce3d0401")
    )
    fixed = element(0x30, sha1[sha1.index(b"\x30", 2) :])
    assert code_of(fixed) == "csr-signature"


@pytest.mark.parametrize(
    "subject",
    [
        [[(NameOID.COMMON_NAME, "a")], [(NameOID.COMMON_NAME, "a")]],
        [[(NameOID.COMMON_NAME, "a"), (NameOID.ORGANIZATION_NAME, "b")]],
        [[(NameOID.COMMON_NAME, "a")], [(NameOID.EMAIL_ADDRESS, "a@b")]],
        [[(NameOID.ORGANIZATION_NAME, "a")]],
    ],
)
def test_subjects(subject: list[list[tuple[x509.ObjectIdentifier, str]]]) -> None:
    name = x509.Name(
        x509.RelativeDistinguishedName([x509.NameAttribute(oid, text) for oid, text in rdn])
        for rdn in subject
    )
    assert code_of(request(P256, subject=name)) == "csr-subject"


def test_the_name_is_checked_when_it_is_known() -> None:
    check_names(read_csr(request(P256)), "peer")
    check_names(read_csr(request(P256, "peer")), "peer")
    for other in ("Peer", "peer ", "peer\x00"):
        with pytest.raises(CsrError) as caught:
            check_names(read_csr(request(P256, other)), "peer")
        assert caught.value.code == "csr-subject"


def test_duplicates_are_refused() -> None:
    usage = element(0x30, bytes.fromhex("0603551d0f0404030206c0"))
    twice = element(0x30, EXTENSION_REQUEST, element(0x31, element(0x30, usage, usage)))
    once = element(0x30, EXTENSION_REQUEST, element(0x31, element(0x30, usage)))
    assert isinstance(read_csr(handmade_request(P256, attributes=once)), Csr)
    assert code_of(handmade_request(P256, attributes=twice)) == "csr-malformed"
    assert code_of(handmade_request(P256, attributes=once + once)) == "csr-malformed"


def nested(depth: int) -> bytes:
    value = b""
    while len(value) < MAX_CSR_BYTES - 8 and depth:
        value, depth = element(0x30, value), depth - 1
    return value


@pytest.mark.parametrize(
    "text",
    [
        b"",
        "",
        b"\x30",
        b"\x30\x80\x00\x00",
        b"\x30\x84\xff\xff\xff\xff",
        b"\x30\x03\x02\x05\x00",
        b"\x30\x81\x01\x05",
        b"\x30\x00\x30\x00",
        b"\x3f\x00",
        nested(100_000),
        b"\x30\x82\x3f\x00" + b"\x05\x00" * 0x1F80,
        "-----BEGIN CERTIFICATE REQUEST-----",
        "-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----",
        "-----BEGIN CERTIFICATE REQUEST-----\n====\n-----END CERTIFICATE REQUEST-----",
        "-----BEGIN CERTIFICATE REQUEST-----\né\n-----END CERTIFICATE REQUEST-----",
        "-----BEGIN CERTIFICATE REQUEST-----\n\ud800\n-----END CERTIFICATE REQUEST-----",
    ],
    ids=range(16),
)
def test_malformed(text: bytes | str) -> None:
    assert code_of(text) == "csr-malformed"


def test_pem_is_one_block_and_nothing_else() -> None:
    good = pem(request(P256))
    body = good.splitlines()[1:-1]
    for text in (
        good + good,
        "junk\n" + good,
        good + "junk",
        good.replace("CERTIFICATE REQUEST", "CERTIFICATE"),
        good.replace("BEGIN CERTIFICATE", "BEGIN NEW CERTIFICATE"),
        good.replace(body[0], "Proc-Type: 4,ENCRYPTED\n\n" + body[0]),
        good.replace(body[0], body[0] + "\x00"),
        good.replace("\n", ""),
        "\n".join(body),
    ):
        assert code_of(text) == "csr-malformed"
    assert code_of(request(P256) + b"\x00") == "csr-malformed"


def test_size() -> None:
    for text in (b"\x30" * (MAX_CSR_BYTES + 1), "-" * (MAX_CSR_BYTES + 1), b"\x00" * 10**7):
        assert code_of(text) == "csr-too-large"
    assert code_of("\n" * MAX_CSR_BYTES) == "csr-malformed"


def test_every_file_of_the_cryptography_vectors() -> None:
    """PEM and DER of every kind: a Csr or a CsrError, quickly."""
    assert len(VECTORS) > 390
    for path in VECTORS:
        content = path.read_bytes()
        began = time.process_time()
        try:
            read_csr(content)
        except CsrError as error:
            code: str | None = error.code
        else:
            code = None
        assert time.process_time() - began < SLOWEST_ALLOWED, path
        if path.parent.name != "requests":
            assert code == ("csr-too-large" if len(content) > MAX_CSR_BYTES else "csr-malformed")


SEEDS = [request(key(kind), name) for kind in KINDS for name in (None, "a")] + [
    request(P256, extensions=[(SAN, True)])
]


@given(
    st.sampled_from(SEEDS),
    st.lists(
        st.tuples(st.integers(0, 2000), st.integers(0, 255), st.sampled_from("rid")), max_size=4
    ),
)
def test_damaged_requests_raise_nothing_else(
    seed: bytes, damage: list[tuple[int, int, str]]
) -> None:
    der = bytearray(seed)
    for place, value, how in damage:
        at = place % len(der)
        if how == "r":
            der[at] = value
        elif how == "i":
            der.insert(at, value)
        else:
            del der[at]
    try:
        read_csr(bytes(der))
    except CsrError as error:
        code = error.code
    else:
        return
    assert code.startswith("csr-")


@given(st.binary() | st.text())
def test_junk_raises_nothing_else(text: bytes | str) -> None:
    assert code_of(text) == "csr-malformed"


def test_errors_do_not_echo_the_request() -> None:
    for text in ("SECRET-" * 3, pem(b"SECRET-" * 9), request(P256, subject=secret_subject())):
        with pytest.raises(CsrError) as caught:
            read_csr(text)
        assert "SECRET" not in str(caught.value)


def secret_subject() -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "SECRET-")])
