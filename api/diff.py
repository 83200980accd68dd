"""What differs between two moments, over HTTP: wire models and the row."""

from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import Field, StringConstraints, WithJsonSchema, create_model

from api.operation import READERS, Operation
from api.wire import COMBINATION, Page, Wire

Kind: TypeAlias = Literal["certificate", "grant", "peer"]
# As a document can say it, for whoever makes calls from it; what is read is any moment there is.
_DAY: Final = (
    r"((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)"
    r"|02-(0[1-9]|1[0-9]|2[0-8]))"
)
_TIME: Final = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?"
_ZONE: Final = r"([Zz]|[+-](0[0-9]|1[0-4]):[0-5][0-9])"
ThenText = Annotated[
    str,
    StringConstraints(max_length=40),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": rf"^([1-9][0-9]{{0,15}}|[12][0-9]{{3}}-{_DAY}T{_TIME}{_ZONE})$",
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
        problems=("as-of", "catching-up", COMBINATION),
    ),
)
