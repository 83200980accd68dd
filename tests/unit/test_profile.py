"""The certificate profile: orders, serials, validity, and that every deviation is found."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import cryptography_vectors
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from ca.der import DerError, check_outline, children, oid_text
from ca.profile import (
    SigningOrder,
    ValidityTooShort,
    certificate_builder,
    certificate_sha256,
    check_certificate,
    der_utf8,
    new_serial,
    order_extensions,
    parse_serial,
    tbs_sha256,
    validity,
)
from support.csrs import ec_key, element, order, request

NOW = datetime(2026, 11, 23, 15, 7, 8, 123456, tzinfo=UTC)
DAY = timedelta(days=1)
VECTORS = Path(cryptography_vectors.__file__).parent / "x509"


class Issuer(NamedTuple):
    certificate: x509.Certificate
    der: bytes


def issuer(number: int, name: str = "issuer") -> Issuer:
    """A self-signed certificate: the shortest chain there is."""
    made = ec_key(number)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .serial_number(1)
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + 9 * DAY)
        .public_key(made.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(made.public_key()), critical=False)
        .sign(made, hashes.SHA256())
    )
    return Issuer(certificate, certificate.public_bytes(Encoding.DER))


ISSUER = issuer(100)
ORDER = order(request(ec_key()), NOW)


def signed(builder: x509.CertificateBuilder, digest: hashes.HashAlgorithm | None = None) -> bytes:
    algorithm: Any = digest or hashes.SHA256()
    return builder.sign(ec_key(100), algorithm, ecdsa_deterministic=True).public_bytes(Encoding.DER)


def good() -> bytes:
    return signed(certificate_builder(ORDER, ISSUER.certificate))


def findings(der: bytes, **more: Any) -> tuple[str, ...]:
    return check_certificate(der, ORDER, [ISSUER.der], **more)


def test_what_is_built_is_as_ordered_and_golden_in_form() -> None:
    assert findings(good()) == ()
    certificate = x509.load_der_x509_certificate(good())
    assert [
        (extension.oid.dotted_string, extension.critical) for extension in certificate.extensions
    ] == [
        ("2.5.29.15", True),
        ("2.5.29.37", False),
        ("2.5.29.19", True),
        ("2.5.29.14", False),
        ("2.5.29.35", False),
        ("2.5.29.17", False),
        ("1.3.6.1.4.1.99999.1", False),
        ("1.3.6.1.4.1.99999.2", False),
    ]
    values = {e.oid.dotted_string: e.value.public_bytes() for e in certificate.extensions}
    assert values["2.5.29.15"].hex() == "03020780"
    assert values["2.5.29.37"].hex() == "300a06082b06010505070302"
    assert values["2.5.29.19"].hex() == "3000"
    assert values["1.3.6.1.4.1.99999.1"] == b"\x0c\x240d9cb46e-5a0c-4a39-9d4e-0b6f5f1a7c11"
    assert values["1.3.6.1.4.1.99999.2"] == b"\x0c\x0fuser:42@example"
    assert values["2.5.29.17"][2:] == b"\x86\x2durn:uuid:0d9cb46e-5a0c-4a39-9d4e-0b6f5f1a7c11"


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({"serial": "5" + ORDER.serial[1:]}, "serial: not the ordered one"),
        (
            {"not_after": ORDER.not_after + timedelta(seconds=1)},
            "validity: notAfter is 2026-11-24T15:07:08+00:00",
        ),
        (
            {"not_before": ORDER.not_before - timedelta(seconds=1)},
            "validity: notBefore is 2026-11-23T15:06:08+00:00",
        ),
        ({"common_name": "Example Peer-2"}, "subject: not exactly the ordered common name"),
        ({"key_digest": "0" * 64}, "key: not the ordered one"),
        ({"san_uri": "urn:uuid:x"}, "extension 2.5.29.17: not as ordered"),
        (
            {"extensions": order_extensions("other", "user:42@example")},
            "extension 1.3.6.1.4.1.99999.1: not as ordered",
        ),
        ({"extensions": ORDER.extensions[:1]}, "extension 1.3.6.1.4.1.99999.2: not ordered"),
        (
            {"extensions": (*ORDER.extensions, ("1.2.3", b"\x05\x00"))},
            "extension 1.2.3: missing",
        ),
    ],
)
def test_every_field_is_compared(change: dict[str, Any], finding: str) -> None:
    assert check_certificate(good(), replace(ORDER, **change), [ISSUER.der]) == (finding,)


EKU = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])


@pytest.mark.parametrize(
    ("oid", "replacement"),
    [
        ("2.5.29.37", (EKU, True)),
        (
            "2.5.29.37",
            (
                x509.ExtendedKeyUsage(
                    [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
                ),
                False,
            ),
        ),
        ("2.5.29.37", None),
        ("2.5.29.19", (x509.BasicConstraints(ca=True, path_length=None), True)),
        ("2.5.29.19", (x509.BasicConstraints(ca=False, path_length=None), False)),
        ("2.5.29.15", (x509.KeyUsage(True, True, *[False] * 7), True)),
        ("2.5.29.14", (x509.SubjectKeyIdentifier(bytes(20)), False)),
        ("2.5.29.35", (x509.AuthorityKeyIdentifier(bytes(20), None, None), False)),
        ("2.5.29.17", (x509.SubjectAlternativeName([x509.DNSName("a")]), False)),
        # One value, two encodings: the bytes are compared, not what a parser makes of them.
        (
            "2.5.29.15",
            (
                x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.15"), b"\x03\x02\0\x80"),
                True,
            ),
        ),
        (
            "1.3.6.1.4.1.99999.1",
            (
                x509.UnrecognizedExtension(
                    x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), ORDER.extensions[0][1]
                ),
                True,
            ),
        ),
        ("1.3.6.1.4.1.99999.2", None),
    ],
)
def test_every_extension_is_compared(
    oid: str, replacement: tuple[x509.ExtensionType, bool] | None
) -> None:
    original = x509.load_der_x509_certificate(good())
    changed = bare_builder()
    for extension in original.extensions:
        if extension.oid.dotted_string != oid:
            changed = changed.add_extension(extension.value, extension.critical)
    if replacement:
        changed = changed.add_extension(*replacement)
    assert findings(signed(changed)) == (
        f"extension {oid}: {'not as ordered' if replacement else 'missing'}",
    )


def bare_builder() -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ORDER.common_name)]))
        .issuer_name(ISSUER.certificate.subject)
        .serial_number(int(ORDER.serial, 16))
        .not_valid_before(ORDER.not_before)
        .not_valid_after(ORDER.not_after)
        .public_key(ec_key().public_key())
    )


def test_a_bare_certificate_misses_everything() -> None:
    version, *extensions = findings(signed(bare_builder()))
    assert version.startswith("version")
    assert len(extensions) == 8
    assert all(finding.endswith(": missing") for finding in extensions)


def test_the_newer_subject_key_identifier_is_right_too() -> None:
    newer = x509.SubjectKeyIdentifier(
        # RFC 7093 §2 (1): the left 160 bits of SHA-256 of the key's bits
        certificate_digest_of_point()
    )
    changed = bare_builder()
    for extension in x509.load_der_x509_certificate(good()).extensions:
        value = newer if isinstance(extension.value, x509.SubjectKeyIdentifier) else extension.value
        changed = changed.add_extension(value, extension.critical)
    assert findings(signed(changed)) == ()


def certificate_digest_of_point() -> bytes:
    numbers = ec_key().public_key().public_numbers()
    point = b"\x04" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
    return bytes.fromhex(certificate_sha256(point))[:20]


def test_extra_extensions_only_as_allowed() -> None:
    oid = "1.3.6.1.4.1.37476.9000.64.1"

    def with_extra(critical: bool = False) -> bytes:
        extra = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), b"\x04\x01a")
        builder = certificate_builder(ORDER, ISSUER.certificate)
        return signed(builder.add_extension(extra, critical))

    assert findings(with_extra()) == (f"extension {oid}: not ordered",)
    assert findings(with_extra(), allowed_extra_oids={oid: None}) == ()
    assert findings(with_extra(), allowed_extra_oids={oid: b"\x04\x01a"}) == ()
    assert findings(good(), allowed_extra_oids={oid: b"\x04\x01a"}) == ()
    wrong = (f"extension {oid}: not as the authority is known to write it",)
    assert findings(with_extra(), allowed_extra_oids={oid: b"\x04\x01b"}) == wrong
    assert findings(with_extra(critical=True), allowed_extra_oids={oid: None}) == wrong


def test_the_chain_is_verified_up_to_the_pinned_root() -> None:
    namesake, other = issuer(101), issuer(101, "other")
    assert check_certificate(good(), ORDER, [namesake.der]) == (
        "chain: the signature at depth 0 does not verify",
        "extension 2.5.29.35: not as ordered",
    )
    assert "chain: the signature at depth 0 does not verify" in check_certificate(
        good(), ORDER, [other.der]
    )
    assert check_certificate(good(), ORDER, [ISSUER.der, other.der]) == (
        "chain: the signature at depth 1 does not verify",
    )
    with pytest.raises(ValueError, match="no chain"):
        check_certificate(good(), ORDER, [])
    damaged = good()[:-1] + bytes([good()[-1] ^ 1])
    assert findings(damaged) == ("chain: the signature at depth 0 does not verify",)


def test_sha_1_signatures_are_found() -> None:
    """The library will not sign with SHA-1 any more, so both algorithm fields are rewritten."""
    sha256, sha1 = (
        bytes.fromhex("300a06082a8648ce3d040302"),
        bytes.fromhex("300906072a8648ce3d0401"),
    )
    tbs, _, signature = children(good())
    fields = [sha1 if part.der == sha256 else part.der for part in children(tbs.der)]
    forged = element(0x30, element(0x30, *fields), sha1, signature.der)
    assert "signature: algorithm not accepted" in findings(forged)


def test_an_extension_that_occurs_twice_is_found() -> None:
    tbs, algorithm, signature = children(good())
    *fields, last = children(tbs.der)
    some = [one.der for one in children(children(last.der)[0].der)]
    doubled = element(0xA3, element(0x30, *some, some[-1]))
    forged = element(
        0x30, element(0x30, *(part.der for part in fields), doubled), algorithm.der, signature.der
    )
    assert findings(forged) == ("certificate: cannot be read (ValueError)",)


def test_fields_outside_the_profile_are_found() -> None:
    tbs, algorithm, signature = children(good())
    fields = [part.der for part in children(tbs.der)]
    fields.insert(7, b"\x81\x02\x00\xff")  # issuerUniqueID
    forged = element(0x30, element(0x30, *fields), algorithm.der, signature.der)
    assert "version: not 3, or other fields than the profile's" in findings(forged)


@given(st.integers(0, 2000), st.integers(0, 255), st.booleans())
def test_any_damage_is_found(place: int, value: int, insert: bool) -> None:
    der = bytearray(good())
    at = place % len(der)
    if insert:
        der.insert(at, value)
    else:
        der[at] = value
    if bytes(der) != good():
        assert findings(bytes(der))


def test_foreign_certificates_never_raise() -> None:
    for path in [*VECTORS.rglob("*.pem"), *VECTORS.rglob("*.der"), *VECTORS.rglob("*.crt")]:
        content = path.read_bytes()
        assert findings(content)
        try:
            der = x509.load_pem_x509_certificate(content).public_bytes(Encoding.DER)
        except (ValueError, x509.InvalidVersion, Warning):
            continue
        assert findings(der)


def test_digests() -> None:
    der = good()
    certificate = x509.load_der_x509_certificate(der)
    assert certificate_sha256(der) == certificate.fingerprint(hashes.SHA256()).hex()
    assert tbs_sha256(der) == certificate_sha256(certificate.tbs_certificate_bytes)
    for junk in (b"", b"junk", der[:-1], der + b"\0"):
        with pytest.raises(ValueError, match="not a certificate"):
            tbs_sha256(junk)


def test_two_signatures_one_tbs() -> None:
    builder = certificate_builder(ORDER, ISSUER.certificate)
    other = signed(builder, hashes.SHA256())
    third = builder.sign(ec_key(100), hashes.SHA256()).public_bytes(Encoding.DER)
    assert other != third
    assert tbs_sha256(other) == tbs_sha256(third)


def test_the_builder_refuses_another_key() -> None:
    with pytest.raises(ValueError, match="ordered key"):
        certificate_builder(replace(ORDER, csr_der=request(ec_key(1))), ISSUER.certificate)


@pytest.mark.parametrize(
    "change",
    [
        {"not_before": NOW},
        {"not_after": (NOW + DAY).replace(microsecond=0, tzinfo=None)},
        {"serial": ORDER.serial.upper()},
        {"serial": "8" + ORDER.serial[1:]},
    ],
    ids=repr,
)
def test_orders_that_no_certificate_could_meet_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"an order's|not a serial"):
        replace(ORDER, **change)


def test_orders_do_not_change() -> None:
    assert isinstance(hash(ORDER), int)
    with pytest.raises(AttributeError):
        ORDER.serial = ""  # type: ignore[misc]
    assert isinstance(ORDER, SigningOrder)


@given(st.binary(min_size=16, max_size=16))
def test_serials(randomness: bytes) -> None:
    serial = new_serial(lambda count: randomness)
    octets = bytes.fromhex(serial)
    assert len(octets) == 16
    assert octets[0] >> 6 == 0b01
    assert octets[1:] == randomness[1:]
    colons = ":".join(serial[i : i + 2] for i in range(0, 32, 2))
    for text in (
        serial,
        serial.upper(),
        f"0x{serial}",
        f"0X{serial.upper()}",
        colons,
        f" {serial}",
    ):
        assert parse_serial(text) == serial


@pytest.mark.parametrize(
    "text",
    ["", "4" * 31, "4" * 33, "0" * 32, "8" * 32, "g" * 32, "-" + "4" * 31, "\uff14" + "4" * 31],
)
def test_no_serials(text: str) -> None:
    with pytest.raises(ValueError, match="not a serial"):
        parse_serial(text)


def test_short_randomness_is_refused() -> None:
    with pytest.raises(ValueError, match="randomness"):
        new_serial(lambda count: b"")


@pytest.mark.parametrize(
    ("length", "head"),
    [(0, "0c00"), (127, "0c7f"), (128, "0c8180"), (255, "0c81ff"), (256, "0c820100")],
)
def test_der_utf8(length: int, head: str) -> None:
    assert der_utf8("a" * length) == bytes.fromhex(head) + b"a" * length
    assert der_utf8("é").hex() == "0c02c3a9"


def test_der_utf8_bounds() -> None:
    for text in ("a" * 65_536, "\ud800"):
        with pytest.raises(ValueError):  # noqa: PT011 - two causes, one type
            der_utf8(text)


FAR = NOW + 1000 * DAY


@pytest.mark.parametrize(
    ("ttl", "grant", "end", "expected"),
    [
        (DAY, FAR, FAR, datetime(2026, 11, 24, 15, 7, 8, tzinfo=UTC)),
        (DAY, NOW + DAY / 2, FAR, datetime(2026, 11, 24, 3, 7, 8, tzinfo=UTC)),
        (DAY, FAR, NOW + DAY / 2, datetime(2026, 11, 24, 3, 7, 7, tzinfo=UTC)),
    ],
)
def test_validity(ttl: timedelta, grant: datetime, end: datetime, expected: datetime) -> None:
    assert validity(NOW, ttl, grant, end) == (
        datetime(2026, 11, 23, 15, 6, 8, tzinfo=UTC),
        expected,
    )


@pytest.mark.parametrize(
    ("ttl", "grant", "end", "limited_by"),
    [
        (DAY, NOW + timedelta(minutes=5, microseconds=-1), FAR, "grant"),
        (DAY, NOW + timedelta(minutes=5), FAR, "grant"),  # whole seconds leave less
        (DAY, NOW - DAY, FAR, "grant"),
        (DAY, FAR, NOW + timedelta(minutes=5), "issuer"),
        (timedelta(minutes=4), FAR, FAR, "ttl"),
    ],
)
def test_validity_too_short(
    ttl: timedelta, grant: datetime, end: datetime, limited_by: str
) -> None:
    with pytest.raises(ValidityTooShort) as caught:
        validity(NOW, ttl, grant, end)
    assert caught.value.limited_by == limited_by


def test_a_day_is_24_hours_when_summer_time_ends() -> None:
    now = datetime(2026, 10, 24, 12, tzinfo=ZoneInfo("Europe/Berlin"))
    _, not_after = validity(now, DAY, FAR, FAR)
    assert not_after == datetime(2026, 10, 25, 10, tzinfo=UTC)


moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.timezones())  # noqa: DTZ001


@given(moments, moments, moments, st.timedeltas(timedelta(0), timedelta(days=400)))
def test_validity_never_passes_the_grant(
    now: datetime, grant: datetime, end: datetime, ttl: timedelta
) -> None:
    in_utc = [moment.astimezone(UTC) for moment in (now, grant, end)]
    earliest = min(in_utc[0] + ttl, in_utc[1], in_utc[2])
    try:
        not_before, not_after = validity(now, ttl, grant, end)
    except ValidityTooShort:
        assert earliest - in_utc[0] < timedelta(minutes=5, seconds=2)
        return
    assert earliest - timedelta(seconds=2) < not_after <= earliest
    assert not_after < in_utc[2]
    assert not_after - in_utc[0] >= timedelta(minutes=5)
    assert timedelta(seconds=60) <= in_utc[0] - not_before < timedelta(seconds=61)
    assert not_before.microsecond == not_after.microsecond == 0


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("27", "0.39"),
        ("28", "1.0"),
        ("551d0f", "2.5.29.15"),
        ("8837", "2.999"),  # of the examples in X.690 §8.19
        ("2b06010401868d1f02", "1.3.6.1.4.1.99999.2"),
        ("2b0601040182a464c6284001", "1.3.6.1.4.1.37476.9000.64.1"),
    ],
)
def test_object_identifiers_are_read(content: str, text: str) -> None:
    assert oid_text(bytes.fromhex(content)) == text


def test_outline_bounds() -> None:
    check_outline(element(0x30, b"\x05\x00"), max_depth=2, max_elements=2)
    for der, depth, elements in (
        (element(0x30, b"\x05\x00"), 1, 9),
        (element(0x30, b"\x05\x00"), 9, 1),
        (element(0x31, b"\x05\x00"), 9, 9),
        (element(0x30, b"\x30\x05\x05\x00"), 9, 9),
        (element(0x30, b"\x30\x01", b"\x05\x00"), 9, 9),
    ):
        with pytest.raises(DerError):
            check_outline(der, max_depth=depth, max_elements=elements)
    with pytest.raises(DerError):
        children(b"\x04\x00")


@given(st.binary(max_size=60), st.booleans())
def test_outline_never_raises_anything_else(content: bytes, wrapped: bool) -> None:
    der = element(0x30, content) if wrapped else content
    try:
        check_outline(der, max_depth=4, max_elements=10)
        children(der)
    except DerError:
        return
