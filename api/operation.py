"""What one row of the operation table is. It runs nothing and imports no web, database or crypto.

A row is the only place where a path, its roles, its models and its answers are said; routes,
validation, authorization, the OpenAPI document and the command line's client are read from it.
"""

import re
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, Literal

from pydantic import BaseModel, ValidationError

from api.wire import AsOf, Role

READERS: Final[frozenset[Role]] = frozenset({"admin", "approver", "auditor"})
"""SPEC §8: admin, approver and auditor may read everything."""
ADMIN: Final[frozenset[Role]] = frozenset({"admin"})
APPROVER: Final[frozenset[Role]] = frozenset({"approver"})
EITHER: Final[frozenset[Role]] = ADMIN | APPROVER
"""The door lets both in; the rules, which see the target, decide."""
NOBODY: Final[frozenset[Role]] = frozenset()

_PARAMETER: Final = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path.

    name: `noun.verb`, stable: the handler's key and the command line's.
    access: `operator` needs a bearer credential with one of `roles`; `public` needs nothing;
        `enrollment-token` carries its secret in the body; `certificate` needs a peer's own.
    peers: a peer with its certificate may too, where the objects are its own.
    command: it appends to the ledger, so it takes `dry_run` and, for POST, `Idempotency-Key`.
    versioned: its answer has an ETag; see `conditional` for `If-Match`.
    also: failure statuses that may come with the model of a success (a report on bad health).
    problems: codes beyond those every operation of its kind can give.
    media: content types of a success; the first is the default.
    """

    name: str
    method: Literal["GET", "POST", "PATCH", "DELETE"]
    path: str
    summary: str
    description: str = ""
    roles: frozenset[Role] = NOBODY
    access: Literal["operator", "public", "enrollment-token", "certificate"] = "operator"
    peers: bool = False
    command: bool = False
    versioned: bool = False
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    out: type[BaseModel] | None = None
    status: int = 200
    also: tuple[int, ...] = ()
    problems: tuple[str, ...] = ()
    media: tuple[str, ...] = ("application/json",)
    example: dict[str, Any] = field(default_factory=dict)

    @property
    def feature(self) -> str:
        """The noun of the name."""
        return self.name.split(".", 1)[0]

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names in the path's braces, in order."""
        return tuple(_PARAMETER.findall(self.path))

    @property
    def body_needed(self) -> bool:
        """Whether an empty body is refused: something in it must be given."""
        if self.body is None:
            return False
        try:
            self.body.model_validate({})
        except ValidationError:
            return True
        return False

    @property
    def of_a_moment(self) -> bool:
        """Whether it shows a state, so that `as_of` and `as_of_position` are understood."""
        return self.query is not None and issubclass(self.query, AsOf)

    @property
    def combines(self) -> bool:
        """Whether some of its parameters do not go together."""
        return self.query is not None and bool(self.query.__pydantic_decorators__.model_validators)

    @property
    def authenticated(self) -> bool:
        """Whether the door looks who asks."""
        return self.access in {"operator", "certificate"}

    @property
    def rehearsable(self) -> bool:
        """Whether `?dry_run=true` is understood."""
        return self.command and self.access == "operator"

    @property
    def conditional(self) -> bool:
        """Whether `If-Match` is understood: it changes something that was there before."""
        made = self.status == HTTPStatus.CREATED and not self.parameters
        return self.command and self.versioned and not made

    def url(self, **values: object) -> str:
        """The path with its parameters filled in; KeyError when one is missing.

        Values must not need escaping, which ids, serials, accessors and positions do not.
        """
        return _PARAMETER.sub(lambda match: str(values[match[1]]), self.path)
