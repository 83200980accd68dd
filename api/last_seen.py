"""What this home remembers of the ledger: how long it was when last seen, and its root then.

A database that was restored from an older backup, or rewritten whole by its owner, contradicts
itself nowhere; only a memory outside of it can tell. It verifies no body (`projections/verify.py`)
and is no signed checkpoint: whoever may write the home can forge it.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from ledger.record import Record

FILE: Final = "last-seen-head"


class Seen(NamedTuple):
    """A tree head: `size` events, and their root, 32 bytes."""

    size: int
    root: bytes


class LastSeen:
    """Compares the record with what was seen before, and remembers it as it is now."""

    def __init__(self, home: Path, record: Record) -> None:
        self.file = home / FILE
        self._record = record

    def objection(self) -> str | None:
        """Why the record is not the one seen before, grown; None when it is, or none was seen.

        Raises:
            UnavailableError: the database does not answer.
        """
        try:
            seen = _parse(self.file.read_text("ascii"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            return f"{self.file} cannot be read, so nobody knows what was seen before"
        found = self._record.root_at(seen.size)
        if found == seen.root:
            return None
        what = "are no longer all there" if found is None else "are others than were seen before"
        return f"the first {seen.size} events {what}"

    def advice(self) -> str:
        """What to do about an objection."""
        return (
            "An older or altered database stands where the ledger was: certificates and refusals "
            "since then are not on record. Restore what is missing; if that is impossible, look "
            f"into it, write down why, then remove {self.file}."
        )

    def remember(self) -> int:
        """Note the head as it is now; return its size. Call it only without an objection.

        A home that cannot be written only costs the next comparison.
        """
        head = self._record.head()
        written = self.file.with_suffix(f".{os.getpid()}")
        with suppress(OSError):
            written.write_text(f"{head.size} {head.root.hex()}\n", "ascii")
            written.replace(self.file)
        return head.size


def _parse(text: str) -> Seen:
    size, root = text.split()
    seen = Seen(int(size), bytes.fromhex(root))
    if seen.size < 0 or len(seen.root) != 32:
        raise ValueError("not a tree head")
    return seen
