"""The port to whatever signs certificates: what an authority is asked, and how it may answer.

Authorities know certificates, not grants: why an order stands, and whether its result is still
wanted, is the issuance cycle's business. Revocation truth is the ledger's; `revoke` only tells.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Literal, Protocol

from ca.profile import SigningOrder

Kind = Literal["local", "step-ca"]


class RevocationAnswer(StrEnum):
    """What an authority says when told of a revocation. `already-revoked` is a success."""

    CONFIRMED = "confirmed"
    ALREADY_REVOKED = "already-revoked"
    UNSUPPORTED = "unsupported"


class AuthorityError(Exception):
    """The authority did not do what it was asked. `detail` is for people and holds no secret."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class AuthorityRefused(AuthorityError):  # noqa: N818 - an answer, not an accident
    """Its final answer: asking the same again is pointless. `status` is its own, HTTP-like."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class AuthorityUnavailable(AuthorityError):  # noqa: N818 - an answer, not an accident
    """No final answer (unreachable, out of time, overloaded): the same order may be sent again."""


class AuthorityFilesError(Exception):
    """The files of an authority cannot be used. The text names them and what to do, no content."""


class Authority(Protocol):
    """Something that signs. Every method may be called from several threads at once.

    Signing an order again must give a certificate with the same TBSCertificate: the issuance
    cycle repeats step 2 after a crash or a lost answer.
    """

    @property
    def id(self) -> str:
        """Its UUIDv4, lower case, for ever: a certificate *is* (authority, serial)."""

    @property
    def kind(self) -> Kind:
        """Which adapter."""

    @property
    def not_after(self) -> datetime:
        """When its issuing certificate ends, aware. Nothing it signs may reach that moment."""

    @property
    def extra_extensions(self) -> Mapping[str, bytes | None]:
        """Extensions it adds to the profile, OID → exact DER value, or None where that varies."""

    def chain(self) -> tuple[bytes, ...]:
        """Return its pinned certificates in DER: the issuing one first, the root last."""

    def sign(self, order: SigningOrder, *, timeout: float) -> bytes:
        """Sign `order` and return the certificate in DER, within `timeout` seconds.

        The caller checks what came back (`ca.profile.check_certificate`) before it counts.

        Raises:
            AuthorityRefused: it will not sign this.
            AuthorityUnavailable: it may have signed or not; ask again with the same order.
        """

    def revoke(self, serial: str, reason: str, *, timeout: float) -> RevocationAnswer:
        """Tell it that `serial` (32 hex) is revoked for `reason` (RFC 5280 §5.3.1 name).

        Raises:
            AuthorityRefused, AuthorityUnavailable: as for `sign`.
        """

    def close(self) -> None:
        """Close the connections it keeps for the next call; it may still be asked."""
