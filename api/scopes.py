"""Scopes over HTTP: what one looks like in JSON, and judging one without recording it."""

from typing import Annotated, Any, Final, Literal, TypeAlias, get_args

from pydantic import Field, WithJsonSchema

from api.operation import READERS, Operation
from api.wire import Wire

Resource: TypeAlias = Literal["tasks", "notes", "memory", "credentials", "api_keys"]
_RESOURCE: Final = {
    "type": "string",
    "enum": list(get_args(Resource)),
}
_SCOPE_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "description": "What may be read. Judged as a whole; every issue is reported at once.",
    "additionalProperties": False,
    "required": ["resources", "max_rows_per_query"],
    "properties": {
        "resources": {"type": "array", "minItems": 1, "uniqueItems": True, "items": _RESOURCE},
        "excluded_resources": {
            "type": "array",
            "uniqueItems": True,
            "items": _RESOURCE,
            "default": [],
        },
        "filters": {
            "type": "object",
            "propertyNames": _RESOURCE,
            "description": "Per resource; absent means personal data only.",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "include_teams": {"type": "array", "items": {"type": "string"}},
                    "include_personal": {"type": "boolean", "default": True},
                },
            },
        },
        "max_rows_per_query": {"type": "integer", "minimum": 1, "maximum": 10000},
    },
}
# Any JSON value: `ledger.scope.parse_scope` alone judges it, so that its texts reach the caller.
Scope = Annotated[Any, WithJsonSchema(_SCOPE_SCHEMA)]
ScopeOrNone = Annotated[Any, WithJsonSchema({"anyOf": [_SCOPE_SCHEMA, {"type": "null"}]})]
SCOPE_EXAMPLE: Final = {"resources": ["tasks", "notes"], "max_rows_per_query": 100}


class ValidateScope(Wire):
    """A scope to be judged; nothing is recorded. Whatever JSON it is, it gets a verdict."""

    scope: Annotated[Any, WithJsonSchema({"examples": [SCOPE_EXAMPLE]})]


class ScopeIssue(Wire):
    """One thing wrong with a scope: its dotted path, or `root`."""

    path: str
    message: str


class ScopeVerdict(Wire):
    """Whether a scope is valid; then its canonical form, else every issue."""

    valid: bool
    scope: dict[str, Any] | None = None
    digest: str | None = None
    sensitive: list[str] = Field(default_factory=list)
    issues: list[ScopeIssue] = Field(default_factory=list)
    text: Annotated[str | None, Field(description="All issues as one text.")] = None


ROWS: Final = (
    Operation(
        name="scope.validate",
        method="POST",
        path="/v1/scopes/validate",
        summary="Judge a scope without recording anything",
        roles=READERS,
        body=ValidateScope,
        out=ScopeVerdict,
        example={"scope": SCOPE_EXAMPLE},
    ),
)
