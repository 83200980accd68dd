"""Holds every answer the tests get against what the OpenAPI document says of it."""

from functools import cache
from typing import Any

from falcon.testing import Result
from jsonschema import Draft202012Validator

from api.openapi import document
from api.operation import Operation

_HEADERS = (
    "etag", "ledger-position", "location", "link", "idempotent-replayed", "retry-after",
    "www-authenticate",
)  # fmt: skip


@cache
def _document() -> dict[str, Any]:
    return document("test")


@cache
def _validator(path: str, method: str, status: str, media: str) -> Draft202012Validator:
    said = _document()["paths"][path][method]["responses"][status]["content"][media]["schema"]
    return Draft202012Validator(
        {**said, "components": _document()["components"]},
        format_checker=Draft202012Validator.FORMAT_CHECKER,
    )


def conforms(row: Operation, answer: Result) -> None:
    """Assert that status, media type, headers and body are as the document says."""
    method, status = row.method.lower(), str(answer.status_code)
    responses = _document()["paths"][row.path][method]["responses"]
    assert status in responses, f"{row.name} answers an undocumented {status}: {answer.text}"
    said = {name.lower() for name in responses[status].get("headers", ())}
    undocumented = {name for name in _HEADERS if name in answer.headers} - said
    assert not undocumented, f"{row.name} {status} has undocumented {undocumented}"
    if row.access == "operator" and answer.status_code not in {401, 429} and status < "5":
        assert "ledger-position" in answer.headers, f"{row.name} {status} names no position"
    if not answer.content:
        assert "content" not in responses[status]
        return
    media = answer.headers["content-type"].partition(";")[0]
    assert media in responses[status]["content"], f"{row.name} {status} answers {media}"
    if media.endswith("json"):
        _validator(row.path, method, status, media).validate(answer.json)
        if media == "application/problem+json":
            code = answer.json["code"]
            assert f"`{code}`" in responses[status]["description"], f"{row.name}: {status} {code}"
