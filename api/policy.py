"""The policy over HTTP: wire models and rows."""

from typing import Annotated, Final, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from api.operation import APPROVER, READERS, Operation
from api.wire import AsOf, Nothing, Seconds, Time, Whole, Wire, one_given


class Policy(Wire):
    """The policy as it stands; TTLs in seconds."""

    version: int
    four_eyes: bool
    required_approvals: int
    approval_days: int
    max_grant_days: int
    certificate_ttl: int
    token_ttl: int
    changed_at: Time | None


class ChangePolicy(Nothing):
    """What changes; the rest stays."""

    model_config = one_given(
        "four_eyes",
        "required_approvals",
        "approval_days",
        "max_grant_days",
        "certificate_ttl",
        "token_ttl",
    )

    four_eyes: bool | None = None
    required_approvals: Annotated[Whole | None, Field(description="0 means 1.")] = None
    approval_days: Whole | None = None
    max_grant_days: Whole | None = None
    certificate_ttl: Seconds | None = None
    token_ttl: Seconds | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.changes():
            raise PydanticCustomError("empty", "must change at least one field")
        return self

    def changes(self) -> dict[str, int | bool]:
        """The fields that were given, without the reason."""
        return self.model_dump(exclude={"reason"}, exclude_none=True)


ROWS: Final = (
    Operation(
        name="policy.show",
        method="GET",
        path="/v1/policy",
        summary="Show the policy",
        roles=READERS | {"operator"},
        versioned=True,
        query=AsOf,
        out=Policy,
    ),
    Operation(
        name="policy.change",
        method="PATCH",
        path="/v1/policy",
        summary="Change the policy",
        description="Without `four_eyes` the proposer's side may approve; doctor warns for ever.",
        roles=APPROVER,
        command=True,
        versioned=True,
        body=ChangePolicy,
        problems=("policy-field",),
        out=Policy,
        example={"required_approvals": 2, "reason": "Decision of the board."},
    ),
)
