"""Turns what came over the wire into parsed values, or into one kind of refusal.

It authenticates nobody and runs no handler. Whatever is wrong, the error says where and what was
expected, never what was sent.
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import parse_qsl
from uuid import uuid4

import falcon
from pydantic import BaseModel, ValidationError

from api.body import MAX_BODY, decode
from api.operation import Operation
from api.problems import Issue, MalformedError, MediaTypeError, TooLargeError, pointer
from api.wire import COMBINATION, parse_accessor, parse_id, parse_name, parse_position, parse_serial
from ledger.errors import InvalidError, NotFoundError

_MOST_PARAMETERS: Final = 30
_IF_MATCH: Final = re.compile(r'"([1-9][0-9]{0,14})"', re.ASCII)
_KEY: Final = re.compile(r"[!-~]{1,200}", re.ASCII)
_PATH: Final[Mapping[str, Callable[[str], object]]] = MappingProxyType(
    {
        "serial": parse_serial,
        "accessor": parse_accessor,
        "position": parse_position,
        "id": parse_name,
    }
)


def request_id(header: str | None) -> str:
    """The caller's X-Request-Id if it is a UUID, else a new one."""
    try:
        return str(parse_id(header or ""))
    except ValueError:
        return str(uuid4())


def correlation_id(header: str | None, request_id: str) -> str:
    """The caller's X-Correlation-Id if it is a UUID, for what takes several requests; else the
    request's own id."""
    try:
        return str(parse_id(header or ""))
    except ValueError:
        return request_id


def path_values(row: Operation, raw: Mapping[str, str]) -> dict[str, object]:
    """The path's parameters, parsed by their names.

    Raises:
        NotFoundError: a value that no id of its kind can have.
    """
    try:
        return {name: _PATH.get(name, parse_id)(raw[name]) for name in row.parameters}
    except ValueError:
        raise NotFoundError("nothing has this id") from None


def query_values(row: Operation, text: str) -> tuple[BaseModel | None, bool]:
    """The row's query model from the query string, and whether it is a dry run.

    Raises:
        InvalidError: unknown or repeated parameters, or values that do not fit.
    """
    found = _pairs(text)
    dry_run = _dry_run(found.pop("dry_run", "false")) if row.rehearsable else False
    if row.query is not None:
        return validated(row.query, found, in_query=True), dry_run
    if found:
        raise _unknown_parameters(["dry_run"] if row.rehearsable else [])
    return None, dry_run


def _pairs(text: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            text, keep_blank_values=True, errors="strict", max_num_fields=_MOST_PARAMETERS
        )
    except ValueError:
        raise InvalidError("the query cannot be read") from None
    found = dict(pairs)
    if len(found) < len(pairs):
        raise InvalidError("a parameter of the query is given twice")
    if any("\0" in part for pair in pairs for part in pair):
        raise InvalidError("the query holds NUL")
    return found


def _dry_run(text: str) -> bool:
    if text not in {"true", "false"}:
        issue = Issue("must be true or false", parameter="dry_run")
        raise InvalidError("the query is not valid", issues=(issue,))
    return text == "true"


def _unknown_parameters(known: list[str]) -> InvalidError:
    text = f"this operation's parameters are {', '.join(known)}" if known else "it takes none"
    return InvalidError("the query has an unknown parameter", issues=(Issue(text),))


def body_bytes(request: falcon.Request) -> bytes:
    """The request's body, at most 256 KiB.

    Raises:
        TooLargeError: there is more.
    """
    if (request.content_length or 0) > MAX_BODY:
        raise TooLargeError(f"a body has at most {MAX_BODY} bytes")
    data: bytes = request.bounded_stream.read(MAX_BODY + 1)
    if len(data) > MAX_BODY:
        raise TooLargeError(f"a body has at most {MAX_BODY} bytes")
    return data


def body_value(row: Operation, content_type: str | None, data: bytes) -> BaseModel | None:
    """The row's body model from the bytes sent.

    Raises:
        MalformedError, MediaTypeError, InvalidError.
    """
    if row.body is None:
        return None
    if not data:
        if row.body_needed:
            raise MalformedError("this operation needs a JSON object as its body")
        return validated(row.body, {})
    kind, _, parameters = (content_type or "").partition(";")
    charset = parameters.strip().lower().replace('"', "")
    if kind.strip().lower() != "application/json" or charset not in {"", "charset=utf-8"}:
        raise MediaTypeError("the body must be application/json in UTF-8")
    return validated(row.body, decode(data))


def validated(model: type[BaseModel], value: object, *, in_query: bool = False) -> BaseModel:
    """`value` as a `model`.

    Raises:
        InvalidError: with one issue per thing that is wrong.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
    issues = tuple(dict.fromkeys(_issue(model, one, in_query=in_query) for one in found))
    what = "the query" if in_query else "the body"
    apart = any(one["type"] != COMBINATION for one in found)
    raise InvalidError(f"{what} is not valid", code=None if apart else COMBINATION, issues=issues)


def _issue(model: type[BaseModel], error: Mapping[str, Any], *, in_query: bool) -> Issue:
    place, text = tuple(error["loc"]), str(error["msg"])
    if error["type"] == "extra_forbidden":
        # The unknown name was sent to us, so it is not repeated: the known ones help as much.
        place, text = place[:-1], f"has an unknown member; known: {', '.join(model.model_fields)}"
    if error["type"] in {"model_type", "model_attributes_type"}:
        text = "must be a JSON object"
    if in_query:
        return Issue(text, parameter=str(place[0]) if place else None)
    return Issue(text, pointer=pointer(*(part for part in place if _known(model, part))))


def _known(model: type[BaseModel], part: str | int) -> bool:
    return isinstance(part, int) or part in model.model_fields


def expected_version(row: Operation, header: str | None) -> int | None:
    """The version named by If-Match; None without it, or for `*`.

    Raises:
        InvalidError: not an ETag of ours, or an operation that has none.
    """
    if header is None:
        return None
    if not row.conditional:
        raise _header("If-Match", "this operation does not take it")
    if header.strip() == "*":
        return None
    match = _IF_MATCH.fullmatch(header.strip())
    if match is None:
        raise _header("If-Match", 'must be one ETag as we gave it, such as "3"')
    return int(match[1])


def idempotency_key(header: str | None) -> str | None:
    """The Idempotency-Key. Raises InvalidError."""
    if header is not None and not _KEY.fullmatch(header):
        raise _header("Idempotency-Key", "must be 1 to 200 visible ASCII characters")
    return header


def _header(name: str, text: str) -> InvalidError:
    return InvalidError("a header is not valid", issues=(Issue(text, parameter=name),))
