"""`fedledger projections`: the tables made from the events: how they stand, compared, rebuilt.

What is done stands in `projections/rebuild.py` and `projections/verify_tables.py`; here are the words
of the verbs that act on the machine. The noun itself stands with the others in `api/cli/nouns.py`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from api.cli import output
from api.cli.exits import Exit, from_database
from api.cli.progress import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ledger.audit import Violation
    from projections.rebuild import Rebuilt
    from projections.sources import Source

_JSON = click.option("--json", "as_json", is_flag=True, help="The answer as JSON, for programs.")
_ONLY = click.option(
    "--only", type=click.Choice(["present", "history", "words"]),
    help="The tables as they are now, as they were, or the index of words; all unless said.",
)  # fmt: skip
_COLUMNS = ("table", "source", "position", "rows", "rebuild.phase", "rebuild.share")
_SHOWN = 20  # differences told to people; JSON has them all


def show_projections(document: Mapping[str, Any]) -> None:
    """Show how the tables stand, for people."""
    output.show_table(document["items"], _COLUMNS)


@click.command("verify")
@_ONLY
@_JSON
def verify(only: str | None, as_json: bool) -> int:
    """Compare every table with a fresh fold of the events, row by row, while writes go on.

    Ends with 6 when there is a difference. That the record itself is right is what `fedledger doctor --all`
    says of it.
    """
    from api.settings import load
    from api.wiring import database
    from projections import words
    from projections.verify_tables import check_tables

    found: list[Violation] = []
    with _explained(), database(load()) as dsns, shown() as tell:
        counts = [0]  # all of them fold the same events
        for source in _sources(only):
            told = partial(tell, f"comparing {source.name}")
            counts.append(check_tables(dsns.service, source, found.append, told))
        if only in (None, words.SOURCE):
            telling = partial(tell, "comparing words")
            counts.append(words.check_words(dsns.service, found.append, telling))
    events = max(counts)
    if as_json:
        differences = [{"row": one.where, "difference": one.what} for one in found]
        output.show_json({"events": events, "differences": differences})
    else:
        for one in found[:_SHOWN]:
            click.echo(f"{one.where}: {one.what}")
        if len(found) > _SHOWN:
            click.echo(f"… and {len(found) - _SHOWN} more")
        click.echo(f"{len(found)} differences in {events} events folded")
    if found:
        # What the events say was taken as it stands: if somebody changed those, the tables may be
        # all that still tells what was, and folding them anew would cover it up.
        output.note(
            "Tables and events differ. Let `fedledger doctor --all` check the events first; only if "
            "they are as they were recorded, `fedledger projections rebuild` mends the tables."
        )
    return Exit.INTEGRITY if found else Exit.OK


@click.command("rebuild")
@_ONLY
@click.option(
    "--pause", type=click.IntRange(1, 60_000), default=100, show_default=True,
    help="Milliseconds for which readers and writers may have to wait for the swap.",
)  # fmt: skip
@click.option(
    "--processes", type=click.IntRange(1, 64),
    help="How many copy at once; unless said one a processor, four at most, for long histories.",
)  # fmt: skip
@click.option("--abort", "give_up", is_flag=True, help="Give up the rebuild that was begun.")
@_JSON
def rebuild(
    only: str | None, pause: int, processes: int | None, give_up: bool, as_json: bool
) -> None:
    """Build the tables anew from the events, beside the live ones, and swap them in.

    Services go on reading and writing. Needs the owner's DSN. Interrupted, run it again: it goes on
    where it stopped; `--abort` drops what was built. The index of words is emptied and filled again:
    until it is, looking for words reads the events themselves.
    """
    from api.settings import load
    from api.tables import NAMES, rebuild_all
    from api.wiring import WiringError, database
    from projections.rebuild import abort as abort_rebuild

    with _explained(), database(load()) as dsns:
        if dsns.owner is None:
            raise WiringError(
                "FEDLEDGER_OWNER_DSN is missing: it names the role that owns the tables"
            )
        if give_up:
            given_up = [one.name for one in _sources(only) if abort_rebuild(dsns.owner, one)]
            _say({"given_up": given_up}, as_json)
            return
        with shown() as tell:
            names = [only] if only else NAMES
            done = rebuild_all(dsns.owner, names, tell, pause=pause / 1000, processes=processes)
    _say({name: _document(one) for name, one in done.items()}, as_json)


def _sources(only: str | None) -> "Sequence[Source]":
    from projections.registry import SOURCES

    return [source for source in SOURCES if only in (None, source.name)]


def _document(done: "Rebuilt") -> dict[str, Any]:
    return {
        "position": done.position,
        "events": done.events,
        "rows": done.rows,
        "seconds": round(done.seconds, 3),
        "pause_milliseconds": round(done.pause * 1000, 1),
        "attempts": done.attempts,
        "resumed": done.resumed,
    }


def _say(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.show_json(document)
    else:
        output.show_record(document)


@contextmanager
def _explained() -> Iterator[None]:
    import psycopg

    from api.cli.machine import explained

    try:
        with explained():
            yield
    except psycopg.Error as error:
        raise from_database(error) from error
