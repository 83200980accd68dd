"""Operators and their credentials over HTTP: wire models and rows."""

from typing import Annotated, Final, Literal

from pydantic import Field

from api.operation import EITHER, READERS, Operation
from api.wire import AsOf, Id, Listed, Nothing, PastPage, Role, Seconds, Time, Truth, Wire

_Roles = Annotated[
    list[Role],
    Field(min_length=1, max_length=5, description="Never both admin and approver."),
]


class RegisterOperator(Nothing):
    """A person or a machine that will act here; names stay outside the ledger."""

    kind: Literal["person", "machine"]
    roles: _Roles


class ChangeRoles(Nothing):
    """All the roles the operator has from now on."""

    roles: _Roles


class IssueCredential(Nothing):
    """A bearer token for an operator."""

    ttl: Annotated[Seconds, Field(description="Seconds until it ends.")] = 90 * 86400


class Operator(Wire):
    """An operator as it stands."""

    id: Id
    version: int
    kind: Literal["person", "machine"]
    roles: Listed[Role]
    enabled: bool
    registered_at: Time
    changed_at: Time


class Operators(Wire):
    """One page of operators, oldest first."""

    items: list[Operator]
    next: str | None


class OperatorFilter(PastPage):
    """Which operators to list."""

    role: Role | None = None
    enabled: Truth | None = None
    kind: Literal["person", "machine"] | None = None


class Credential(Wire):
    """A credential as it stands, without its secret."""

    accessor: str
    operator_id: Id
    issued_at: Time
    expires_at: Time
    revoked_at: Time | None


class Credentials(Wire):
    """One page of the credentials ever issued to one operator, newest first."""

    items: list[Credential]
    next: str | None


class CredentialFilter(PastPage):
    """Which credentials of one operator to list."""

    live: Annotated[
        Truth, Field(description="Only those neither revoked nor expired, if enabled.")
    ] = False
    expires_before: Time | None = None


class IssuedCredential(Wire):
    """A credential just made. `token` is shown this once and is null in a repeated answer."""

    token: str | None
    accessor: str
    operator_id: Id
    expires_at: Time


_PATH: Final = "/v1/operators/{operator_id}"

ROWS: Final = (
    Operation(
        name="operator.register",
        method="POST",
        path="/v1/operators",
        summary="Register an operator",
        description="Only an approver makes one with the role approver, only an admin the others.",
        roles=EITHER,
        command=True,
        versioned=True,
        body=RegisterOperator,
        problems=("roles", "separation-of-duties"),
        out=Operator,
        status=201,
        example={"kind": "person", "roles": ["auditor"]},
    ),
    Operation(
        name="operator.list",
        method="GET",
        path="/v1/operators",
        summary="List operators",
        roles=READERS,
        query=OperatorFilter,
        out=Operators,
    ),
    Operation(
        name="operator.show",
        method="GET",
        path=_PATH,
        summary="Show an operator",
        roles=READERS,
        versioned=True,
        query=AsOf,
        out=Operator,
    ),
    Operation(
        name="operator.roles",
        method="POST",
        path=f"{_PATH}/roles",
        summary="Change an operator's roles",
        roles=EITHER,
        command=True,
        versioned=True,
        body=ChangeRoles,
        problems=("roles", "separation-of-duties", "last-holder", "operator-disabled"),
        out=Operator,
        example={"roles": ["auditor", "operator"]},
    ),
    Operation(
        name="operator.disable",
        method="POST",
        path=f"{_PATH}/disable",
        summary="Disable an operator for good",
        problems=("last-holder",),
        roles=EITHER,
        command=True,
        versioned=True,
        body=Nothing,
        out=Operator,
        example={"reason": "Left the organisation."},
    ),
    Operation(
        name="credential.list",
        method="GET",
        path=f"{_PATH}/credentials",
        summary="List an operator's credentials",
        roles=READERS,
        query=CredentialFilter,
        out=Credentials,
    ),
    Operation(
        name="credential.issue",
        method="POST",
        path=f"{_PATH}/credentials",
        summary="Issue a credential to an operator",
        description="Its text is shown once. `If-Match` and `ETag` are the operator's.",
        roles=EITHER,
        command=True,
        versioned=True,
        body=IssueCredential,
        problems=("credential-ttl", "operator-disabled"),
        out=IssuedCredential,
        status=201,
        example={"ttl": 7776000},
    ),
    Operation(
        name="credential.revoke",
        method="POST",
        path=f"{_PATH}/credentials/{{accessor}}/revoke",
        summary="Revoke a credential",
        roles=EITHER,
        command=True,
        versioned=True,
        body=Nothing,
        out=Operator,
        example={"reason": "Rotated."},
    ),
)
