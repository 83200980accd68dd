"""A step-ca as an authority: it gets our serial, names and validity, in a token signed for each try.

It keeps no record and decides nothing. Its directory is `ca/step_ca_home.py`'s business, the
connection that of `ca/step_ca_client.py`. The words are step-ca's: an OTT is the one-time token
that lets one request through, the provisioner whose key signs it; what the certificate then holds
is said by the template in the server's configuration.
"""

import hashlib
import secrets
import time
from base64 import b64encode
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self

from cryptography.hazmat.primitives.serialization import Encoding

from ca import jose
from ca.authority import AuthorityRefused, AuthorityUnavailable, Kind, RevocationAnswer
from ca.der import OCTET_STRING, SEQUENCE, encode
from ca.profile import SigningOrder, read_der_utf8
from ca.step_ca_client import Answer, StepCaClient
from ca.step_ca_home import KIND, StepCaHome

PROVISIONER_EXTENSION: Final = "1.3.6.1.4.1.37476.9000.64.1"
"""What step-ca adds to every certificate: which provisioner's token it came of."""

TRIES: Final = 3
OTT_SECONDS: Final = 120

_INTEGER: Final = 0x02
_CLAIMS: Final = ("mosaic_grant_id", "mosaic_subject_user_id")  # of the extensions .1 and .2
_SERIAL_CLAIM: Final = "mosaic_serial"
_PASSING: Final = frozenset({408, 425, 429, 502, 503, 504})  # of a proxy, or of too much at once
_PAUSE: Final = 0.1  # seconds before the second try; doubled before the third
_TOLERATED_SKEW: Final = 30.0
_REASON_CODES: Final[Mapping[str, int]] = {  # RFC 5280 §5.3.1
    "unspecified": 0,
    "keyCompromise": 1,
    "cACompromise": 2,
    "affiliationChanged": 3,
    "superseded": 4,
    "cessationOfOperation": 5,
    "certificateHold": 6,
    "removeFromCRL": 8,
    "privilegeWithdrawn": 9,
    "aACompromise": 10,
}
_HINTS: Final[Mapping[int, str]] = {
    401: "it does not believe our token: compare the clocks, its URL, and the provisioner's key",
    403: "its policy forbids it: compare the provisioner's durations with the ledger's policy",
    500: "its template failed: run `fedledger doctor`",
    501: "it cannot do this as it is configured",
}


@dataclass(frozen=True, slots=True)
class StepCaAuthority:
    """An `Authority` at the other end of a connection. Thread-safe.

    Signing again, with the same order and a fresh token, gives the same TBSCertificate.
    """

    home: StepCaHome
    client: StepCaClient
    _now: Callable[[], float] = time.time  # the wall clock: a token says when it was made
    _randomness: Callable[[int], bytes] = secrets.token_bytes
    _pause: Callable[[float], None] = time.sleep
    _extras: Mapping[str, bytes | None] = field(init=False)
    _chain: tuple[bytes, ...] = field(init=False)

    def __post_init__(self) -> None:
        links = (self.home.issuing, self.home.root)
        chain = tuple(link.public_bytes(Encoding.DER) for link in links)
        object.__setattr__(self, "_chain", chain)
        extension = provisioner_extension(self.home.provisioner, self.home.kid)
        extras = MappingProxyType({PROVISIONER_EXTENSION: extension})
        object.__setattr__(self, "_extras", extras)

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open a directory made by `StepCaHome.make`, without asking the server anything.

        Raises:
            AuthorityFilesError: it cannot be used.
        """
        home = StepCaHome.read(directory)
        return cls(home, StepCaClient(home.url, home.root))

    @property
    def id(self) -> str:
        return self.home.id

    @property
    def kind(self) -> Kind:
        return KIND

    @property
    def not_after(self) -> datetime:
        return self.home.issuing.not_valid_after_utc

    @property
    def root_not_after(self) -> datetime:
        """When its root ends, aware."""
        return self.home.root.not_valid_after_utc

    @property
    def extra_extensions(self) -> Mapping[str, bytes | None]:
        return self._extras

    def chain(self) -> tuple[bytes, ...]:
        """Return (issuing, root) in DER."""
        return self._chain

    def sign(self, order: SigningOrder, *, timeout: float) -> bytes:
        """Send the order, up to three times within `timeout`; the same serial each time.

        Raises:
            AuthorityRefused: its final answer, with its status; or a 400 of our own, where the
                template has no place for something ordered.
            AuthorityUnavailable: none of the tries was answered; it may have signed.
        """
        request, claims = _request(order), _claims(order)
        answer = self._asked("sign", request, claims, order.issuance_id, timeout)
        if not answer.ok:
            raise self._refused(answer)
        return _certificate(answer)

    def revoke(self, serial: str, reason: str, *, timeout: float) -> RevocationAnswer:
        """Tell it; it keeps a list only where it has a database, and then takes any serial.

        Raises:
            AuthorityRefused, AuthorityUnavailable: as for `sign`.
        """
        decimal = str(int(serial, 16))
        request = {
            "serial": decimal,
            "reason": reason,
            "reasonCode": _REASON_CODES.get(reason, 0),
            "passive": True,  # a list: it has nothing else
        }
        answer = self._asked("revoke", request, {"sub": decimal}, f"revoke-{serial}", timeout)
        if answer.ok:
            return RevocationAnswer.CONFIRMED
        if answer.status == 400 and "already revoked" in answer.message:
            return RevocationAnswer.ALREADY_REVOKED
        if answer.status == 501:
            return RevocationAnswer.UNSUPPORTED
        raise self._refused(answer)

    def close(self) -> None:
        """Close the connections kept for the next call; it may still be asked."""
        self.client.close()

    def _asked(
        self,
        verb: str,
        request: Mapping[str, object],
        claims: Mapping[str, object],
        name: str,
        timeout: float,
    ) -> Answer:
        """Ask until there is an answer; what a try may take is an equal part of the time left."""
        end = time.monotonic() + timeout
        failure = AuthorityUnavailable("there was no time to ask")
        for tries_left in range(TRIES, 0, -1):
            left = end - time.monotonic()
            if left <= 0:
                break
            try:
                # A token is used up whatever becomes of the request, so each try has its own.
                ott = self._ott(verb, claims, name)
                answer = self.client.call(
                    "POST",
                    f"/1.0/{verb}",
                    {**request, "ott": ott},
                    timeout=left / tries_left,
                    request_id=name,
                )
            except AuthorityUnavailable as error:
                failure = error
            else:
                if answer.status not in _PASSING:
                    return answer
                failure = AuthorityUnavailable(f"{self.home.url} answers {answer.status}")
            if tries_left > 1:
                jitter = 0.5 + self._randomness(1)[0] / 255
                self._pause(_PAUSE * 2 ** (TRIES - tries_left) * jitter)
        raise failure

    def _ott(self, verb: str, claims: Mapping[str, object], name: str) -> str:
        now = int(self._now())
        standard = {
            "iss": self.home.provisioner,
            "aud": f"{self.home.url}/1.0/{verb}",
            "iat": now,  # without it, a token could be used again after a restart of the server
            "nbf": now,
            "exp": now + OTT_SECONDS,
            # Never the same twice, in no process: the server remembers those it has seen.
            "jti": f"{name}.{self._randomness(8).hex()}",
        }
        return jose.sign({**claims, **standard}, self.home.key, kid=self.home.kid)

    def _refused(self, answer: Answer) -> AuthorityRefused:
        said = f"{self.home.url} answers {answer.status}: {answer.message}"
        more = [_HINTS.get(answer.status), self._skew(answer) if answer.status == 401 else None]
        return AuthorityRefused(answer.status, "; ".join([said, *filter(None, more)]))

    def _skew(self, answer: Answer) -> str | None:
        """What its clock says, where that is the likely cause."""
        try:
            ahead = parsedate_to_datetime(answer.headers["date"]).timestamp() - self._now()
        except (KeyError, ValueError, TypeError):
            return None
        if abs(ahead) < _TOLERATED_SKEW:
            return None
        return f"its clock is {abs(ahead):.0f} s {'ahead' if ahead > 0 else 'behind'}"


def provisioner_extension(name: str, kid: str) -> bytes:
    """Return the value of step-ca's own extension for a JWK provisioner, in DER.

    `SEQUENCE { type INTEGER (1: JWK), name OCTET STRING, credentialID OCTET STRING }`, as
    step-ca's `authority/provisioner/extension.go` has it.
    """
    jwk = b"\x01"
    parts = ((_INTEGER, jwk), (OCTET_STRING, name.encode()), (OCTET_STRING, kid.encode()))
    return encode(SEQUENCE, b"".join(encode(tag, content) for tag, content in parts))


def _request(order: SigningOrder) -> Mapping[str, object]:
    """The body of the request, without its token. Absolute times: the same for each try."""
    return {
        "csr": _pem_request(order.csr_der),
        "notBefore": _rfc3339(order.not_before),
        "notAfter": _rfc3339(order.not_after),
    }


def _claims(order: SigningOrder) -> Mapping[str, object]:
    """The claims that the template makes the certificate of, bound to this one request."""
    return {
        "sub": order.common_name,
        # Never empty: the server would then take the subject for a DNS name.
        "sans": [order.san_uri],
        # Enforced from step-ca 0.27.3: the token is worth nothing with another request.
        "cnf": {"x5rt#S256": jose.base64url(hashlib.sha256(order.csr_der).digest())},
        _SERIAL_CLAIM: str(int(order.serial, 16)),  # text: the template reads numbers as floats
        **_extension_claims(order),
    }


def _extension_claims(order: SigningOrder) -> Mapping[str, str]:
    """What the two extensions say; the template puts it under its own arc."""
    claims = {}
    for number, (oid, value) in enumerate(order.extensions, start=1):
        if number > len(_CLAIMS) or not oid.endswith(f".{number}"):
            raise AuthorityRefused(400, f"the template has no place for the extension {oid}")
        try:
            claims[_CLAIMS[number - 1]] = read_der_utf8(value)
        except ValueError:
            raise AuthorityRefused(400, f"the extension {oid} is not a text") from None
    if len(claims) != len(_CLAIMS):
        raise AuthorityRefused(400, "the template asks for two extensions")
    return claims


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def _pem_request(der: bytes) -> str:
    body = b64encode(der).decode()
    lines = [body[start : start + 64] for start in range(0, len(body), 64)]
    label = "CERTIFICATE REQUEST"
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])


def _certificate(answer: Answer) -> bytes:
    """The certificate in a good answer, in DER; whatever else it says it is goes on record."""
    text = answer.document.get("crt")
    if not isinstance(text, str):
        # It may have signed: not final, so that asking again can bring the certificate to light.
        raise AuthorityUnavailable(f"an answer {answer.status} without a certificate")
    body = "".join(line for line in text.split("\n") if not line.startswith("-----"))
    try:
        return a2b_base64(body.strip(), strict_mode=True)
    except (Base64Error, ValueError):
        return text.encode("utf-8", "replace")
