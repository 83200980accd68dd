"""Reads an export back and checks it as it goes: lines, leaves, digest, root, signature.

It needs the file and the log's verifier key, and nothing else: no database, no service, no clock.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from io import SEEK_END
from typing import BinaryIO

from ledger.exports import (
    LINES,
    MAX_LINE,
    ExportError,
    Format,
    Manifest,
    header,
    note_in,
    parse_line,
    parse_manifest,
)
from ledger.recorded import RecordedEvent
from ledger.tlog.merkle import Frontier
from ledger.tlog.note import NoteError, VerifierKey, open_note, text_of


@dataclass(frozen=True, slots=True)
class Verified:
    """What a whole pass showed. `signers`: names of the keys that signed the manifest."""

    manifest: Manifest
    signers: tuple[str, ...]

    @property
    def root_shown(self) -> bool:
        """Whether the file holds the whole ledger, and its root was recomputed from it."""
        return self.manifest.whole


def manifest_of(file: BinaryIO) -> Manifest:
    """What a file says of itself on its last line, of which nothing is checked yet.

    Leaves the file at its beginning.

    Raises:
        ExportError: it does not end as an export does.
    """
    size = file.seek(0, SEEK_END)
    file.seek(max(0, size - MAX_LINE))
    lines = file.read().splitlines(keepends=True)
    file.seek(0)
    for kind in LINES:
        note = note_in(kind, lines[-1]) if lines else None
        if note is not None:
            return _parsed(note)
    raise ExportError("it does not end with a manifest")


def _parsed(note: bytes) -> Manifest:
    try:
        return parse_manifest(text_of(note))
    except NoteError as error:
        raise ExportError(str(error)) from None


class ExportReader:
    """One pass over one export: `events` to its end, then `manifest` and `verify`."""

    def __init__(self, file: BinaryIO) -> None:
        """`file`: opened for reading bytes, at its beginning; read once, a line at a time.

        Raises:
            ExportError: it does not begin as an export does.
        """
        self._file = file
        self._digest = sha256()
        self._tree = Frontier()
        self._note: bytes | None = None
        self._count = self._last = 0
        first = self._line()
        self.format: Format = "csv" if first == header("csv") else "jsonl"
        self._first = first
        if self.format == "csv":
            self._digest.update(first)
            self._first = self._line()
        elif not first.startswith(b"{"):
            raise ExportError("this is no export")

    def events(self) -> Iterator[RecordedEvent]:
        """Yield every event in order. Only when it has ended without an error is the file whole.

        Raises:
            ExportError: a line, a leaf, an order, the digest, the count or the root is not right,
                or the file ends without a manifest.
        """
        line = self._first
        while (note := note_in(self.format, line)) is None:
            event = parse_line(self.format, line)
            self._take(event, line)
            yield event
            line = self._line()
        self._note = note
        if self._file.read(1):
            raise ExportError("something follows the manifest")
        self._compare(self.manifest)

    @property
    def manifest(self) -> Manifest:
        """What the file says of itself, whoever signed it.

        Raises:
            ExportError: it has not been read to its end, or holds another text.
        """
        if self._note is None:
            raise ExportError("the export has not been read to its end")
        return _parsed(self._note)

    def verify(self, keys: Iterable[VerifierKey]) -> Verified:
        """Check the signature, after `events` has ended.

        keys: the log keys of this ledger that are trusted, old ones among them.

        Raises:
            ExportError: none of the keys signed it, or not in the name of its origin.
        """
        manifest = self.manifest
        note = self._note or b""
        try:
            signers = open_note(note, keys).signers
        except NoteError as error:
            raise ExportError(str(error)) from None
        if manifest.origin not in signers:
            raise ExportError("signed by a key of another ledger than its origin")
        return Verified(manifest, signers)

    def _line(self) -> bytes:
        line = self._file.readline(MAX_LINE)
        if not line.endswith(b"\n"):
            # A line that is longer than any can be is no end of the file.
            cut = len(line) < MAX_LINE
            raise ExportError("the export is cut off" if cut else "a line has no end")
        return line

    def _take(self, event: RecordedEvent, line: bytes) -> None:
        if event.position <= self._last:
            raise ExportError(f"position {event.position} does not follow {self._last}")
        self._count, self._last = self._count + 1, event.position
        self._digest.update(line)
        self._tree.append(event.leaf)
        if self._count == 1:
            self._begin = event.position

    def _compare(self, manifest: Manifest) -> None:
        checks = {
            "it is of another format": manifest.format == self.format,
            "the bytes are not those of the manifest": manifest.sha256 == self._digest.hexdigest(),
            "it holds another number of events": manifest.count == self._count,
            "it holds events outside its positions": self._within(manifest),
            "events of its positions are missing": self._complete(manifest),
            "the root is not that of the ledger": self._rooted(manifest),
        }
        if wrong := [what for what, right in checks.items() if not right]:
            raise ExportError("; ".join(wrong))

    def _within(self, manifest: Manifest) -> bool:
        if not self._count:
            return True
        return manifest.first <= self._begin and self._last <= manifest.last <= manifest.tree_size

    def _complete(self, manifest: Manifest) -> bool:
        return manifest.selective or self._count == max(0, manifest.last - manifest.first + 1)

    def _rooted(self, manifest: Manifest) -> bool:
        return not manifest.whole or self._tree.root() == manifest.tree_root
