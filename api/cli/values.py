"""Reads what people type: moments, durations, JSON from a file. It knows no command.

Everything is turned into the one form the REST interface takes; that judges the rest.
"""

import json
import re
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION: Final = re.compile(r"(\d{1,9})([smhdw]?)", re.ASCII)


def _seconds(text: str) -> int | None:
    match = _DURATION.fullmatch(text)
    return int(match[1]) * _UNITS[match[2] or "s"] if match else None


class Duration(click.ParamType[int]):
    """Seconds, or a number with s, m, h, d or w: `24h`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return seconds."""
        found = value if isinstance(value, int) else _seconds(value)
        return found if found is not None else self.fail("give seconds, or a duration as 24h or 7d")


class Moment(click.ParamType[str]):
    """An RFC 3339 time, or one as far from now: `+30d`, `-12h`."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return an RFC 3339 time; a written one goes to the ledger as it is."""
        text = str(value)
        ahead = _seconds(text[1:]) if text.startswith(("+", "-")) else None
        if ahead is None:
            if not re.match(r"\d{4}-", text):
                self.fail("give an RFC 3339 time (2026-12-31T00:00:00Z), +30d or -12h")
            return text
        way = -1 if text.startswith("-") else 1
        try:
            moment = datetime.fromtimestamp(time.time(), UTC) + timedelta(seconds=way * ahead)
        except OverflowError:
            self.fail("that is too far away")
        return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


class Place(Moment):
    """A position, or a moment as `Moment` reads it."""

    name = "position|time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return a position's digits, or an RFC 3339 time."""
        text = str(value)
        return text if text.isascii() and text.isdecimal() else super().convert(text, param, ctx)


class JsonInput(click.ParamType[Any]):
    """A file with a JSON value, `-` for stdin, or the JSON object itself."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the JSON value."""
        if not isinstance(value, str):
            return value
        try:
            return json.loads(self._text(value))
        except (OSError, UnicodeDecodeError) as error:
            self.fail(f"cannot be read: {error}")
        except ValueError as error:
            self.fail(f"is not JSON: {error}")

    @staticmethod
    def _text(value: str) -> str:
        if value.startswith("{"):
            return value
        return sys.stdin.read() if value == "-" else Path(value).read_text("utf-8")
