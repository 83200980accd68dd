"""The values every wire model is made of: how ids, times, serials and pages look in JSON.

It holds no model of any one noun. Unknown members are refused everywhere: a typo must not silently
become a default. Reading is exact (no number from text, no truth from 1); the two leniences are
an integer written `100.0` and any RFC 3339 time, which we always write as 27 characters.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, Self, TypeAlias, TypeVar
from uuid import UUID

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ledger.canonical import format_time

_RFC3339: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)
_UUID: Final = re.compile(
    r"[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}", re.ASCII
)
_SERIAL: Final = re.compile(r"[4-7][0-9a-f]{31}", re.ASCII)
_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_DECIMAL: Final = re.compile(r"[0-9]{38,39}", re.ASCII)
_NAME: Final = re.compile(r"(?!fl[eo]_[0-9a-z]{16}_)[ -~]{1,200}")
ANY_UUID_PATTERN: Final = (
    "^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$"
)
"""What `parse_id` takes."""
ANY_SERIAL_PATTERN: Final = "^(0[xX])?:*[4-7](:*[0-9A-Fa-f]){31}:*$"
"""What `parse_serial` takes."""
ANY_NAME_PATTERN: Final = f"^{_NAME.pattern}$"
"""What `parse_name` takes."""
TIME_PATTERN: Final = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$"


class Wire(BaseModel):
    """Base of everything sent or received."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _read(parse: Callable[[str], Any], what: str) -> Callable[[object], Any]:
    def read(value: object) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return parse(value)
        except ValueError:
            # Our own words: pydantic's would repeat what was sent.
            raise PydanticCustomError("format", what) from None

    return read


def parse_moment(text: str) -> datetime:
    """The aware UTC moment of an RFC 3339 date-time with at most six fractional digits.

    Raises:
        ValueError: another form, or no such moment.
    """
    if not _RFC3339.fullmatch(text):
        raise ValueError("not RFC 3339")
    moment = datetime.fromisoformat(text.upper())
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("outside the years 1 to 9999") from None


def parse_id(text: str) -> UUID:
    """The UUID written with hyphens, in either case. Raises ValueError."""
    if not _UUID.fullmatch(text):
        raise ValueError("not a UUID")
    return UUID(text)


def parse_serial(text: str) -> str:
    """A serial as we write it, from colons, upper case or a leading 0x. Raises ValueError."""
    plain = text.lower().removeprefix("0x").replace(":", "")
    if not _SERIAL.fullmatch(plain):
        raise ValueError("not a serial")
    return plain


def parse_position(text: str) -> int:
    """A position in the ledger, 1 or above, in decimal. Raises ValueError."""
    if not re.fullmatch(r"[1-9][0-9]{0,15}", text, re.ASCII):
        raise ValueError("not a position")
    return int(text)


def parse_accessor(text: str) -> str:
    """The loggable part of a token. Raises ValueError."""
    if not re.fullmatch(r"[0-9a-z]{16}", text, re.ASCII):
        raise ValueError("not an accessor")
    return text


def parse_name(text: str) -> str:
    """Any id as the ledger writes it: UUIDs, serials (hex, colons, decimal), digests, all else as
    it is.

    Raises:
        ValueError: what no id can be; a whole token above all, which has no business in a URL.
    """
    if not _NAME.fullmatch(text):
        raise ValueError("not an id")
    if _DECIMAL.fullmatch(text):
        text = f"{int(text):032x}"  # a serial as some programs print it
    plain = text.lower().removeprefix("0x").replace(":", "")
    if _SERIAL.fullmatch(plain) or _DIGEST.fullmatch(plain):
        return plain
    return text.lower() if _UUID.fullmatch(text) else text


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise PydanticCustomError("format", "must not hold NUL")
    return value


def _listed(value: object) -> object:
    """States hold tuples and sets; JSON has lists, and a set has no order of its own."""
    if isinstance(value, frozenset):
        return sorted(value)
    return list(value) if isinstance(value, tuple) else value


def digits(value: object) -> object:
    """A number of a query, which arrives as text; anything else comes back as it is."""
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,16}", value, re.ASCII):
        return int(value)
    return value


def _truth(value: object) -> object:
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


Time = Annotated[
    datetime,
    BeforeValidator(
        _read(parse_moment, "must be an RFC 3339 time with its zone, as 2026-01-31T00:00:00Z")
    ),
    PlainSerializer(format_time),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Id = Annotated[
    UUID,
    BeforeValidator(_read(parse_id, "must be a UUID")),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "format": "uuid"}),
]
Serial = Annotated[
    str,
    BeforeValidator(_read(parse_serial, "must be a serial")),
    WithJsonSchema({"type": "string", "pattern": "^[4-7][0-9a-f]{31}$"}),
]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Accessor = Annotated[str, StringConstraints(pattern=r"^[0-9a-z]{16}$")]
Reason = Annotated[
    str,
    StringConstraints(min_length=1, max_length=2000),
    Field(description="Why, for whoever reads the record later. No secrets, no names."),
]
Text = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
SubjectUser = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z._:@-]{1,100}$")]
# Bounds stand before the validator: behind it, the JSON schema would not say them in its own words.
Seconds = Annotated[int, Field(ge=1, le=2**31), BeforeValidator(_whole)]
Whole = Annotated[int, Field(ge=0, le=2**31), BeforeValidator(_whole)]
Role: TypeAlias = Literal["admin", "approver", "auditor", "operator", "gateway"]
T = TypeVar("T")
Listed = Annotated[list[T], BeforeValidator(_listed)]
GrantStatus: TypeAlias = Literal[
    "pending_approval",
    "pending_enrollment",
    "active",
    "suspended",
    "expired",
    "revoked",
    "rejected",
]

# ---- queries: every value arrives as text ---------------------------------------------------

Limit = Annotated[
    int,
    Field(ge=1, le=500, description="Most items in one page."),
    BeforeValidator(digits),
]
Cursor = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,400}$"),
    Field(description="Where to go on: `next` of the page before, with the same filters."),
]
# Judged by `parse_name`: pydantic's own patterns cannot look ahead.
Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200),
    WithJsonSchema({"type": "string", "pattern": ANY_NAME_PATTERN}),
]
Truth = Annotated[bool, BeforeValidator(_truth)]
Position = Annotated[int, Field(ge=1, le=2**53), BeforeValidator(digits)]


COMBINATION: Final = "combination"
"""Type of the error of parameters that are well formed and do not go together: no JSON schema can
say so of a query, so it has a problem code of its own."""


class Query(Wire):
    """Base of what may stand after the question mark."""


class AsOf(Query):
    """Of what moment a state is asked for: the present, when neither is given."""

    as_of: Annotated[
        Time | None,
        Field(description="The state as it was at this time, of everything recorded by then."),
    ] = None
    as_of_position: Annotated[
        Position | None,
        Field(description="The state as it was when this position was recorded."),
    ] = None

    @model_validator(mode="after")
    def _one_moment(self) -> Self:
        if self.as_of is not None and self.as_of_position is not None:
            raise PydanticCustomError(COMBINATION, "must name as_of or as_of_position, not both")
        return self


class Page(Query):
    """The two parameters every list has."""

    limit: Limit = 50
    cursor: Cursor | None = None


class PastPage(Page, AsOf):
    """The parameters of every list of a state."""


class Nothing(Wire):
    """A command that needs nothing but may be given its reason."""

    reason: Reason | None = None


class Reasoned(Wire):
    """A command that takes rights away or gives them back: it says why."""

    reason: Reason


def one_given(*names: str) -> ConfigDict:
    """The configuration of a model of which one of these members must be there and not null.

    It only puts this into the JSON schema; the model's own validator says it to the caller.
    """
    given: list[JsonValue] = [
        {"required": [name], "properties": {name: {"not": {"type": "null"}}}} for name in names
    ]
    return ConfigDict(json_schema_extra={"anyOf": given})


class PlannedEvent(Wire):
    """An event that the command would append."""

    topic: str
    stream: Id
    version: int
    data: dict[str, Any]


class Rehearsal(Wire):
    """What `?dry_run=true` answers: nothing was appended."""

    dry_run: Literal[True] = True
    events: list[PlannedEvent]


class ProblemDocument(BaseModel):
    """RFC 9457 problem details. Further members depend on `code`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: Annotated[str, Field(description="urn:fedledger:problem:<code>")]
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list["ProblemIssue"] | None = None


class ProblemIssue(Wire):
    """One thing wrong with what was sent, and where."""

    detail: str
    pointer: Annotated[str | None, Field(description="RFC 6901, into the body")] = None
    parameter: Annotated[str | None, Field(description="of the query, or a header")] = None
