"""Keys, certificate signing requests and signing orders for tests."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cache
from uuid import uuid4

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from ca.csr import key_digest
from ca.profile import BACKDATE, SigningOrder, order_extensions

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey

KINDS = ("p256", "p384", "ed25519", "rsa3072")
GRANT = "0d9cb46e-5a0c-4a39-9d4e-0b6f5f1a7c11"


@cache
def key(kind: str, number: int = 0) -> PrivateKey:
    """One key per kind and number in a test run: RSA keys are slow to make."""
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind.startswith("rsa"):
        return rsa.generate_private_key(65537, int(kind[3:]))
    curves = {
        "p256": ec.SECP256R1(),
        "p384": ec.SECP384R1(),
        "p521": ec.SECP521R1(),
        "k256": ec.SECP256K1(),
    }
    return ec.generate_private_key(curves[kind])


def ec_key(number: int = 0) -> ec.EllipticCurvePrivateKey:
    """One P-256 key per number in a test run."""
    made = key("p256", number)
    assert isinstance(made, ec.EllipticCurvePrivateKey)
    return made


def request(
    signing_key: PrivateKey,
    name: str | None = None,
    *,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    subject: x509.Name | None = None,
    digest: hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None = None,
) -> bytes:
    """Return a request in DER with this common name (None: an empty subject)."""
    named = [] if name is None else [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject or x509.Name(named))
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    if isinstance(signing_key, ed25519.Ed25519PrivateKey):
        return builder.sign(signing_key, None).public_bytes(Encoding.DER)
    return builder.sign(signing_key, digest or hashes.SHA256()).public_bytes(Encoding.DER)


def element(tag: int, *contents: bytes) -> bytes:
    """Return one DER element."""
    content = b"".join(contents)
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    size = (length.bit_length() + 7) // 8
    return bytes([tag, 0x80 | size]) + length.to_bytes(size, "big") + content


def handmade_request(
    signing_key: ec.EllipticCurvePrivateKey,
    *,
    spki: bytes | None = None,
    subject: bytes = b"\x30\x00",
    attributes: bytes = b"",
) -> bytes:
    """Return a request put together octet by octet and signed (ECDSA, SHA-256, P-256)."""
    if spki is None:
        public = signing_key.public_key()
        spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    info = element(0x30, b"\x02\x01\x00", subject, spki, element(0xA0, attributes))
    signature = signing_key.sign(info, ec.ECDSA(hashes.SHA256()))
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")
    return element(0x30, info, algorithm, element(0x03, b"\x00", signature))


def spki_with_point(signing_key: ec.EllipticCurvePrivateKey, form: PublicFormat) -> bytes:
    """Return the SubjectPublicKeyInfo of a P-256 key with its point in another form."""
    point = signing_key.public_key().public_bytes(Encoding.X962, form)
    algorithm = bytes.fromhex("301306072a8648ce3d020106082a8648ce3d030107")
    return element(0x30, algorithm, element(0x03, b"\x00", point))


def order(
    csr_der: bytes,
    now: datetime,
    *,
    serial: str = "4" + "0123456789abcdef" * 2,
    common_name: str = "Example Peer-1",
    life: timedelta = timedelta(hours=24),
) -> SigningOrder:
    """Return an order for this request as the issuance cycle would write it."""
    public = x509.load_der_x509_csr(csr_der).public_key()
    begin = now.replace(microsecond=0)
    return SigningOrder(
        issuance_id=str(uuid4()),
        csr_der=csr_der,
        key_digest=key_digest(public),
        serial=serial[:32],
        not_before=begin - BACKDATE,
        not_after=begin + life,
        common_name=common_name,
        san_uri=f"urn:uuid:{GRANT}",
        extensions=order_extensions(GRANT, "user:42@example"),
    )
