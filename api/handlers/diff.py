"""Comparing two moments: both representations of whatever may differ, member by member."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import Any, Final, Literal, cast
from uuid import UUID

from psycopg import Connection
from pydantic import BaseModel

from api import cursors
from api import diff as wire
from api import grants as grant_wire
from api import peers as peer_wire
from api.exchange import Answer, Asked, Handler
from api.handlers.certificates import shown as shown_certificate
from api.handlers.views import shown
from api.problems import Issue
from api.reading import Moment, Snapshot
from api.wire import COMBINATION, Page, parse_moment, parse_position
from ledger.canonical import format_time
from ledger.errors import InvalidError
from projections import as_of, certificates, diff, grants, peers
from projections.diff import Span

_UNTOLD: Final = frozenset({"version", "changed_at", "certificate"})
_ENDS: Final = frozenset({"expired", "revoked", "rejected", "failed", "abandoned"})
_STATUS: Final = {"grant": "status", "peer": "state", "certificate": "standing"}

Shown = dict[str, Any]


def list_(asked: Asked) -> Answer:
    query = asked.query
    if not isinstance(query, Page):
        raise TypeError("the row does not say a page")
    given: Any = query.model_dump()
    place = cursors.read(asked.operation.name, query)
    moment = _moment(given["to"], "to")
    if place:
        moment = Moment(moment.time, place[0])
    with _then(asked, moment) as snapshot:
        span = _span(snapshot, _moment(given["from"], "from"))
        items, following = _page(snapshot, span, given["kind"], place, query.limit)
    cursor = following and cursors.write(asked.operation.name, query, span.last, following)
    value = wire.Diff(
        earlier=wire.DiffEnd(position=span.first, at=format_time(span.first_at)),
        later=wire.DiffEnd(position=span.last, at=format_time(span.last_at)),
        items=items,
        next=cursor,
    )
    asked.services.readings.note(asked.call, asked.operation.name, query, len(items))
    return Answer(value, position=snapshot.position, following=cursor)


@contextmanager
def _then(asked: Asked, later: Moment) -> Iterator[Snapshot]:
    """A view of the later moment; that it has not been is said of the parameter it came in."""
    with ExitStack() as stack:
        try:
            snapshot = stack.enter_context(asked.services.read(later))
        except InvalidError as error:
            issue = Issue("must not lie behind the present", parameter="to")
            raise InvalidError(error.detail, code=error.code, issues=(issue,)) from None
        yield snapshot


def _moment(text: str, parameter: str) -> Moment:
    try:
        return Moment(position=parse_position(text))
    except ValueError:
        pass
    try:
        return Moment(time=parse_moment(text))
    except ValueError:
        issue = Issue("must be a position or an RFC 3339 time with its zone", parameter=parameter)
        raise InvalidError("the query is not valid", issues=(issue,)) from None


def _span(snapshot: Snapshot, earlier: Moment) -> Span:
    found = as_of.resolve(snapshot.connection, earlier.time, earlier.position)
    if found.at is None or found.position > snapshot.position or found.at > snapshot.at:
        issue = Issue("must not lie behind `to`", parameter="from")
        raise InvalidError("the query is not valid", code=COMBINATION, issues=(issue,))
    return Span(found.position, found.at, snapshot.position, snapshot.at)


def _page(
    snapshot: Snapshot,
    span: Span,
    kind: str | None,
    place: tuple[int, str] | None,
    limit: int,
) -> tuple[list[wire.Change], str | None]:
    """The changes among the next `limit` candidates; the last of those, if there may be more."""
    begin, _, behind = place[1].partition(" ") if place else ("", "", "")
    items: list[wire.Change] = []
    left = limit
    for each in diff.KINDS:
        if each < begin or kind not in (None, each):
            continue
        after = behind if each == begin else None
        ids = diff.candidates(snapshot.connection, each, span, after, left)
        items += _changes(snapshot, span, each, ids)
        left -= len(ids)
        if not left:
            return items, f"{each} {ids[-1]}"
    return items, None


def _changes(snapshot: Snapshot, span: Span, kind: str, ids: Sequence[str]) -> list[wire.Change]:
    if not ids:
        return []
    connection, read = snapshot.connection, _READ[kind]
    now = read(connection, ids, span.last_at)
    as_of.go_back(connection, span.first)
    then = read(connection, ids, span.first_at)
    as_of.go_back(connection, span.last)
    changed = [key for key in ids if key in now and now[key] != then.get(key)]
    causes = diff.causes(connection, kind, span, changed)
    return [
        wire.Change(
            kind=cast(wire.Kind, kind),
            id=key,
            change=_kind_of_change(kind, then.get(key), now[key]),
            fields=_fields(then.get(key, {}), now[key]),
            events=[wire.ChangeEvent(position=p, topic=t) for p, t in causes[key]],
        )
        for key in changed
    ]


def _kind_of_change(
    kind: str, then: Shown | None, now: Shown
) -> Literal["appeared", "changed", "ended"]:
    if then is None:
        return "appeared"
    name = _STATUS[kind]
    return "ended" if now[name] in _ENDS and then[name] not in _ENDS else "changed"


def _fields(then: Shown, now: Shown) -> dict[str, wire.FieldChange]:
    return {
        name: wire.FieldChange(before=then.get(name), after=value)
        for name, value in now.items()
        if then.get(name) != value
    }


def _told(model: BaseModel) -> Shown:
    return model.model_dump(mode="json", exclude=set(_UNTOLD))


def _grants(connection: Connection[Any], ids: Sequence[str], at: datetime) -> dict[str, Shown]:
    found = grants.by_ids(connection, [UUID(one) for one in ids], at)
    return {str(row.id): _told(shown(grant_wire.Grant, row)) for row in found}


def _peers(connection: Connection[Any], ids: Sequence[str], at: datetime) -> dict[str, Shown]:
    found = peers.by_ids(connection, [UUID(one) for one in ids])
    return {str(row.id): _told(shown(peer_wire.Peer, row)) for row in found}


def _certificates(
    connection: Connection[Any], ids: Sequence[str], at: datetime
) -> dict[str, Shown]:
    found = certificates.by_serials(connection, ids)
    return {
        row.serial: _told(shown_certificate(row)) | {"standing": _standing(row, at)}
        for row in found
    }


def _standing(row: certificates.CertificateRow, at: datetime) -> str:
    """What a certificate is by itself, its grant and peer aside."""
    if row.revoked_at is not None:
        return "revoked"
    if row.state != "issued":
        return row.state
    return "expired" if at > row.not_after else "good"


_READ: Final[
    Mapping[str, Callable[[Connection[Any], Sequence[str], datetime], dict[str, Shown]]]
] = {
    "certificate": _certificates,
    "grant": _grants,
    "peer": _peers,
}
HANDLERS: Final[Mapping[str, Handler]] = {"diff.list": list_}
