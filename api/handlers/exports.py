"""Exports: events streamed as they are recorded, then the manifest that vouches for them.

Memory stays flat: events are immutable and read in pages behind the last one, without holding a
transaction open. What is sent is what is hashed; the manifest comes last, when all of it is known.
"""

from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Final

import structlog

from api import exports as wire
from api.exchange import Answer, Asked, Handler
from api.handlers.events import filter_of
from ledger.errors import LedgerError, NotFoundError, UnavailableError
from ledger.events import LEDGER_ID, ExportMade
from ledger.exports import LINES, Manifest, Pairs, header, last_line
from ledger.identity import Identity
from ledger.record import Filter, RecordHead

_logger: Final = structlog.get_logger("fedledger.exports")
_PAGE: Final = (
    100  # events: a hundred KiB or two, and each thread of the service keeps what it once needed
)
_RETRY_AFTER: Final = 10  # seconds
_MEDIA: Final = {"jsonl": "application/jsonl", "csv": "text/csv"}
_POSITIONS: Final = {"format", "after", "before"}  # said elsewhere in the manifest


def make(asked: Asked) -> Answer:
    query = asked.query_as(wire.ExportConditions)
    ledger, exports = asked.services.ledger, asked.services.exports
    identity = ledger.load(Identity, LEDGER_ID)
    if identity is None:
        raise NotFoundError("this database holds no ledger yet")
    exports.key.check(identity)
    head = ledger.record.head()
    stream = _Stream(asked, query, identity, head)
    if not exports.places.acquire(blocking=False):
        raise UnavailableError(
            "too many exports are under way", code="occupied", retry_after=_RETRY_AFTER
        )
    return Answer(
        stream=stream,
        media=_MEDIA[query.format],
        position=head.size,
        headers={
            "Content-Disposition": f'attachment; filename="fedledger-{head.size}.{query.format}"'
        },
    )


class _Stream:
    """The bytes of one export. Whoever sends them calls `close` in the end, however it ends."""

    def __init__(
        self, asked: Asked, query: wire.ExportConditions, identity: Identity, head: RecordHead
    ) -> None:
        self._asked, self._query, self._identity, self._head = asked, query, identity, head
        wanted = filter_of(query)
        first, last = asked.services.ledger.record.bounds(wanted)
        last = head.size if last is None else min(last, head.size)
        # Whatever was asked for, the range is one of positions that there are, or empty.
        self._wanted = Filter(wanted.question, min(first, head.size + 1), last)
        self._count = 0
        self._finished = False
        self._ended = False
        self._chunks = self._made()

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        """End it wherever it is."""
        self._chunks.close()
        self._end()  # also of one that never began, which closing does not run

    def _end(self) -> None:
        """Give the place back, once; what was cut off is recorded as a reading."""
        if self._ended:
            return
        self._ended = True
        self._asked.services.exports.places.release()
        if not self._finished:
            self._asked.services.readings.note(
                self._asked.call, self._asked.operation.name, self._query, self._count
            )

    def _made(self) -> Generator[bytes, None, None]:
        try:
            digest = sha256()
            for chunk in self._lines():
                digest.update(chunk)
                yield chunk
            yield self._last_line(digest.hexdigest())
        finally:
            self._end()

    def _last_line(self, digest: str) -> bytes:
        manifest = Manifest(
            origin=self._identity.origin,
            format=self._query.format,
            filter=_pairs(self._query),
            first=self._wanted.first,
            last=max(self._wanted.last or 0, self._wanted.first - 1),
            count=self._count,
            sha256=digest,
            tree_size=self._head.size,
            tree_root=self._head.root,
            record=None,
            made_at=self._asked.services.clock(),
        )
        manifest = replace(manifest, record=self._recorded(manifest))
        note = self._asked.services.exports.key.sign(manifest.text(), self._identity)
        self._finished = True
        return last_line(self._query.format, note)

    def _lines(self) -> Iterator[bytes]:
        write = LINES[self._query.format]
        if begin := header(self._query.format):
            yield begin
        after = None
        while page := self._asked.services.search.page(self._wanted, after=after, limit=_PAGE):
            self._count += len(page)
            yield b"".join(map(write, page))
            after = page[-1].position
            if len(page) < _PAGE:
                return

    def _recorded(self, manifest: Manifest) -> int | None:
        """The position of the event that says so; None, and a warning, if it cannot be written."""
        fact = ExportMade(
            format=manifest.format,
            filter=manifest.filter,
            first_position=manifest.first,
            last_position=manifest.last,
            count=manifest.count,
            sha256=manifest.sha256,
        )
        try:
            return self._asked.services.ledger.note(self._asked.call, fact).position
        except LedgerError as error:
            # As with every reading: an auditor must be able to look when nothing can be written.
            _logger.warning("export not recorded", code=error.code)
            return None


def _pairs(query: wire.ExportConditions) -> Pairs:
    shown = query.model_dump(mode="json", exclude_none=True, exclude=_POSITIONS)
    return tuple(sorted((name, str(value)) for name, value in shown.items()))


HANDLERS: Final[Mapping[str, Handler]] = {"event.export": make}
