"""What differs between two moments, over HTTP: wire models and the row."""

from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import Field, StringConstraints, WithJsonSchema, create_model

from api.operation import READERS, Operation
from api.wire import Page, Wire

Kind: TypeAlias = Literal["certificate", "grant", "peer"]
_POSITION: Final = "^[1-9][0-9]{0,15}$"
ThenText = Annotated[
    str,
    StringConstraints(max_length=40),  # the handler reads it: a time that there is, or a position
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "format": "date-time"},
                {"type": "string", "pattern": _POSITION},
            ]
        }
    ),
]


class FieldChange(Wire):
    """A member as it was and as it is; null where there was nothing."""

    before: Any
    after: Any


class ChangeEvent(Wire):
    """One event that did it."""

    position: int
    topic: str


class Change(Wire):
    """One thing that is not at the later moment what it was at the earlier one.

    `ended`: revoked, rejected or expired since. `fields` are those of its own representation, but
    `version` and `changed_at`. `events` is empty where only the clock did it.
    """

    kind: Kind
    id: str
    change: Literal["appeared", "changed", "ended"]
    fields: dict[str, FieldChange]
    events: list[ChangeEvent]


class DiffEnd(Wire):
    """One of the two moments: the last position recorded by then, and when it is judged."""

    position: int
    at: str


class Diff(Wire):
    """One page of what differs, certificates first, then grants, then peers, each by id.

    A page may hold fewer than asked for although there is more: go by `next`.
    """

    earlier: DiffEnd
    later: DiffEnd
    items: list[Change]
    next: str | None


class _Kinds(Page):
    kind: Annotated[Kind | None, Field(description="Only things of this kind.")] = None


# Made so because `from` is no name a Python class can write down.
DiffFilter: Final = create_model(
    "DiffFilter",
    __base__=_Kinds,
    __doc__="Between which moments: positions, or RFC 3339 times.",
    **{
        "from": (
            Annotated[ThenText, Field(description="The earlier moment: a position or a time.")],
            ...,
        ),
        "to": (
            Annotated[ThenText, Field(description="The later moment: a position or a time.")],
            ...,
        ),
    },  # type: ignore[call-overload]  # names of members, which mypy cannot see
)

ROWS: Final = (
    Operation(
        name="diff.list",
        method="GET",
        path="/v1/diff",
        summary="What differs between two moments",
        description=(
            "Peers, grants and certificates that appeared, changed or ended, with the events that "
            "did it. What a grant or peer does to a certificate shows at the grant or peer."
        ),
        roles=READERS,
        query=DiffFilter,
        out=Diff,
        problems=("as-of", "catching-up"),
    ),
)
