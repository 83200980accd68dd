"""Certificates and the authority's roots over HTTP: wire models and rows."""

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field

from api.operation import ADMIN, READERS, Operation
from api.wire import GrantStatus, Id, Page, Query, Reasoned, SubjectUser, Text, Time, Wire

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


class CertificateFilter(Page):
    """Which certificates to list."""

    grant_id: Id | None = None
    peer_id: Id | None = None
    subject_user_id: SubjectUser | None = None
    state: CertificateState | None = None
    expires_before: Time | None = None


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


_PATH: Final = "/v1/certificates/{serial}"

ROWS: Final = (
    Operation(
        name="grant.certificates",
        method="GET",
        path="/v1/grants/{grant_id}/certificates",
        summary="Certificates of a grant",
        roles=READERS,
        query=Page,
        out=Certificates,
    ),
    Operation(
        name="certificate.list",
        method="GET",
        path="/v1/certificates",
        summary="List certificates",
        roles=READERS,
        query=CertificateFilter,
        out=Certificates,
    ),
    Operation(
        name="certificate.show",
        method="GET",
        path=_PATH,
        summary="Show a certificate",
        roles=READERS,
        out=Certificate,
    ),
    Operation(
        name="certificate.status",
        method="GET",
        path=f"{_PATH}/status",
        summary="Whether a certificate may be relied on",
        description="Revoked by its own event, by its grant or by its peer; suspended is on hold.",
        roles=READERS | {"gateway"},
        query=Query,
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
        name="authority.roots",
        method="GET",
        path="/v1/ca/roots.pem",
        summary="Certificates that clients' chains end in",
        access="public",
        media=("application/x-pem-file",),
    ),
)
