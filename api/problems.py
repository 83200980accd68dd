"""Why a request failed, as RFC 9457 problem documents; the only place that picks error statuses.

It does not log and does not decide anything. The status follows from the error's class; `PROBLEMS`
says for every code what it means and which statuses it comes with, and is the source of the
reference page. A code that is missing there is answered as its class's own, and a test fails.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

import orjson

from ledger.canonical import format_time
from ledger.errors import (
    ForbiddenError,
    GoneError,
    InvalidError,
    LedgerError,
    MisIssuedError,
    NotFoundError,
    RefusedError,
    StaleError,
    UnauthorizedError,
    UnavailableError,
)
from ledger.refusals import REFUSALS

CONTENT_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:fedledger:problem:"
UNAUTHORIZED_TEXT: Final = "A valid credential is needed."


class MalformedError(LedgerError):
    """The request is not HTTP or JSON as we read them (400)."""

    code = "malformed"


class NoSuchMethodError(LedgerError):
    """The path exists, the method does not (405)."""

    code = "method-not-allowed"


class TooLargeError(LedgerError):
    """The body is larger than we read (413)."""

    code = "too-large"


class MediaTypeError(LedgerError):
    """The body is not application/json (415)."""

    code = "unsupported-media-type"


class ThrottledError(LedgerError):
    """Too much from one source (429); the fact `retry_after` counts seconds."""

    code = "too-many-requests"


STATUSES: Final[Mapping[type[LedgerError], int]] = MappingProxyType(
    {
        MalformedError: 400,
        UnauthorizedError: 401,
        ForbiddenError: 403,
        NotFoundError: 404,
        NoSuchMethodError: 405,
        RefusedError: 409,
        GoneError: 410,
        StaleError: 412,
        TooLargeError: 413,
        MediaTypeError: 415,
        InvalidError: 422,
        ThrottledError: 429,
        LedgerError: 500,
        MisIssuedError: 502,
        UnavailableError: 503,
    }
)


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing wrong with what was sent. `pointer`: RFC 6901, into the body; or a parameter."""

    detail: str
    pointer: str | None = None
    parameter: str | None = None


# What the door, the store and the reading of CSRs say; the rules' own words are in `REFUSALS`.
_DOOR: Final[Mapping[str, tuple[int, str]]] = {
    "malformed": (400, "The request is not HTTP or JSON as it is read here."),
    "method-not-allowed": (405, "The path has no such method; the header Allow lists them."),
    "refused": (409, "The present state forbids it."),
    "idempotency-in-flight": (409, "The same call is still being carried out."),
    "gone": (410, "It was withdrawn for good."),
    "stale": (412, "It has changed since it was read; read it again and send its new ETag."),
    "too-large": (413, "A body has 256 KiB at most, an event 60 KiB (422)."),
    "unsupported-media-type": (415, "A body is application/json in UTF-8."),
    "invalid": (422, "What was sent is not valid; `errors` says what and where."),
    "invalid-scope": (422, "The scope is not valid; `errors` has every issue."),
    "as-of": (422, "The moment asked for lies in the future, or the position is not recorded yet."),
    "combination": (422, "The parameters are well formed, but they do not go together."),
    "cursor": (422, "The cursor does not belong to this list and these filters."),
    "unknown-topic": (422, "There is no such topic; the reference of events has them all."),
    "idempotency-key-reused": (422, "The Idempotency-Key was used with another body."),
    "csr-malformed": (422, "The CSR is not one PEM block or DER of RFC 2986."),
    "csr-too-large": (422, "A CSR has 16 KiB at most."),
    "csr-signature": (422, "The CSR is not signed by the key in it."),
    "csr-key": (
        422,
        "The CSR's key is none of EC P-256, P-384, Ed25519, RSA of 3072 bits or more.",
    ),
    "csr-names": (422, "A CSR has no subject alternative names; the ledger chooses them."),
    "csr-subject": (422, "The CSR's subject is neither empty nor the peer's name."),
    "too-many-requests": (429, "Too much from one source; Retry-After says when to go on."),
    "internal": (500, "Our mistake; report it with the request id."),
    "record-damaged": (
        500,
        "An event cannot be read: it was altered, or a newer release wrote it.",
    ),
    "unavailable": (503, "Not now; Retry-After says when."),
    "catching-up": (503, "What this reads is still being brought up to date; send it again."),
    "busy": (503, "What this depends on keeps changing; send it again."),
    "clock-untrusted": (503, "The clocks are too far apart; the operator must set them right."),
    "commit-outcome-unknown": (
        503,
        "It may or may not be on record; the same Idempotency-Key again tells which.",
    ),
    "lost-history": (503, "The database has lost events; nothing is written until it is restored."),
    "log-key-unusable": (503, "The ledger's log key is missing here, or is another ledger's."),
    "occupied": (503, "As many of these calls are under way as may be; Retry-After says when."),
    "projections-version": (503, "The tables belong to another release of this program."),
    "storage-full": (
        503,
        "The database's disk is full: reading goes on, writing again once there is space.",
    ),
    "storage-unavailable": (503, "The database does not answer."),
}
_RULES_ELSE: Final[Mapping[int, tuple[str, ...]]] = {
    401: ("unauthorized",),
    403: ("clone-suspected", "forbidden", "four-eyes"),
    404: ("crl-by-authority", "not-found"),
    410: ("revoked-in-flight",),
    422: (
        "alarm-kind", "authority-chain", "base-url", "credential-ttl", "empty-validity",
        "expires-in-past", "expires-too-late", "hold-means-suspend", "key-digest", "peer-name",
        "policy-field", "reason-required", "reason-too-long", "roles", "subject-user-id",
        "token-ttl", "verification-required",
    ),
    502: ("mis-issued",),
    503: ("authority-unavailable", "issuance-failed"),
}  # fmt: skip
# 410 tells a peer that it is over for good; the same end refuses an operator's command with 409.
_ENDED: Final = frozenset(
    {"certificate-revoked", "grant-expired", "grant-rejected", "grant-revoked"}
)


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem type as documented: the statuses it comes with, and its title."""

    statuses: tuple[int, ...]
    title: str


def _problems() -> dict[str, Problem]:
    status = {code: one for one, codes in _RULES_ELSE.items() for code in codes}
    rules = {
        code: Problem((409, 410) if code in _ENDED else (status.get(code, 409),), title)
        for code, title in REFUSALS.items()
    }
    return rules | {code: Problem((one,), title) for code, (one, title) in _DOOR.items()}


PROBLEMS: Final[Mapping[str, Problem]] = MappingProxyType(dict(sorted(_problems().items())))
"""Every problem type there is, by code."""


def status_of(error: LedgerError) -> int:
    """The HTTP status of an error: that of its nearest class in `STATUSES`."""
    return next(STATUSES[cls] for cls in type(error).__mro__ if cls in STATUSES)


def code_of(error: LedgerError) -> str:
    """The error's own code where it is documented, else its class's."""
    own = (error.code, type(error).code)
    return next((code for code in own if code in PROBLEMS), "internal")


def document(
    error: LedgerError, request_id: str, issues: Sequence[Issue] = ()
) -> tuple[int, dict[str, Any]]:
    """The status and the members of the problem document for `error`.

    `type`, `title`, `status`, `detail`, `code` and `request_id` are always there; `errors` lists
    issues; the error's own facts follow under their names.
    """
    if isinstance(error, UnauthorizedError):
        # Whatever was wrong, one and the same answer: facts such as a cause stay in the ledger.
        error, issues = UnauthorizedError(UNAUTHORIZED_TEXT), ()
    status, code = status_of(error), code_of(error)
    members: dict[str, Any] = {name: _plain(value) for name, value in error.facts.items()}
    members.pop("issues", None)
    listed = [*issues, *_issues_of(error)]
    if listed:
        members["errors"] = [
            {key: text for key, text in (
                ("detail", issue.detail), ("pointer", issue.pointer), ("parameter", issue.parameter),
            ) if text is not None}
            for issue in listed
        ]  # fmt: skip
    return status, members | {
        "type": TYPE_PREFIX + code,
        "title": PROBLEMS[code].title,
        "status": status,
        "detail": error.detail,
        "code": code,
        "request_id": request_id,
    }


def encode(members: dict[str, Any]) -> bytes:
    """The bytes of a problem document."""
    return orjson.dumps(members, option=orjson.OPT_SORT_KEYS)


def pointer(*path: str | int) -> str:
    """The RFC 6901 JSON pointer to `path`."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


def scope_pointer(dotted: str, under: str = "scope") -> str:
    """The pointer for a dotted path of `ledger.scope`, whose keys may not echo what was sent."""
    parts = [] if dotted == "root" else dotted.split(".")
    known = [part for part in parts if re.fullmatch(r"[a-z_]{1,32}|[0-9]{1,6}", part, re.ASCII)]
    return pointer(under, *known)


def _issues_of(error: LedgerError) -> Sequence[Issue]:
    found = error.facts.get("issues", ())
    return (
        [issue for issue in found if isinstance(issue, Issue)] if isinstance(found, tuple) else ()
    )


def _plain(value: object) -> object:
    """A fact as JSON: text, numbers and lists stay, times take their written form."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return format_time(value)
    return str(value)
