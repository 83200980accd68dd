"""`fedledger audit export` and `audit verify-export`: events in a file, and whether it is right.

An export is checked line by line as it arrives, and stands under its name only when it is whole.
`verify-export` needs the file and the log's verifier key: no service, no database.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import click

from api.cli.exits import CommandError, Exit
from api.cli.output import note, show_json, show_pairs
from api.cli.progress import shown
from api.cli.verbs import connection_options, options, taken
from api.exports import ExportConditions
from api.operations import BY_NAME

if TYPE_CHECKING:
    from ledger.export_reading import ExportReader, Verified
    from ledger.exports import Manifest
    from ledger.tlog.note import VerifierKey

_READ: Final = 1024 * 1024  # bytes


class _Arriving:
    """What comes over the network, read by lines, each kept in a file as it is read."""

    def __init__(self, chunks: Iterator[bytes], kept: BinaryIO) -> None:
        self._chunks = chunks
        self._kept = kept
        self._buffer = b""
        self._place = 0

    def readline(self, limit: int = -1) -> bytes:
        """The next line with its end, or what is left, at most `limit` bytes."""
        parts: list[bytes] = []
        length = 0
        while True:
            end = self._buffer.find(b"\n", self._place)
            found = self._buffer[self._place : end + 1 or None]
            parts.append(found)
            length += len(found)
            self._place += len(found)
            if end >= 0 or length > limit >= 0 or not self._more():
                break
        line = b"".join(parts)
        self._kept.write(line)
        return line

    def read(self, size: int = -1) -> bytes:
        """One byte or more of what is left; none at the end."""
        if self._place >= len(self._buffer) and not self._more():
            return b""
        found = self._buffer[self._place :]
        self._place = len(self._buffer)
        return found

    def _more(self) -> bool:
        self._buffer, self._place = next(self._chunks, b""), 0
        return bool(self._buffer)


def _export(**values: Any) -> int:
    from api.cli.client import connect

    out: Path = values["out"]
    if out.exists():
        raise click.UsageError(f"{out} exists; nothing is overwritten")
    given = {name: value for name, value in values.items() if value is not None}
    query = taken(ExportConditions, given)
    path = BY_NAME["event.export"].url()
    with (
        connect(values["url"], values["token_file"]) as client,
        client.download(path, query) as (headers, chunks),
        _new(out) as file,
    ):
        total = int(headers.get("ledger-position", "0"))
        manifest = _received(_Arriving(chunks, file), total)
    _say(_told(manifest, out), as_json=values["json"])
    note("who has the log's verifier key can check it: fedledger audit verify-export")
    return int(Exit.OK)


def _received(arriving: Any, total: int) -> "Manifest":
    from ledger.export_reading import ExportReader
    from ledger.exports import ExportError

    try:
        reader = ExportReader(arriving)
        with shown() as tell:
            for event in reader.events():
                tell("exporting", event.position, total)
        return reader.manifest
    except ExportError as error:
        raise CommandError(
            Exit.INTEGRITY,
            "the export that came is not right",
            f"{error}. Nothing was kept.",
            "Try again; if it comes wrong again, run `fedledger doctor` on the server.",
        ) from error


@contextmanager
def _new(path: Path) -> Iterator[BinaryIO]:
    """A private file that gets its name when everything in it is right, and vanishes otherwise."""
    beside = path.with_name(f".{path.name}.unfinished")
    try:
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb", buffering=_READ) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.link(beside, path)  # unlike a rename it takes nothing's place
    except OSError as error:
        raise CommandError(Exit.INVALID, f"cannot write {path}", str(error)) from error
    finally:
        beside.unlink(missing_ok=True)


def _told(manifest: "Manifest", file: Path) -> dict[str, Any]:
    from ledger.canonical import format_time

    return {
        "file": str(file),
        "origin": manifest.origin,
        "filter": dict(manifest.filter) if manifest.filter else "none",
        "positions": f"{manifest.first} to {manifest.last}",
        "count": manifest.count,
        "sha256": manifest.sha256,
        "tree_size": manifest.tree_size,
        "tree_root": manifest.tree_root.hex(),
        "record": manifest.record or "not recorded",
        "made_at": format_time(manifest.made_at),
    }


def _verify(**values: Any) -> int:
    verified = checked(values["file"], values["log_key"])
    _say(
        {
            **_told(verified.manifest, values["file"]),
            "signed_by": ", ".join(verified.signers),
            "shown": _shown_by(verified),
        },
        as_json=values["json"],
    )
    return int(Exit.OK)


def checked(path: Path, log_keys: Sequence[str]) -> "Verified":
    """Read a whole export, and check who signed it.

    `log_keys`: verifier keys to trust; if none, that of the ledger on this machine. Raises CommandError.
    """
    from ledger.export_reading import ExportReader
    from ledger.exports import ExportError

    try:
        with path.open("rb", buffering=_READ) as file:
            reader = ExportReader(file)
            size = path.stat().st_size
            with shown() as tell:
                for done, _ in enumerate(reader.events(), 1):
                    # How many there are stands on the last line: until then by size.
                    if done % 1000 == 0:
                        tell("checking", done, done * size // file.tell())
            return reader.verify(_keys(reader, log_keys))
    except ExportError as error:
        raise CommandError(
            Exit.INTEGRITY, "this export is not right", str(error), "Do not rely on it."
        ) from error
    except OSError as error:
        raise CommandError(Exit.INVALID, f"cannot read {path}", str(error)) from error


def _shown_by(verified: "Verified") -> str:
    if verified.root_shown:
        return "the whole ledger, to its root"
    if verified.manifest.selective:
        return "these events, unaltered; that none is missing is the signer's word"
    return "these events, unaltered, and none of these positions is missing"


def _say(told: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(told)
    else:
        show_pairs([(name.replace("_", " "), str(value)) for name, value in told.items()])


def _keys(reader: "ExportReader", given: Sequence[str]) -> "list[VerifierKey]":
    """The keys to trust: those given, else the one of the ledger on this machine."""
    from api.log_key import LOG_KEY, LogKey
    from api.settings import load
    from ledger.errors import UnavailableError
    from ledger.tlog.note import NoteError, parse_verifier_key

    try:
        if given:
            return [parse_verifier_key(text) for text in given]
        return [LogKey(load().home / LOG_KEY).verifier(reader.manifest.origin)]
    except NoteError as error:
        raise CommandError(Exit.INVALID, "a log key cannot be used", str(error)) from error
    except UnavailableError:
        raise CommandError(
            Exit.INVALID,
            "no log key to check the signature with",
            "No ledger on this machine is named as this export's.",
            "Give --log-key; `fedledger init` printed it, and the first event has it.",
        ) from None


def _out() -> click.Option:
    return click.Option(
        ["--out"], type=click.Path(path_type=Path, dir_okay=False), required=True,
        help="A new file for the events and their manifest (0600).",
    )  # fmt: skip


export: Final = click.Command(
    "export",
    params=[_out(), *options(ExportConditions), *connection_options()],
    help="Take events out of the ledger, with a signed manifest.\n\nEvery line is checked as it "
    "comes; a file that is there is whole.",
    callback=_export,
)
verify_export: Final = click.Command(
    "verify-export",
    params=[
        click.Argument(["file"], type=click.Path(path_type=Path, dir_okay=False)),
        click.Option(
            ["--log-key"], multiple=True,
            help="The log's verifier key, <origin>+<hash>+<base64>; an old one, too, after a "
            "rotation. By default that of the ledger on this machine.",
        ),
        click.Option(["--json"], is_flag=True, help="The findings as JSON, for programs."),
    ],
    help="Check an export: every leaf, the digest, the root, the signature.\n\nNeeds no service "
    "and no database. Exit code 6 if anything is wrong.",
    callback=_verify,
)  # fmt: skip
