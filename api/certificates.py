"""Certificates and the authority's roots over HTTP: wire models and rows."""

from typing import Annotated, Final, Literal, Self, TypeAlias

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from api.operation import ADMIN, READERS, Operation
from api.scopes import Resource
from api.wire import (
    AsOf,
    Digest,
    GrantStatus,
    Id,
    PastPage,
    Query,
    Reasoned,
    SubjectUser,
    Text,
    Time,
    Truth,
    Wire,
    one_given,
)

CertificateState: TypeAlias = Literal["authorized", "issued", "revoked", "failed", "abandoned"]
Standing: TypeAlias = Literal["good", "revoked", "on-hold", "expired", "not-issued"]
RevocationReason: TypeAlias = Literal[
    "unspecified",
    "keyCompromise",
    "affiliationChanged",
    "superseded",
    "cessationOfOperation",
    "certificateHold",
    "privilegeWithdrawn",
]


class Certificate(Wire):
    """One authorized issuance, and its certificate once there is one."""

    serial: str
    grant_id: Id
    issuance_id: Id
    state: CertificateState
    kind: Literal["enrollment", "renewal"]
    generation: int
    accessor: Annotated[str | None, Field(description="The token it was enrolled with.")]
    predecessor: str | None
    authority_id: Id
    key_digest: str
    csr_sha256: str
    not_before: Time
    not_after: Time
    certificate: Annotated[str | None, Field(description="PEM")]
    certificate_sha256: str | None
    tbs_sha256: str | None
    authorized_at: Time
    closed_at: Time | None
    failure: str | None
    mis_issued: bool
    revoked_at: Annotated[Time | None, Field(description="By its own event; see its status.")]
    revocation_reason: str | None
    revocation_detail: str | None
    authority_told: str | None


class Certificates(Wire):
    """One page of certificates, newest first."""

    items: list[Certificate]
    next: str | None


class GrantCertificateFilter(PastPage):
    """Which certificates of one grant to list."""

    state: CertificateState | None = None
    expires_before: Annotated[Time | None, Field(description="Whose notAfter is earlier.")] = None


class CertificateFilter(GrantCertificateFilter):
    """Which certificates to list; `resource` and `sensitive` are of their grants' scopes."""

    grant_id: Id | None = None
    peer_id: Id | None = None
    subject_user_id: SubjectUser | None = None
    resource: Resource | None = None
    sensitive: Truth | None = None
    key_digest: Digest | None = None


class CertificateStatus(Wire):
    """Whether a certificate may be relied on now. `good` needs its grant to be usable too."""

    serial: str
    grant_id: Id
    status: Standing
    revocation_reason: str | None
    revocation_detail: str | None
    revoked_at: Time | None
    grant_status: GrantStatus
    not_after: Time


class RevokeCertificate(Reasoned):
    """A certificate's end. `revocation_reason` is RFC 5280's, `detail` goes with it."""

    revocation_reason: RevocationReason = "unspecified"
    detail: Annotated[Text | None, Field(description="The reason, when absent.")] = None


class RevokeCertificates(RevokeCertificate):
    """Which certificates end: those for which all that is given holds."""

    model_config = one_given("grant_id", "peer_id", "subject_user_id", "key_digest")

    grant_id: Id | None = None
    peer_id: Id | None = None
    subject_user_id: SubjectUser | None = None
    key_digest: Digest | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.chosen():
            raise PydanticCustomError(
                "empty", "must name a grant_id, peer_id, subject_user_id or key_digest"
            )
        return self

    def chosen(self) -> dict[str, object]:
        """What was given to choose by."""
        names = ("grant_id", "peer_id", "subject_user_id", "key_digest")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class RevokedCertificate(Wire):
    """A certificate that the command ended."""

    serial: str
    grant_id: Id


class RevokedCertificates(Wire):
    """What one command ended; those revoked before are not named again."""

    items: list[RevokedCertificate]
    more: Annotated[bool, Field(description="There may be others: give it again, as a new call.")]


class CrlFormat(Query):
    """Which list, and how it is written."""

    authority_id: Annotated[
        Id | None, Field(description="Whose; of the one that issues now, when absent.")
    ] = None
    format: Literal["der", "pem"] = "der"


CRL_DER: Final = "application/pkix-crl"
"""RFC 2585 §4.2."""
CRL_PEM: Final = "application/x-pem-file"
MOST_REVOKED: Final = 500
"""How many certificates one command revokes at most."""

_PATH: Final = "/v1/certificates/{serial}"

ROWS: Final = (
    Operation(
        name="grant.certificates",
        method="GET",
        path="/v1/grants/{grant_id}/certificates",
        summary="Certificates of a grant",
        roles=READERS,
        peers=True,
        query=GrantCertificateFilter,
        out=Certificates,
    ),
    Operation(
        name="certificate.list",
        method="GET",
        path="/v1/certificates",
        summary="List certificates",
        roles=READERS,
        peers=True,
        query=CertificateFilter,
        out=Certificates,
    ),
    Operation(
        name="certificate.show",
        method="GET",
        path=_PATH,
        summary="Show a certificate",
        roles=READERS,
        peers=True,
        query=AsOf,
        out=Certificate,
    ),
    Operation(
        name="certificate.status",
        method="GET",
        path=f"{_PATH}/status",
        summary="Whether a certificate may be relied on",
        description="Revoked by its own event, by its grant or by its peer; suspended is on hold.",
        roles=READERS | {"gateway"},
        peers=True,
        query=AsOf,
        out=CertificateStatus,
    ),
    Operation(
        name="certificate.revoke",
        method="POST",
        path=f"{_PATH}/revoke",
        summary="Revoke a certificate",
        description="`If-Match` and `ETag` are its grant's.",
        roles=ADMIN,
        command=True,
        versioned=True,
        body=RevokeCertificate,
        out=Certificate,
        problems=("hold-means-suspend", "reason-required"),
        example={"revocation_reason": "keyCompromise", "reason": "Laptop stolen."},
    ),
    Operation(
        name="certificate.revoke-many",
        method="POST",
        path="/v1/certificates/revoke",
        summary="Revoke all certificates of a grant, peer, subject user or key",
        description=(
            f"In one append, those in flight too; {MOST_REVOKED} at most, else `more` is true. "
            "Their grants stay as they are: a peer with a token can enroll again."
        ),
        roles=ADMIN,
        command=True,
        body=RevokeCertificates,
        out=RevokedCertificates,
        problems=("not-found", "hold-means-suspend", "reason-required"),
        example={
            "key_digest": "9f" * 32,
            "revocation_reason": "keyCompromise",
            "reason": "The key was found in a public repository.",
        },
    ),
    Operation(
        name="authority.roots",
        method="GET",
        path="/v1/ca/roots.pem",
        summary="Certificates that clients' chains end in",
        access="public",
        query=AsOf,
        media=("application/x-pem-file",),
    ),
    Operation(
        name="authority.crl",
        method="GET",
        path="/v1/ca/crl",
        summary="The certificate revocation list",
        description=(
            "Of the authority that issues now, or of `authority_id`. Its number is the position of "
            "its `crl.published` event. A gateway that asks for decisions needs none."
        ),
        access="public",
        query=CrlFormat,
        problems=("not-found", "crl-by-authority", "authority-unavailable"),
        media=(CRL_DER, CRL_PEM),
    ),
)
