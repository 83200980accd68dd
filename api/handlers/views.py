"""What several nouns share: shaping commands and pages into answers. It reads no table itself."""

import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel

from api import cursors
from api.exchange import Answer, Asked, rehearsed
from api.reading import Snapshot
from api.wire import Page
from ledger.errors import NotFoundError
from ledger.store import Recorded

M = TypeVar("M", bound=BaseModel)
R = TypeVar("R")


def shown(model: type[M], row: object | None) -> M:
    """A row or a state as a wire model; NotFoundError when there is none."""
    if row is None:
        raise NotFoundError("nothing has this id")
    return model.model_validate(row, from_attributes=True)


def sent(model: BaseModel) -> Mapping[str, Any]:
    """A wire model as an item of a page."""
    return model.model_dump(mode="json")


def command(
    asked: Asked,
    recorded: Recorded[Any],
    shape: Callable[[], M],
    version: int,
    *,
    location: str | None = None,
) -> Answer:
    """A command's answer: the object as the command left it, or the events of a dry run."""
    if asked.call.dry_run:
        return rehearsed(recorded)
    return Answer(
        shape(),
        version=version,
        position=recorded.position,
        location=location,
        replayed=recorded.replayed,
    )


def page(
    asked: Asked,
    query: Page,
    read: Callable[[Snapshot, str | None], Sequence[R]],
    key: Callable[[R], object],
    item: Callable[[R], Mapping[str, Any]],
) -> Answer:
    """One keyset page: `read` gives up to `limit` + 1 rows behind a key, `item` what is
    sent of each."""
    # Of which list: a list below an object is another one for each object.
    of = " ".join((asked.operation.name, *map(str, asked.path.values())))
    place = cursors.read(of, query)
    with asked.read(place[0] if place else None) as snapshot:
        rows = list(read(snapshot, place[1] if place else None))
        position = snapshot.position
    following = None
    if len(rows) > query.limit:
        rows = rows[: query.limit]
        first = place[0] if place else position
        following = cursors.write(of, query, first, str(key(rows[-1])))
    value = {"items": [item(row) for row in rows], "next": following}
    return Answer(value, position=position, following=following)


def pem(der: bytes) -> str:
    """A certificate's PEM text. What was recorded is not read again for it."""
    return ssl.DER_cert_to_PEM_cert(der)
