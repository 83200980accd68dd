"""The WSGI application: one responder per row of the operation table.

Order of a request: request id → who → may they → path, headers, query, body → handler → answer.
It holds no rule and no SQL. Every failure leaves through `_fail`, as a problem document.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlencode

import falcon
import orjson
import psycopg
import structlog
from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests
from pydantic import BaseModel
from structlog.contextvars import bind_contextvars, clear_contextvars

from api import auth, problems, requests
from api.client_certificates import PRESENTED
from api.denials import Denials
from api.exchange import Answer, Asked, Handler, Services
from api.holders import Holder
from api.metrics import Metrics
from api.operation import Operation
from api.problems import ThrottledError
from api.throttle import source_of
from ledger.canonical import format_time
from ledger.errors import (
    ForbiddenError,
    LedgerError,
    NotFoundError,
    UnauthorizedError,
    UnavailableError,
)
from ledger.events import Actor
from ledger.mapper import StoredEventError
from ledger.store import Call, Idempotency
from projections.operators import CredentialOfOperator

_logger: Final = structlog.get_logger("fedledger.http")
_RETRY_AFTER: Final = "1"  # seconds, for a 503
# Not whether it came to be later: to whom that may be said is not asked here.
_NOT_THEN: Final = "nothing had this id at that moment; without as_of it is looked for now"
_OURS: Final = HTTPStatus.INTERNAL_SERVER_ERROR

FindCredential = Callable[[str], CredentialOfOperator | None]
FindHolder = Callable[[str, datetime], Holder | None]


def build(
    rows: tuple[Operation, ...],
    handlers: Mapping[str, Handler],
    services: Services,
    find_credential: FindCredential,
    find_holder: FindHolder,
    denials: Denials,
) -> falcon.App[falcon.Request, falcon.Response]:
    """The application for `rows`, whose handlers are found by the rows' names.

    Raises:
        ValueError: a row without a handler, or a handler without a row.
    """
    if missing := {row.name for row in rows} ^ handlers.keys():
        raise ValueError(f"rows and handlers differ in {', '.join(sorted(missing))}")
    app = falcon.App(middleware=[_Frame(services.metrics)])
    app.req_options.strip_url_path_trailing_slash = False
    door = _Door(services, find_credential, find_holder, denials)
    paths: dict[str, list[Operation]] = {}
    for row in rows:
        paths.setdefault(row.path, []).append(row)
    for path, found in paths.items():
        app.add_route(path, _Resource(door, found, handlers))
    app.add_error_handler(falcon.HTTPError, _fail)
    app.add_error_handler(Exception, _fail)
    return app


class _Frame:
    """Around every request: its id, its one log line, the headers every answer has."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        context = req.context
        context.request_id = requests.request_id(req.get_header("X-Request-Id"))
        context.correlation_id = requests.correlation_id(
            req.get_header("X-Correlation-Id"), context.request_id
        )
        context.begun = time.perf_counter()
        context.operation = None
        context.actor = None
        context.position = None
        # Whatever is logged on the way, by any room, says which request it was about.
        bind_contextvars(request_id=context.request_id, correlation_id=context.correlation_id)

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: object, succeeded: bool
    ) -> None:
        resp.set_header("X-Request-Id", req.context.request_id)
        resp.set_header("Cache-Control", "no-store")
        resp.set_header("X-Content-Type-Options", "nosniff")
        actor: Actor | None = req.context.actor
        seconds = time.perf_counter() - req.context.begun
        _logger.info(
            "request",
            operation=req.context.operation,
            status=resp.status_code,
            milliseconds=round(seconds * 1000, 1),
            request_id=req.context.request_id,
            correlation_id=req.context.correlation_id,
            actor=actor.id if actor else None,
            credential=actor.credential if actor else None,
            source=req.remote_addr,
        )
        self._metrics.request(req.context.operation, resp.status_code, seconds)
        clear_contextvars()


class _Resource:
    """The methods of one path; Falcon finds `on_<method>`."""

    def __init__(
        self, door: "_Door", rows: list[Operation], handlers: Mapping[str, Handler]
    ) -> None:
        for row in rows:
            setattr(self, f"on_{row.method.lower()}", door.responder(row, handlers[row.name]))


@dataclass(frozen=True, slots=True)
class _Door:
    services: Services
    find_credential: FindCredential
    find_holder: FindHolder
    denials: Denials

    def responder(self, row: Operation, handler: Handler) -> Callable[..., None]:
        def respond(req: falcon.Request, resp: falcon.Response, **raw: str) -> None:
            req.context.operation = row.name
            source = source_of(req.remote_addr)
            actor = self._actor(row, req, source)
            asked = _asked(row, self.services, actor, source, req, raw)
            try:
                answer = handler(asked)
            except ForbiddenError as error:
                # The rules see more than the door does: four eyes, whose roles are touched.
                self.denials.note(row.name, actor, error, req.context.correlation_id)
                raise
            except NotFoundError:
                if asked.moment.past:
                    raise NotFoundError(_NOT_THEN) from None
                raise
            _render(row, req, resp, answer, asked)

        return respond

    def _actor(self, row: Operation, req: falcon.Request, source: str) -> Actor:
        if not row.authenticated:
            return auth.stranger(source)
        try:
            actor = self._authenticated(row, req, source)
        except UnauthorizedError as error:
            self.denials.note(row.name, auth.stranger(source), error, req.context.correlation_id)
            # Only failures are counted: behind one proxy, a stranger must not lock others out.
            if wait := self.services.bad_credentials.take(source):
                raise ThrottledError("too many bad credentials", retry_after=wait) from None
            raise
        req.context.actor = actor
        if row.access == "operator":
            req.context.position = self._position
        try:
            auth.authorize(row, actor)
        except ForbiddenError as error:
            self.denials.note(row.name, actor, error, req.context.correlation_id)
            raise
        return actor

    def _authenticated(self, row: Operation, req: falcon.Request, source: str) -> Actor:
        header = req.get_header("Authorization")
        presented: str | None = req.env.get(PRESENTED)
        if presented is not None:
            # Two credentials are none: which of them was meant is not for us to guess.
            one = header is None
            known = self.find_holder(presented, self.services.clock()) if one else None
            return auth.authenticate_holder(row, known, source)
        token = auth.presented_in(header)
        credential = self.find_credential(token.accessor) if token else None
        return auth.authenticate(token, credential, source, self.services.clock())

    def _position(self) -> int:
        return self.services.ledger.record.head().size


def _asked(
    row: Operation,
    services: Services,
    actor: Actor,
    source: str,
    req: falcon.Request,
    raw: Mapping[str, str],
) -> Asked:
    path = requests.path_values(row, raw)
    version = requests.expected_version(row, req.get_header("If-Match"))
    key = requests.idempotency_key(req.get_header("Idempotency-Key"))
    query, dry_run = requests.query_values(row, req.query_string)
    data = requests.body_bytes(req) if row.body is not None else b""
    body = requests.body_value(row, req.content_type, data)
    idempotency = None
    if key and row.rehearsable and row.method == "POST" and not dry_run and actor.credential:
        digest = hashlib.sha256(data).hexdigest()
        idempotency = Idempotency(actor.credential, row.method, req.path, key, digest)
    call = Call(
        actor=actor,
        correlation_id=req.context.correlation_id,
        reason=getattr(body, "reason", None) or getattr(query, "reason", None),
        expected_version=version,
        idempotency=idempotency,
        dry_run=dry_run,
    )
    return Asked(row, services, call, source, path, body, query)


# ---- answers --------------------------------------------------------------------------------


def _render(
    row: Operation, req: falcon.Request, resp: falcon.Response, answer: Answer, asked: Asked
) -> None:
    resp.status = answer.status or row.status
    headers = {
        "ETag": f'"{answer.version}"' if answer.version is not None else None,
        "Ledger-Position": str(answer.position) if answer.position is not None else None,
        "Location": answer.location,
        "Link": _link(req, answer.following, asked.query),
        "Idempotent-Replayed": "true" if answer.replayed else None,
        **answer.headers,
    }
    for name, value in headers.items():
        if value is not None:
            resp.set_header(name, value)
    if resp.status_code != HTTPStatus.NO_CONTENT:
        resp.content_type = answer.media
        if answer.stream is not None:
            resp.stream = answer.stream
            return
        resp.data = answer.data if answer.data is not None else _encoded(answer.value)


def _encoded(value: BaseModel | Mapping[str, Any] | None) -> bytes:
    if isinstance(value, BaseModel):
        return value.model_dump_json().encode()
    return orjson.dumps(value, default=format_time, option=orjson.OPT_PASSTHROUGH_DATETIME)


def _link(req: falcon.Request, following: str | None, query: BaseModel | None) -> str | None:
    if following is None or query is None:
        return None
    filters = query.model_dump(mode="json", exclude={"cursor"}, exclude_none=True)
    shown = {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in filters.items()
    }
    return f'<{req.path}?{urlencode(shown | {"cursor": following})}>; rel="next"'


# ---- failures -------------------------------------------------------------------------------


def _fail(req: falcon.Request, resp: falcon.Response, error: Exception, params: object) -> None:
    request_id: str = req.context.request_id
    refusal = _refusal(error, req)
    status, members = problems.document(refusal, request_id)
    if status >= _OURS:
        # The exception's own text stays in the log: it may name tables, hosts or files.
        _logger.error(
            "failed",
            operation=req.context.operation,
            code=members["code"],
            request_id=request_id,
            exc_info=error,
        )
    resp.status = status
    resp.content_type = problems.CONTENT_TYPE
    resp.data = problems.encode(members)
    headers = _failure_headers(status, members, error) | _position_header(status, req)
    for name, value in headers.items():
        resp.set_header(name, value)


def _position_header(status: int, req: falcon.Request) -> dict[str, str]:
    """Which position a refusal knows of. Not on a 401, which looks the same whatever was wrong,
    nor when it is the database that failed."""
    known = req.context.position
    if known is None or status == HTTPStatus.UNAUTHORIZED or status >= _OURS:
        return {}
    try:
        return {"Ledger-Position": str(known())}
    except (LedgerError, psycopg.Error, PoolTimeout, PoolClosed, TooManyRequests):
        return {}  # a refusal stands, whether or not the head could be read after it


def _failure_headers(status: int, members: Mapping[str, Any], error: Exception) -> dict[str, str]:
    if status == HTTPStatus.UNAUTHORIZED:
        return {"WWW-Authenticate": 'Bearer realm="fedledger"'}
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return {"Retry-After": str(members.get("retry_after", 60))}
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return {"Retry-After": str(members.get("retry_after", _RETRY_AFTER))}
    if status == HTTPStatus.METHOD_NOT_ALLOWED and isinstance(error, falcon.HTTPError):
        return {name: text for name, text in dict(error.headers or {}).items() if name == "Allow"}
    return {}


def _refusal(error: Exception, req: falcon.Request) -> LedgerError:
    if isinstance(error, LedgerError):
        return error
    if isinstance(error, falcon.HTTPError):
        return _web_refusal(error)
    if isinstance(error, psycopg.Error | PoolTimeout | PoolClosed | TooManyRequests):
        return UnavailableError("the database does not answer", code="storage-unavailable")
    if isinstance(error, StoredEventError):
        return LedgerError(
            "an event cannot be read: run fedledger doctor --all where the ledger is",
            code="record-damaged",
        )
    return LedgerError("something here went wrong; it was logged", code="internal")


def _web_refusal(error: falcon.HTTPError) -> LedgerError:
    if error.status_code == HTTPStatus.NOT_FOUND:
        return NotFoundError("no such path")
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return problems.NoSuchMethodError("the path has no such method")
    if error.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return LedgerError("something here went wrong; it was logged", code="internal")
    return problems.MalformedError("the request cannot be read")
