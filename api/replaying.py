"""Replays history into a throw-away place: reads the events, lets them be folded, puts the rows away.

What an event leads to is `projections/replay.py`'s, which can reach nothing; here is what it is fed with
and where its rows go: files, or a schema of its own. The live tables are neither read nor written.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from uuid import UUID

import psycopg

from ledger.canonical import MAX_INTEGER
from ledger.database import Reads, conninfo
from ledger.export_reading import ExportReader, manifest_of
from ledger.exports import ExportError, Manifest
from ledger.mapper import StoredEventError
from ledger.record import Record
from ledger.recorded import RecordedEvent
from ledger.streams import FIRST, LAST, all_streams, these_streams
from projections.beside import ThrowAway
from projections.filling import Filling, UnfoldableError
from projections.registry import INLINE
from projections.replay import (
    Folded,
    FoldError,
    Folds,
    StateDigest,
    Tables,
    fold,
    line_of,
    sort_key,
)
from projections.sorting import SortedLines
from projections.sources import Present
from projections.what_if import Alteration, Difference, Placed, WhatIfError, what_if

Tell = Callable[[str, int, int], object]
_TOLD_EVERY: Final = 1000
_CHUNK: Final = 50_000  # events


class ReplayError(Exception):
    """Nothing was replayed, and nothing is left over; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of it. `digest`: of the state, SHA-256 in hex; `rows`: how many, by table."""

    position: int
    events: int
    digest: str
    rows: dict[str, int]


@dataclass(frozen=True, slots=True)
class Past:
    """Which past: up to a position, or a moment, or all; of some streams or of all."""

    position: int | None = None
    moment: datetime | None = None
    streams: Sequence[UUID] = ()


def from_database(dsn: str, past: Past, out: Path | None, tell: Tell) -> Replayed:
    """Replay from the database (the service role's DSN), stream by stream: memory stays flat.

    `out`: a folder to be made with a file per table; None: for the digest alone.

    Raises:
        ReplayError, psycopg.Error.
    """
    position = position_of(dsn, past)
    with psycopg.connect(conninfo(dsn)) as connection:
        connection.read_only = True
        found = (
            these_streams(connection, past.streams, upto=position)
            if past.streams
            else all_streams(connection, upto=position)
        )
        with closing(found) as streams:
            states = (state for stream in streams if (state := fold(stream.events())))
            return _put_away(_told(states, position, tell), position, out)


def from_export(path: Path, past: Past, out: Path | None, tell: Tell) -> Replayed:
    """Replay from an export of the whole ledger, checked as it is read. Memory holds all states.

    Raises:
        ReplayError: it is damaged, or holds a part of the ledger only.
    """
    folds, last, count = Folds(), 0, 0
    try:
        for count, one in enumerate(_exported(path, past), 1):
            last = one.position
            if not past.streams or one.stream_id in past.streams:
                folds.take(one.event)
            if count % _TOLD_EVERY == 0:
                tell("reading the export", count, count)
    except (ExportError, FoldError, StoredEventError) as error:
        raise ReplayError(f"{path}: {error}") from error
    return _put_away(folds, last, out)


def _exported(path: Path, past: Past) -> Iterator[RecordedEvent]:
    """Every event of that past, from an export that holds all of it.

    Raises:
        ReplayError: it holds a part of the ledger only, ends before, or has no such stream.
        ExportError: it is none, or damaged.
    """
    unseen, latest = set(past.streams), None
    with path.open("rb") as file:
        _refuse_a_part(path, manifest_of(file), past)
        for one in ExportReader(file).events():
            unseen.discard(one.stream_id)
            latest = one.recorded_at
            # What is behind is read all the same: only a whole file is known to be right.
            if _before(past, one.position, one.recorded_at):
                yield one
    if past.moment is not None and (latest is None or past.moment > latest):
        raise ReplayError(f"{path} ends before that moment; what was recorded then is not in it")
    _refuse_unknown(unseen)


def _refuse_a_part(path: Path, manifest: Manifest, past: Past) -> None:
    if manifest.selective or manifest.first > 1:
        raise ReplayError(
            f"{path} holds a part of the ledger; a state follows from all of it only: "
            "export it without conditions"
        )
    if past.position is not None and past.position > manifest.last:
        raise ReplayError(f"{path} ends at position {manifest.last}")


def _refuse_unknown(streams: Iterable[UUID]) -> None:
    if unknown := ", ".join(map(str, streams)):
        raise ReplayError(f"there is no stream {unknown}")


def into_schema(owner_dsn: str, past: Past, schema: str, tell: Tell) -> None:
    """Fill tables in a new schema with the state of that past, in one transaction.

    Raises:
        ReplayError: the schema exists.
    """
    source = Present(INLINE)
    position = position_of(owner_dsn, past)
    done = 0

    def flushed(last: UUID, events: int, rows: int) -> None:
        nonlocal done
        done += events
        tell("copying", done, position)

    options = conninfo(owner_dsn, "-c timezone=UTC")
    with psycopg.connect(options) as writing, psycopg.connect(options) as reading:
        place = ThrowAway(writing, schema)
        try:
            place.make([table.table for table in source.tables])
            filling = Filling(reading, writing, source, place)
            if past.streams:
                filling.catch_up(past.streams, position)
            else:
                filling.copy(position, FIRST, LAST, _CHUNK, flushed)
        except psycopg.errors.DuplicateSchema:
            raise ReplayError(f"the schema {schema} exists; name another, or drop it") from None
        except UnfoldableError as error:
            raise ReplayError(f"{error}; run fedledger doctor --all") from error


def differing(
    dsn: str | None, export: Path | None, past: Past, alteration: Alteration, tell: Tell
) -> Difference:
    """Tell what would be different in that past. Memory holds all states.

    Raises:
        ReplayError: the alteration makes no sense there; the export is damaged.
    """
    try:
        if export is not None:
            return what_if(_placed(_exported(export, past), past, 0, tell), alteration)
        reads = Reads(dsn or "", 1)
        try:
            record = Record(reads)
            return what_if(_placed(record.all(), past, record.head().size, tell), alteration)
        finally:
            reads.close()
    except (WhatIfError, ExportError) as error:
        raise ReplayError(str(error)) from error
    except (FoldError, StoredEventError) as error:
        raise ReplayError(f"{error}; run fedledger doctor --all") from error


def _placed(
    events: Iterable[RecordedEvent], past: Past, total: int, tell: Tell
) -> Iterator[Placed]:
    for one in events:
        if _before(past, one.position, one.recorded_at):
            yield Placed(one.position, one.recorded_at, one.event)
        if one.position % _TOLD_EVERY == 0 or one.position == total:
            tell("deciding again", one.position, max(total, one.position))


def position_of(dsn: str, past: Past) -> int:
    """The position up to which that past goes.

    Raises:
        ReplayError: it has not come yet, or one of its streams is none.
    """
    reads = Reads(dsn, 1)
    try:
        record = Record(reads)
        _refuse_unknown(one for one in past.streams if not record.stream(one, limit=1))
        size = record.head().size
        found = size if past.moment is None else record.position_at(past.moment)
    finally:
        reads.close()
    if past.position is None:
        return found
    if past.position > size:
        raise ReplayError(f"the ledger ends at position {size}")
    return past.position


def _before(past: Past, position: int, recorded_at: datetime) -> bool:
    limit = MAX_INTEGER if past.position is None else past.position
    return position <= limit and (past.moment is None or recorded_at <= past.moment)


def _told(states: Iterable[Folded], position: int, tell: Tell) -> Iterator[Folded]:
    events = 0
    for number, state in enumerate(states):
        events += state.events
        if number % _TOLD_EVERY == 0:
            tell("folding", events, position)
        yield state


def _put_away(states: Iterable[Folded], position: int, out: Path | None) -> Replayed:
    if out is not None and out.exists():
        raise ReplayError(f"{out} exists; nothing is overwritten")
    tables, events, digest = Tables(INLINE), 0, StateDigest()
    with _folder_beside(out) as folder:
        lines = {table.table: SortedLines(folder, f".{table.table}") for table in tables.all}
        try:
            for state in states:
                events += state.events
                for table, row in tables.rows(state):
                    lines[table.table].add(sort_key(table, row) + b"\t" + line_of(table, row))
        except (FoldError, StoredEventError) as error:
            raise ReplayError(f"{error}; run fedledger doctor --all") from error
        for table in tables.all:
            sorted_lines = (line.partition(b"\t")[2] for line in lines[table.table])
            with (folder / f"{table.table}.jsonl").open("wb") as file:
                digest.add(table, _written(file.write, sorted_lines))
        done = Replayed(position, events, digest.hex, digest.rows)
        if out is not None:
            _keep(folder, done, out)
    return done


def _written(write: Callable[[bytes], object], lines: Iterable[bytes]) -> Iterator[bytes]:
    for line in lines:
        write(line)
        yield line


@contextmanager
def _folder_beside(out: Path | None) -> Iterator[Path]:
    """A folder to work in, on the file system of `out`, gone at the end unless it was renamed."""
    if out is not None and not out.parent.is_dir():
        raise ReplayError(f"{out.parent} is no folder; make it first")
    folder = Path(tempfile.mkdtemp(prefix=".replay-", dir=out.parent if out else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _keep(folder: Path, done: Replayed, out: Path) -> None:
    """Let the folder appear under its name at once, whole."""
    for run in folder.glob(".*"):
        run.unlink()
    document = {
        "position": done.position,
        "events": done.events,
        "digest": done.digest,
        "rows": done.rows,
    }
    (folder / "state.json").write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")
    for path in (*folder.iterdir(), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    try:
        folder.rename(out)
    except OSError as error:
        raise ReplayError(f"{out} could not be made: {error.strerror}") from error
