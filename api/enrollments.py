"""Enrollment tokens, their redemption, and renewal over HTTP: wire models and rows."""

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field, StringConstraints

from api.operation import ADMIN, READERS, Operation
from api.wire import AsOf, Digest, Id, Nothing, PastPage, Query, Reason, Seconds, Time, Wire

TokenState: TypeAlias = Literal["issued", "redeemed", "expired", "cancelled", "locked"]


class IssueToken(Nothing):
    """A new enrollment token; a live one of the same grant is cancelled."""

    ttl: Annotated[Seconds | None, Field(description="Seconds; the policy's when absent.")] = None
    key_digest: Annotated[
        Digest | None,
        Field(description="Only this key may enroll: SHA-256 of its SubjectPublicKeyInfo."),
    ] = None


class IssuedToken(Wire):
    """A token just made. `token` is shown this once and is null in a repeated answer."""

    token: str | None
    accessor: str
    grant_id: Id
    expires_at: Time
    key_digest: str | None


class Token(Wire):
    """An enrollment token as it stands, without its secret."""

    accessor: str
    grant_id: Id
    state: TokenState
    issued_at: Time
    expires_at: Time
    changed_at: Time
    key_digest: Annotated[str | None, Field(description="The only key that may enroll, if any.")]


class Tokens(Wire):
    """One page of the tokens ever issued to one grant, newest first."""

    items: list[Token]
    next: str | None


class TokenFilter(PastPage):
    """Which tokens of one grant to list; `state` counts one that ended unused as `expired`."""

    state: TokenState | None = None
    expires_before: Time | None = None


class CancelToken(Query):
    """Why a token is cancelled; a DELETE has no body."""

    reason: Reason | None = None


class Redeem(Wire):
    """A token and the request for a certificate, as its PEM text."""

    token: Annotated[str, StringConstraints(max_length=200)]
    csr: Annotated[str, StringConstraints(max_length=24 * 1024)]


class Renew(Wire):
    """The request for a certificate of a new key, as its PEM text."""

    csr: Annotated[str, StringConstraints(max_length=24 * 1024)]


class Enrolled(Wire):
    """The certificate of the new key."""

    serial: str
    grant_id: Id
    not_before: Time
    not_after: Time
    certificate: Annotated[str, Field(description="PEM")]
    chain: Annotated[str, Field(description="PEM: the issuing certificate and those above it")]


_CSR_EXAMPLE: Final = "-----BEGIN CERTIFICATE REQUEST-----\n…\n-----END CERTIFICATE REQUEST-----\n"
_ORDERED: Final = (
    "csr-malformed",
    "csr-too-large",
    "csr-signature",
    "csr-key",
    "csr-names",
    "csr-subject",
    "grant-suspended",
    "grant-expired",
    "grant-rejected",
    "grant-revoked",
    "grant-expiring",
    "authority-expiring",
    "peer-not-active",
    "not-yet-valid",
    "key-compromised",
    "key-taken",
    "order-mismatch",
    "certificate-revoked",
    "revoked-in-flight",
    "mis-issued",
    "issuance-failed",
    "authority-unavailable",
)
"""Why a certificate that was asked for is not given, whatever it was asked for with."""

ROWS: Final = (
    Operation(
        name="enrollment-token.issue",
        method="POST",
        path="/v1/grants/{grant_id}/enrollment-tokens",
        summary="Issue an enrollment token for a grant",
        description=(
            "Its text is shown once. The grant's live token, if any, is cancelled. `If-Match` and "
            "`ETag` are the grant's."
        ),
        roles=ADMIN,
        command=True,
        versioned=True,
        body=IssueToken,
        out=IssuedToken,
        status=201,
        problems=(
            "grant-pending-approval",
            "grant-suspended",
            "grant-expired",
            "grant-rejected",
            "grant-revoked",
            "token-ttl",
            "key-digest",
        ),
        example={"ttl": 86400},
    ),
    Operation(
        name="enrollment-token.list",
        method="GET",
        path="/v1/grants/{grant_id}/enrollment-tokens",
        summary="List a grant's enrollment tokens",
        roles=READERS,
        query=TokenFilter,
        out=Tokens,
    ),
    Operation(
        name="enrollment-token.show",
        method="GET",
        path="/v1/enrollment-tokens/{accessor}",
        summary="Show an enrollment token, without its secret",
        roles=READERS,
        query=AsOf,
        out=Token,
    ),
    Operation(
        name="enrollment-token.cancel",
        method="DELETE",
        path="/v1/enrollment-tokens/{accessor}",
        summary="Cancel an enrollment token",
        roles=ADMIN,
        command=True,
        query=CancelToken,
        problems=("token-redeemed",),
        status=204,
    ),
    Operation(
        name="enrollment.redeem",
        method="POST",
        path="/v1/enrollments",
        summary="Redeem an enrollment token for a client certificate",
        description=(
            "The peer's side. The token and the CSR are the idempotency key: the same two again "
            "give the same certificate. Any bad token gives one and the same 401."
        ),
        access="enrollment-token",
        command=True,
        body=Redeem,
        out=Enrolled,
        status=200,
        problems=("grant-pending-approval", *_ORDERED),
        example={"token": "fle_…", "csr": _CSR_EXAMPLE},
    ),
    Operation(
        name="certificate.renew",
        method="POST",
        path="/v1/certificates/{serial}/renew",
        summary="Renew a client certificate with a new key",
        description=(
            "By its holder, who presents that very certificate, in the last third of its life. "
            "The certificate and the CSR are the idempotency key: the same two again give the "
            "same successor. Another CSR, once there is a successor, means that two hold the key: "
            "the grant is suspended."
        ),
        access="certificate",
        command=True,
        body=Renew,
        out=Enrolled,
        problems=(
            "certificate-expired",
            "clone-suspected",
            "grant-pending-enrollment",
            "key-not-new",
            "renewal-too-early",
            *_ORDERED,
        ),
        example={"csr": _CSR_EXAMPLE},
    ),
)
