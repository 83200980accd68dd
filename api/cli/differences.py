"""Shows what differs between two moments, for people: each thing, its members, the events."""

from collections.abc import Iterable, Mapping
from typing import Any

import click

from api.cli import timeline
from api.cli.output import note, safe, words


def show_diff(document: Mapping[str, Any]) -> None:
    """Print one page of `GET /v1/diff`, or all of them merged."""
    for line in lines(document["items"]):
        click.echo(line)
    if not document["items"]:
        note("nothing differs")
    if document.get("next"):
        note(f"there is more: --all, or --cursor {document['next']}")


def lines(items: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a headline per thing; then what was and is of each member; then what did it."""
    told: list[str] = []
    for item in items:
        told.append(f"{safe(item['kind'])} {safe(item['id'])} {safe(item['change'])}")
        appeared = item["change"] == "appeared"
        for name, value in item["fields"].items():
            if appeared and value["after"] is None:
                continue
            before = "" if appeared else f"{_told(name, value['before'])} -> "
            line = f"    {safe(name)}: {before}{_told(name, value['after'])}"
            told.append(line.replace("\n", "\n" + " " * 8))
        told += [f"    by #{event['position']} {safe(event['topic'])}" for event in item["events"]]
        if not item["events"]:
            told.append("    by the clock")
    return told


def _told(name: str, value: object) -> str:
    if name == "scope" and isinstance(value, Mapping):
        return timeline.scope_words(value)
    return words(value)
