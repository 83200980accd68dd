"""The operation table as an OpenAPI 3.1 document. It knows no web framework and no handler."""

from http import HTTPStatus
from typing import Any, Final, Literal, TypeAlias

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api.operation import Operation
from api.operations import OPERATIONS
from api.problems import CONTENT_TYPE, PROBLEMS, TYPE_PREFIX
from api.wire import ANY_SERIAL_PATTERN, ANY_UUID_PATTERN, ProblemDocument, Rehearsal

_JSON: Final = "application/json"
_OURS: Final = HTTPStatus.INTERNAL_SERVER_ERROR
_STRANGERS: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS})
_Mode: TypeAlias = Literal["validation", "serialization"]
_Names: TypeAlias = dict[tuple[Any, _Mode], dict[str, Any]]

# What is taken, which is more than what is given: see `parse_id` and `parse_serial`.
_ID: Final[dict[str, Any]] = {"type": "string", "format": "uuid", "pattern": ANY_UUID_PATTERN}
_PARAMETERS: Final[dict[str, dict[str, Any]]] = {
    "serial": {"type": "string", "pattern": ANY_SERIAL_PATTERN},
    "accessor": {"type": "string", "pattern": "^[0-9a-z]{16}$"},
    "position": {"type": "integer", "minimum": 1, "maximum": 10**16 - 1},
    "id": {"type": "string", "pattern": "^[0-9A-Za-z._:@-]{1,200}$"},
}
_HEADERS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "X-Request-Id": ("The request's id; yours, if you sent a UUID.", {"type": "string"}),
    "Ledger-Position": ("The ledger's position this answer knows of.", {"type": "integer"}),
    "ETag": ("The version, for If-Match only.", {"type": "string"}),
    "Location": ("Where the new object is.", {"type": "string"}),
    "Link": ('The next page, `rel="next"`; absent on the last.', {"type": "string"}),
    "Idempotent-Replayed": ("`true`: the answer of the first time.", {"type": "string"}),
    "Retry-After": ("Seconds to wait.", {"type": "integer"}),
    "WWW-Authenticate": ("How to authenticate.", {"type": "string"}),
}
_INPUTS: Final[dict[str, dict[str, Any]]] = {
    "Idempotency-Key": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "Chosen by the caller; a repeat gets the answer of the first time.",
        "schema": {"type": "string", "pattern": "^[!-~]{1,200}$"},
        "example": "01890a5d-ac96-774b-bcce-b302099a8057",
    },
    "If-Match": {
        "name": "If-Match",
        "in": "header",
        "description": "The ETag that was decided on; 412 when it has moved.",
        "schema": {
            "anyOf": [
                {"type": "string", "pattern": '^"[1-9][0-9]{0,14}"$'},
                {"type": "string", "enum": ["*"]},
            ]
        },
        "example": '"3"',
    },
    "dry_run": {
        "name": "dry_run",
        "in": "query",
        "description": "`true`: decide, append nothing, answer with the events.",
        "schema": {"type": "boolean", "default": False},
    },
}


def document(version: str) -> dict[str, Any]:
    """The whole document, for the product's `version`."""
    names, schemas = _schemas()
    paths: dict[str, dict[str, Any]] = {}
    for row in OPERATIONS:
        paths.setdefault(row.path, {})[row.method.lower()] = _operation(row, names, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fedledger",
            "version": version,
            "description": "An event-sourced audit and grant ledger for federation.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in dict.fromkeys(row.feature for row in OPERATIONS)],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "headers": {
                name: {"description": text, "schema": schema}
                for name, (text, schema) in _HEADERS.items()
            },
            "parameters": {name.replace("-", ""): parameter for name, parameter in _INPUTS.items()},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "certificate": {
                    "type": "mutualTLS",
                    "description": "The client certificate of a peer; TLS ends in a proxy.",
                },
            },
        },
    }


def _schemas() -> tuple[_Names, dict[str, Any]]:
    wanted: dict[tuple[type[BaseModel], _Mode], None] = {
        (ProblemDocument, "serialization"): None,
        (Rehearsal, "serialization"): None,
    }
    for row in OPERATIONS:
        for model, mode in _models(row):
            wanted[model, mode] = None
    names, definitions = models_json_schema(
        list(wanted), ref_template="#/components/schemas/{model}"
    )
    return names, definitions["$defs"]


def _models(row: Operation) -> list[tuple[type[BaseModel], _Mode]]:
    found: list[tuple[type[BaseModel], _Mode]] = []
    found += [(model, "validation") for model in (row.body, row.query) if model is not None]
    found += [(row.out, "serialization")] if row.out is not None else []
    return found


def _operation(row: Operation, names: _Names, schemas: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": row.name,
        "summary": row.summary,
        "tags": [row.feature],
        "parameters": _parameters(row, names, schemas),
        "responses": _responses(row, names),
        "security": [{name: []} for name in _security(row)],
    }
    text = [row.description] if row.description else []
    if row.roles:
        own = "; a peer, with its certificate, what is its own" * row.peers
        text.append(f"Roles: {', '.join(sorted(row.roles))}{own}.")
    if text:
        described["description"] = " ".join(text)
    if row.body is not None:
        content: dict[str, Any] = {"schema": names[row.body, "validation"]}
        if row.example:
            content["example"] = row.example
        described["requestBody"] = {"required": row.body_needed, "content": {_JSON: content}}
    return described


def _security(row: Operation) -> list[str]:
    """The schemes of which any one opens it."""
    asked = {"bearer": row.access == "operator"}
    asked["certificate"] = row.peers or row.access == "certificate"
    return [name for name, opens in asked.items() if opens]


def _parameters(row: Operation, names: _Names, schemas: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": _PARAMETERS.get(name, _ID)}
        for name in row.parameters
    ]
    if row.query is not None:
        schema = schemas[names[row.query, "validation"]["$ref"].rsplit("/", 1)[1]]
        found += [
            {
                "name": name,
                "in": "query",
                "required": name in schema.get("required", ()),
                "schema": _sendable(property_),
            }
            for name, property_ in schema.get("properties", {}).items()
        ]
    wanted = {
        "dry_run": row.rehearsable,
        "IdempotencyKey": row.command and row.method == "POST",
        "IfMatch": row.conditional,
    }
    return found + [
        {"$ref": f"#/components/parameters/{name}"} for name, needed in wanted.items() if needed
    ]


def _sendable(schema: dict[str, Any]) -> dict[str, Any]:
    """A query's member as it can be sent: there is no null in a query, only absence."""
    found = {name: value for name, value in schema.items() if name not in {"anyOf", "title"}}
    for choice in schema.get("anyOf", ()):
        if choice != {"type": "null"}:
            found = choice | found
    if found.get("default", "") is None:
        del found["default"]
    return found


def _responses(row: Operation, names: _Names) -> dict[str, Any]:
    success: dict[str, Any] = {
        "description": HTTPStatus(row.status).phrase,
        "headers": _references(_success_headers(row)),
    }
    if row.status != HTTPStatus.NO_CONTENT:
        success["content"] = {media: {"schema": _out(row, names, media)} for media in row.media}
    found = {str(row.status): success}
    if row.rehearsable:
        rehearsal = {"$ref": "#/components/schemas/Rehearsal"}
        if row.status == HTTPStatus.OK:
            shown = success["content"][_JSON]
            shown["schema"] = {"anyOf": [shown["schema"], rehearsal]}
        else:
            found["200"] = {
                "description": "With `dry_run=true`",
                "headers": _references(["X-Request-Id", "Ledger-Position"]),
                "content": {_JSON: {"schema": rehearsal}},
            }
    for status, codes in sorted(problems_of(row).items()):
        found[str(status)] = _problem(row, status, codes)
    for status in row.also:
        found[str(status)]["content"] |= success["content"]
        found[str(status)]["headers"] |= success["headers"]
    return found


def _out(row: Operation, names: _Names, media: str) -> dict[str, Any]:
    if not media.endswith("json"):
        return {"type": "string"}
    return {"type": "object"} if row.out is None else names[row.out, "serialization"]


def _success_headers(row: Operation) -> list[str]:
    wanted = {
        "X-Request-Id": True,
        "Ledger-Position": row.access == "operator",
        "ETag": row.versioned,
        "Location": row.status == HTTPStatus.CREATED,
        "Link": row.out is not None and "next" in row.out.model_fields,
        "Idempotent-Replayed": row.command and row.method == "POST",
    }
    return [name for name, needed in wanted.items() if needed]


def _references(headers: list[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in headers}


def problems_of(row: Operation) -> dict[int, list[str]]:
    """Status → the problem codes an operation can answer with."""
    found: dict[int, list[str]] = {}
    for code in sorted(
        {
            "internal",
            "record-damaged",
            "storage-unavailable",
            "invalid",
            *row.problems,
            *_general(row),
        }
    ):
        for status in PROBLEMS[code].statuses:
            found.setdefault(status, []).append(code)
    return found


def _general(row: Operation) -> set[str]:
    """Codes that follow from what kind of operation it is."""
    asked = (
        (row.access != "public", {"unauthorized", "too-many-requests"}),
        (row.authenticated, {"forbidden"}),
        (bool(row.parameters), {"not-found"}),
        (row.body is not None, {"malformed", "too-large", "unsupported-media-type"}),
        (
            row.command,
            {"busy", "clock-untrusted", "commit-outcome-unknown", "lost-history", "storage-full"},
        ),
        (
            row.rehearsable and row.method == "POST",
            {"idempotency-in-flight", "idempotency-key-reused"},
        ),
        (row.conditional, {"stale"}),
        (row.of_a_moment, {"as-of", "catching-up"}),
        (row.combines, {"combination"}),
        (row.out is not None and "next" in row.out.model_fields, {"cursor"}),
    )
    return {code for applies, codes in asked if applies for code in codes}


def _problem(row: Operation, status: int, codes: list[str]) -> dict[str, Any]:
    headers = ["X-Request-Id"]
    if row.access == "operator" and status not in _STRANGERS and status < _OURS:
        headers.append("Ledger-Position")
    if status == HTTPStatus.UNAUTHORIZED:
        headers.append("WWW-Authenticate")
    if status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
        headers.append("Retry-After")
    types = {
        "type": {"enum": [TYPE_PREFIX + code for code in codes]},
        "code": {"enum": codes},
        "status": {"const": status},
    }
    schema = {
        "allOf": [{"$ref": "#/components/schemas/ProblemDocument"}, {"properties": types}],
    }
    return {
        "description": "\n".join(f"- `{code}`: {PROBLEMS[code].title}" for code in codes),
        "headers": _references(headers),
        "content": {CONTENT_TYPE: {"schema": schema}},
    }
