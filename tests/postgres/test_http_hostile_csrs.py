"""Every hostile CSR comes through the real door, each with a fresh token of its own."""

import base64
import time
from collections.abc import Callable
from pathlib import Path

import cryptography_vectors
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import PublicFormat

from support.csrs import ec_key, element, handmade_request, request, spki_with_point
from support.http import House

VECTORS = sorted(
    path
    for path in Path(cryptography_vectors.__file__).parent.rglob("*")
    if path.suffix in (".pem", ".der")
)
SAN = x509.SubjectAlternativeName([x509.DNSName("a.example")])
# extKeyUsage: serverAuth, as an Extension (RFC 5280 §4.1)
EKU_BYTES = bytes.fromhex("30130603551d25040c300a06082b06010505070301")
EXTENSION_REQUEST = bytes.fromhex("06092a864886f70d01090e")  # RFC 2985 §5.4.2


def pem(der: bytes) -> str:
    body = base64.encodebytes(der).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{body}-----END CERTIFICATE REQUEST-----\n"


def text_of(path: Path) -> str:
    content = path.read_bytes()
    return pem(content) if path.suffix == ".der" else content.decode("latin-1")


def twice(extension: bytes) -> bytes:
    """An extension request that says the same thing twice, which RFC 5280 §4.2 forbids."""
    both = element(0x30, extension, extension)
    return element(0x30, EXTENSION_REQUEST, element(0x31, both))


def enroll(place: House, grant_id: str, text: str) -> tuple[int, str, float]:
    """Redeem a fresh token; return the status, the problem's code and the seconds it took.

    `House.call` holds every answer against the OpenAPI document, so a body that is neither a
    certificate nor a documented problem fails there.
    """
    token = place.token(grant_id)
    place.seconds.now += 60  # another minute for the throttle: it is not what is tested here
    begun = time.perf_counter()
    answer = place.enroll(token, text)
    seconds = time.perf_counter() - begun
    code = "" if answer.status_code < 300 else answer.json["code"]
    return answer.status_code, code, seconds


def test_every_file_of_the_cryptography_vectors(
    place: House, record_property: Callable[[str, object], None]
) -> None:
    assert len(VECTORS) > 390
    peer_id, grant_id = place.peer()["id"], ""
    took: list[tuple[float, str]] = []
    accepted = 0
    for number, path in enumerate(VECTORS):
        if number % 20 == 0:  # one grant's stream would grow with each token, and so would its fold
            grant_id = place.grant(peer_id)["id"]
        status, code, seconds = enroll(place, grant_id, text_of(path))
        took.append((seconds, path.name))
        if status == 200:
            accepted += 1
        else:
            assert 400 <= status < 500, (path, status, code)
            assert code, path
    assert accepted < 10, "hardly any of them is a request for one of our certificates"
    slowest, name = max(took)
    figure = f"{len(VECTORS)} CSRs: slowest {name}, {slowest * 1000:.0f} ms; accepted: {accepted}"
    record_property("figure", figure)


def test_requests_made_to_hurt(place: House) -> None:
    grant_id = place.grant(place.peer()["id"])["id"]
    good = request(ec_key(1))
    hostile = {
        "empty": "",
        "not PEM": "hello",
        "two blocks": pem(good) * 2,
        "NUL": pem(good)[:40] + "\u0000" + pem(good)[41:],
        "truncated": pem(good[:-7]),
        "trailing": pem(good + b"\0"),
        "signature of another": pem(good[:-4] + bytes(4)),
        "oversized": pem(good + bytes(17_000)),
        "beyond the wire": "A" * 200_000,
        "weak RSA": pem(request(rsa.generate_private_key(65537, 2048))),
        "other curve": pem(request(ec.generate_private_key(ec.SECP256K1()))),
        "names": pem(request(ec_key(2), extensions=[(SAN, False)])),
        "duplicate extensions": pem(handmade_request(ec_key(3), attributes=twice(EKU_BYTES))),
    }
    for what, text in hostile.items():
        status, code, _ = enroll(place, grant_id, text)
        assert 400 <= status < 500, what
        assert code.startswith("csr-") or code in ("invalid", "malformed", "too-large"), (
            what,
            code,
        )


def test_a_compressed_point_is_the_same_key(place: House) -> None:
    """Else one key would have two digests, and could serve two grants."""
    peer_id = place.peer()["id"]
    first, second = (place.grant(peer_id)["id"] for _ in range(2))
    key = ec_key(77)
    assert enroll(place, first, pem(request(key)))[0] == 200
    spki = spki_with_point(key, PublicFormat.CompressedPoint)
    compressed = handmade_request(key, spki=spki)
    status, code, _ = enroll(place, second, pem(compressed))
    assert (status, code) == (409, "key-taken")
