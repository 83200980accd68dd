"""How the command line shows things: tables and records for people, JSON for programs.

It fetches nothing and decides nothing. `rich` is loaded only for a terminal (it costs 60 ms); a
pipe gets the same words in plain columns. What came from a server is shown without its control
characters: a peer must not be able to write escape sequences on an admin's terminal.
"""

import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TextIO

_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)
_GAP: Final = "  "
_STYLES: Final = {
    "active": "green",
    "issued": "green",
    "good": "green",
    "ok": "green",
    "pending": "yellow",
    "pending_approval": "yellow",
    "pending_enrollment": "yellow",
    "suspended": "yellow",
    "warn": "yellow",
    "revoked": "red",
    "rejected": "red",
    "expired": "red",
    "fail": "red",
}


def when(text: str) -> str:
    """Return an RFC 3339 time in the reader's zone, to the second, with the zone's offset.

    Anything else comes back as it is.
    """
    if not _TIME.fullmatch(text):
        return text
    try:
        local = datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        return text
    offset = local.strftime("%z")
    zone = "UTC" if offset == "+0000" else f"{offset[:3]}:{offset[3:]}"
    return f"{local:%Y-%m-%d %H:%M:%S} {zone}"


def terminal_width() -> int | None:
    """How wide the terminal is that stdout goes to; None when it goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def safe(text: str) -> str:
    """Return the text with every unprintable character but the line feed made visible."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def words(value: object) -> str:
    """Return a JSON value as a person would write it in a table cell; never more than needed."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return safe(when(value))
    if isinstance(value, Mapping):
        return ", ".join(f"{safe(str(k))}: {words(v)}" for k, v in value.items()) or "-"
    if isinstance(value, Sequence):
        return ", ".join(map(words, value)) or "-"
    return str(value)


def show_json(document: object) -> None:
    """Write one JSON document and a line feed on stdout."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def show_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write rows on stdout, one line each, with the columns named; nothing found is said."""
    if not rows:
        note("nothing found")
        return
    heads = [column.rpartition(".")[2].replace("_", " ") for column in columns]
    cells = [[words(_pick(row, column)) for column in columns] for row in rows]
    if sys.stdout.isatty():
        _rich_table(heads, cells)
    else:
        _plain_table(heads, cells)


def show_record(document: Mapping[str, Any]) -> None:
    """Write one thing on stdout, a line per field."""
    show_pairs([(key.replace("_", " "), words(value)) for key, value in document.items()])


def show_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    """Write `name  value` lines on stdout, the values aligned, further lines indented."""
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        first, *more = value.split("\n")
        sys.stdout.write(f"{name:<{width}}{_GAP}{first}\n")
        for line in more:
            sys.stdout.write(f"{'':<{width}}{_GAP}{line}\n")


def note(text: str, *, mark: str = "", colour: str = "") -> None:
    """Write a line for people on stderr: progress, paths, the next step. Data goes to stdout."""
    if mark and colour and sys.stderr.isatty():
        _rich_line(sys.stderr, mark, colour, text)
    else:
        sys.stderr.write(f"{mark} {text}\n" if mark else f"{text}\n")
    sys.stderr.flush()


def _pick(row: Mapping[str, Any], path: str) -> object:
    value: object = row
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _plain_table(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    # One line each: a text that goes on behind a line feed must not pass for a row.
    shown = ([cell.replace("\n", "\\n") for cell in row] for row in cells)
    lines = [[head.upper() for head in heads], *shown]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    for line in lines:
        padded = (f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True))
        sys.stdout.write(_GAP.join(padded).rstrip() + "\n")


def _rich_table(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for head in heads:
        # An id cut by the terminal's width is of no use: fold it onto the next line instead.
        table.add_column(head.upper(), overflow="fold")
    for line in cells:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in line))
    Console(highlight=False).print(table)  # honours NO_COLOR and TERM=dumb itself


def _rich_line(stream: TextIO, mark: str, colour: str, text: str) -> None:
    from rich.console import Console
    from rich.text import Text

    line = Text.assemble((mark, colour), " ", text)
    Console(file=stream, highlight=False).print(line, soft_wrap=True)
