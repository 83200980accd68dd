"""`fedledger audit about` and `audit tail`: the story of an id, and the record as it grows.

What is asked and how it is told follows from the operation table and `api/cli/timeline.py`.
"""

import json
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from api.cli import timeline
from api.cli.exits import CommandError, Exit
from api.cli.output import note, show_pairs, terminal_width, words
from api.cli.verbs import Verb, connection_options, options, taken
from api.events import LONGEST_WAIT, Conditions
from api.operations import BY_NAME

if TYPE_CHECKING:
    from api.cli.client import Client

_PAGE: Final = "500"
_LONGEST_PAUSE: Final = 5.0  # seconds between two tries while the service is away


def about(verb: Verb) -> click.Command:
    """Return the verb made from its row; of a whole token only the accessor leaves this machine."""
    command = verb.command("about")
    send = command.callback
    if send is None:
        raise TypeError("a verb has a callback")

    def tell(**values: Any) -> Any:
        from ledger.bearer import parse

        token = parse(values["id"])
        if token is not None:
            note(f"that is a token: looking for its accessor {token.accessor}")
            values["id"] = token.accessor
        return send(**values)

    command.callback = tell
    return command


def show_about(document: Mapping[str, Any]) -> None:
    """Say what an id is and how it stands, then its story."""
    for thing in document.get("things", ()):
        status = words(thing["status"]) if thing["status"] else ""
        click.echo(f"{words(thing['kind'])} {words(thing['id'])} {status}".rstrip())
        told = {
            name: timeline.scope_words(value) if name == "scope" else words(value)
            for name, value in thing["facts"].items()
        }
        show_pairs([(f"  {name.replace('_', ' ')}", value) for name, value in told.items()])
        click.echo()
    for line in timeline.lines(document["items"], terminal_width()):
        click.echo(line)
    if document.get("next"):
        note(f"there is more: --all, or --cursor {document['next']}")


def _tail(**values: Any) -> int:
    from api.cli.client import connect

    given = {name: value for name, value in values.items() if value is not None}
    with connect(values["url"], values["token_file"]) as client:
        for event in _followed(client, taken(Conditions, given), values["lines"]):
            if values["json"]:
                click.echo(json.dumps(event, ensure_ascii=False, separators=(",", ":")))
            else:
                click.echo("\n".join(timeline.lines([event], terminal_width())))
    return int(Exit.OK)


def _followed(client: "Client", wanted: dict[str, str], lines: int) -> Iterator[Any]:
    """Yield the last events, then each new one; whatever happens to the service, none is left out.

    Raises:
        CommandError: the service refuses, which waiting does not change.
    """
    path = BY_NAME["event.list"].url()
    after = wanted.get("after")
    if after is None:
        newest = {**wanted, "newest_first": "true", "limit": str(max(1, lines))}
        answer = client.call("GET", path, query=newest)
        yield from reversed(answer.document["items"][:lines])
        after = answer.headers["ledger-position"]
    pause = 0.0
    while True:
        query = {**wanted, "after": after, "wait": str(LONGEST_WAIT), "limit": _PAGE}
        try:
            answer = client.call("GET", path, query=query)
        except CommandError as error:
            pause = _patience(error, pause)
            continue
        if pause:
            note("the service answers again")
        pause = 0.0
        items = answer.document["items"]
        yield from items
        # Without a next page everything up to the answer's position has been looked through.
        whole = answer.document["next"] is None
        after = answer.headers["ledger-position"] if whole else str(items[-1]["position"])


def _patience(error: CommandError, pause: float) -> float:
    """Wait before the next try; return how long the one after it would."""
    if error.exit is not Exit.UNREACHABLE:
        raise error
    if not pause:
        note(f"{error.title}; trying again until it answers (Ctrl-C ends this)")
    pause = min(_LONGEST_PAUSE, pause + 0.5)
    time.sleep(pause)
    return pause


tail: Final = click.Command(
    "tail",
    params=[
        *options(Conditions),
        click.Option(
            ["--lines"], type=click.IntRange(0, 500), default=10, show_default=True,
            help="Of what there is already; not with --after.",
        ),
        *connection_options(),
    ],
    help="Show events as they are recorded, until it is interrupted.\n\nA restart of the service "
    "is waited for and nothing is left out. --json writes one JSON object a line.",
    callback=_tail,
)  # fmt: skip
