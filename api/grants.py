"""Grants over HTTP: wire models and rows. Handlers are in `api/handlers/grants.py`."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from api.operation import ADMIN, APPROVER, EITHER, READERS, Operation
from api.scopes import SCOPE_EXAMPLE, Resource, Scope, ScopeOrNone
from api.wire import (
    AsOf,
    Digest,
    GrantStatus,
    Id,
    Nothing,
    PastPage,
    Reasoned,
    SubjectUser,
    Time,
    Truth,
    Wire,
    one_given,
)


class ProposeGrant(Nothing):
    """Who may read what, from when until when."""

    peer_id: Id
    subject_user_id: SubjectUser
    scope: Scope
    not_before: Annotated[Time | None, Field(description="Now, when absent.")] = None
    expires_at: Time


class ApproveGrant(Nothing):
    """An approval names the terms it approves, as `terms_digest` of the grant shows them."""

    terms_digest: Digest


class AmendGrant(Reasoned):
    """Other terms for a grant that nobody used yet; voids approvals, cancels open tokens."""

    model_config = one_given("scope", "not_before", "expires_at")

    scope: ScopeOrNone = None
    not_before: Time | None = None
    expires_at: Time | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if (self.scope, self.not_before, self.expires_at) == (None, None, None):
            raise PydanticCustomError("empty", "must change scope, not_before or expires_at")
        return self


class NarrowGrant(Reasoned):
    """Less than before, at once."""

    model_config = one_given("scope", "expires_at")

    scope: ScopeOrNone = None
    expires_at: Time | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if (self.scope, self.expires_at) == (None, None):
            raise PydanticCustomError("empty", "must change scope or expires_at")
        return self


class Approval(Wire):
    """One person's approval and its end."""

    approver: str
    at: Time
    lapses_at: Time


class Grant(Wire):
    """A grant as it stands. `status` is the effective one, `stored_status` the recorded one."""

    id: Id
    version: int
    peer_id: Id
    peer_name: str
    subject_user_id: str
    status: GrantStatus
    stored_status: GrantStatus
    scope: dict[str, Any]
    sensitive: bool
    not_before: Time
    expires_at: Time
    terms_digest: str
    proposed_by: str
    proposed_at: Time
    approvals: list[Approval]
    clone_suspected: bool
    activated_at: Time | None
    ended_at: Time | None
    changed_at: Time


class Grants(Wire):
    """One page of grants, newest first."""

    items: list[Grant]
    next: str | None


class GrantFilter(PastPage):
    """Which grants to list; `status` is the effective one."""

    status: GrantStatus | None = None
    peer_id: Id | None = None
    subject_user_id: SubjectUser | None = None
    resource: Resource | None = None
    sensitive: Truth | None = None
    expires_before: Time | None = None


class HistoryEntry(Wire):
    """One event of a grant or its peer, and the grant's effective status right after it."""

    position: int
    recorded_at: Time
    stream_type: Literal["grant", "peer"]
    version: int
    topic: str
    id: Id
    at: Time
    actor: dict[str, Any]
    reason: str | None
    correlation_id: str
    causation_id: Id | None
    data: dict[str, Any]
    status: GrantStatus


class History(Wire):
    """All events of a grant, oldest first."""

    items: list[HistoryEntry]
    status: Annotated[
        GrantStatus, Field(description="The effective status at the moment asked for.")
    ]


_PATH: Final = "/v1/grants/{grant_id}"
_ENDED: Final = ("grant-expired", "grant-rejected", "grant-revoked")


def _command(
    verb: Literal["approve", "reject", "amend", "narrow", "suspend", "resume", "revoke"],
    summary: str,
    **more: Any,
) -> Operation:
    row: dict[str, Any] = {
        "name": f"grant.{verb}",
        "method": "POST",
        "path": f"{_PATH}/{verb}",
        "summary": summary,
        "command": True,
        "versioned": True,
        "body": Reasoned,
        "out": Grant,
        "example": {"reason": "Asked for by the data owner."},
    }
    return Operation(**(row | more))


ROWS: Final = (
    Operation(
        name="grant.propose",
        method="POST",
        path="/v1/grants",
        summary="Propose a grant",
        description=(
            "With a sensitive resource in its scope it is `pending_approval` and needs a reason, "
            "else it is `pending_enrollment`."
        ),
        roles=ADMIN,
        command=True,
        versioned=True,
        body=ProposeGrant,
        out=Grant,
        status=201,
        problems=(
            "invalid-scope",
            "subject-user-id",
            "expires-in-past",
            "expires-too-late",
            "empty-validity",
            "reason-required",
            "peer-not-active",
            "not-found",
        ),
        example={
            "peer_id": "0d9cb46e-1c5f-4b36-9a39-0b4f3c1f6a55",
            "subject_user_id": "user-17",
            "scope": SCOPE_EXAMPLE,
            "expires_at": "2027-05-01T00:00:00.000000Z",
        },
    ),
    Operation(
        name="grant.list",
        method="GET",
        path="/v1/grants",
        summary="List grants",
        roles=READERS,
        peers=True,
        query=GrantFilter,
        out=Grants,
    ),
    Operation(
        name="grant.show",
        method="GET",
        path=_PATH,
        summary="Show a grant",
        roles=READERS,
        peers=True,
        versioned=True,
        query=AsOf,
        out=Grant,
    ),
    _command(
        "approve",
        "Approve a grant's terms as the second person",
        description="While the policy says `four_eyes=false`, an admin may too.",
        roles=EITHER,
        body=ApproveGrant,
        problems=(
            "terms-changed",
            "four-eyes",
            "approval-not-needed",
            "already-approved",
            "reason-required",
            "grant-suspended",
            *_ENDED,
        ),
        example={"terms_digest": "9f" * 32, "reason": "Checked against the request."},
    ),
    _command(
        "reject",
        "Reject a proposed grant",
        roles=APPROVER,
        problems=("wrong-status", "reason-required", *_ENDED),
    ),
    _command(
        "amend",
        "Change a pending grant's terms",
        description="Voids its approvals and cancels its open tokens.",
        roles=ADMIN,
        body=AmendGrant,
        problems=(
            "invalid-scope",
            "wrong-status",
            "nothing-to-amend",
            "expires-in-past",
            "expires-too-late",
            "empty-validity",
            "reason-required",
            *_ENDED,
        ),
        example={"expires_at": "2027-03-01T00:00:00.000000Z", "reason": "Shorter project."},
    ),
    _command(
        "narrow",
        "Take rights out of a grant, at once",
        description="Certificates that outlive the new end are revoked. Widening is refused.",
        roles=ADMIN,
        body=NarrowGrant,
        problems=(
            "invalid-scope",
            "wrong-status",
            "nothing-to-narrow",
            "widening-requires-new-grant",
            "expires-in-past",
            "empty-validity",
            "reason-required",
            *_ENDED,
        ),
        example={"scope": SCOPE_EXAMPLE, "reason": "Memory is no longer needed."},
    ),
    _command(
        "suspend",
        "Suspend a grant",
        roles=ADMIN,
        problems=("wrong-status", "reason-required", *_ENDED),
    ),
    _command(
        "resume",
        "Resume a suspended grant",
        description="After a suspected clone only an approver may.",
        roles=EITHER,
        problems=("peer-not-active", "wrong-status", "reason-required", *_ENDED),
    ),
    _command(
        "revoke",
        "Revoke a grant for good",
        description="Cancels its tokens and revokes every certificate, those in flight too.",
        roles=ADMIN,
        problems=("wrong-status", "reason-required", *_ENDED),
    ),
    Operation(
        name="grant.history",
        method="GET",
        path=f"{_PATH}/history",
        summary="All events of a grant, oldest first",
        roles=READERS,
        versioned=True,
        query=AsOf,
        out=History,
    ),
)
