"""Opaque cursors for keyset pages. A cursor fits one list and one set of filters only.

It is no secret and no authority: who forges one sees what the same filters would show anyway.
"""

import base64
import hashlib
from typing import Any, Final
from uuid import UUID

import orjson

from api.problems import Issue
from api.wire import Page, parse_id
from ledger.errors import InvalidError

_FORMAT: Final = 1


def write(operation: str, page: Page, position: int, last: str) -> str:
    """A cursor for what follows `last`. `position`: the ledger's, when the first page was read.

    operation: the list's, with the object's id if it lies below one.
    """
    content = [_FORMAT, _fingerprint(operation, page), position, last]
    return base64.urlsafe_b64encode(orjson.dumps(content)).rstrip(b"=").decode()


def read(operation: str, page: Page) -> tuple[int, str] | None:
    """The position and the last key in the page's cursor; None on the first page.

    Raises:
        InvalidError: the cursor is not ours, or belongs to other filters.
    """
    if page.cursor is None:
        return None
    try:
        padded = page.cursor + "=" * (-len(page.cursor) % 4)
        content: Any = orjson.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        version, fingerprint, position, last = content
    except (ValueError, TypeError):
        raise _wrong() from None
    right = version == _FORMAT and fingerprint == _fingerprint(operation, page)
    if not right or type(position) is not int or type(last) is not str or "\0" in last:
        raise _wrong()
    return position, last


def place(last: str | None) -> UUID | None:
    """The id in a cursor's last key. Raises InvalidError."""
    try:
        return parse_id(last) if last is not None else None
    except ValueError:
        raise _wrong() from None


def _wrong() -> InvalidError:
    return InvalidError(
        "the cursor does not belong to this list",
        code="cursor",
        issues=(Issue("use `next` of the page before, with its filters", parameter="cursor"),),
    )


def _fingerprint(operation: str, page: Page) -> str:
    filters = page.model_dump(mode="json", exclude={"cursor", "limit"}, exclude_none=True)
    return hashlib.sha256(
        orjson.dumps([operation, filters], option=orjson.OPT_SORT_KEYS)
    ).hexdigest()[:16]
