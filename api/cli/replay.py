"""`fedledger replay`: history folded again into a throw-away place, or with something left out.

What is done stands in `api/replaying.py`; here are the words. It acts on the machine, and writes
nothing down but that it has read.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from api.cli import output
from api.cli.exits import CommandError, Exit, from_database
from api.cli.progress import shown
from api.cli.values import Place

if TYPE_CHECKING:
    from api.replaying import Past, Replayed

_SCHEMA = re.compile(r"(?!pg_|fedledger_|public$|as_of$|information_schema$)[a-z][a-z0-9_]{0,62}")


class _Past(click.ParamType["int | datetime"]):
    """A position, or a moment that has been."""

    name = Place.name

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> "int | datetime":
        if isinstance(value, int | datetime):
            return value
        text = Place().convert(value, param, ctx)
        if text.isdecimal():
            return int(text)
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            self.fail("give a position, or an RFC 3339 time as 2026-01-31T00:00:00Z")
        if moment.utcoffset() is None:
            self.fail("a time needs its zone, as 2026-01-31T00:00:00Z")
        if moment.timestamp() > time.time():
            # What is recorded by then changes until then: no two replays would be the same.
            self.fail("that moment has not been yet")
        return moment


class _Revocation(click.ParamType["tuple[UUID, datetime]"]):
    """`grant=ID@TIME`."""

    name = "grant=id@time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> "tuple[UUID, datetime]":
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"grant=([0-9a-f-]{36})@(.+)", str(value))
        moment = PAST.convert(match[2], param, ctx) if match else None
        if match is None or not isinstance(moment, datetime):
            self.fail("give it as grant=ID@TIME, with an RFC 3339 time")
        try:
            return UUID(match[1]), moment
        except ValueError:
            self.fail("the grant's id is a UUID")


PAST = _Past()
REVOCATION = _Revocation()
_SHOWN = 50  # lines for people


@click.command("replay")
@click.option(
    "--to",
    type=PAST,
    help="Up to there, a position or a time as 2026-01-31T00:00:00Z or -12h; all if absent.",
)
@click.option("--stream", "streams", type=UUID, multiple=True, help="Of this stream only.")
@click.option(
    "--out", type=click.Path(path_type=Path),
    help="A folder to make: a file per table, JSON lines sorted by key.",
)  # fmt: skip
@click.option(
    "--schema",
    help="A schema to make, with a table for each (needs the owner's DSN). It stays until "
    "its owner says DROP SCHEMA.",
)
@click.option(
    "--from-export", "export", type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="From an export of the whole ledger instead of the database, checked before.",
)  # fmt: skip
@click.option(
    "--log-key", "log_keys", multiple=True,
    help="The log's verifier key that must have signed the export; by default that of the ledger "
    "on this machine.",
)  # fmt: skip
@click.option(
    "--without", type=click.IntRange(min=1), metavar="POSITION",
    help="What if: without the command that recorded this event.",
)  # fmt: skip
@click.option(
    "--revoke", type=REVOCATION, metavar="grant=ID@TIME",
    help="What if: with this grant revoked at that time.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The answer as JSON, for programs.")
def replay(
    to: "int | datetime | None",
    streams: tuple[UUID, ...],
    out: Path | None,
    schema: str | None,
    export: Path | None,
    log_keys: tuple[str, ...],
    without: int | None,
    revoke: "tuple[UUID, datetime] | None",
    as_json: bool,
) -> None:
    """Fold history again, up to any point, into a throw-away place; print the state's digest.

    The same events give the same digest, and the same bytes in every file, on every machine.
    With --without or --revoke what follows is decided again by the rules, and what would not have
    been is printed instead. Reading the database is on record as every reading is; an export is
    refused, with exit code 6, unless all of it is as it was signed.
    """
    if log_keys and export is None:
        raise click.UsageError("--log-key goes with --from-export")
    if schema is not None and not _SCHEMA.fullmatch(schema):
        raise click.UsageError("--schema takes a name of a-z, 0-9 and _ that is nobody else's")
    if schema is not None and (export is not None or out is not None):
        raise click.UsageError("--schema goes with neither --from-export nor --out")
    if (without, revoke) != (None, None) and (
        (without is not None and revoke is not None) or out or schema or streams
    ):
        raise click.UsageError(
            "give one of --without and --revoke; only --to and --from-export go with it"
        )
    past = _past(to, streams)
    if export is not None:
        from api.cli.export import checked

        checked(export, log_keys)
    if (without, revoke) != (None, None):
        _what_if(past, export, without, revoke, as_json)
        return
    with explained():
        done = _replay(past, out, schema, export)
    if schema is not None:
        output.note(f"it stays until its owner says: DROP SCHEMA {schema} CASCADE")
    _show({name: getattr(done, name) for name in ("position", "events", "digest", "rows")}, as_json)


def _past(to: "int | datetime | None", streams: tuple[UUID, ...]) -> "Past":
    from api.replaying import Past

    return Past(
        position=to if isinstance(to, int) else None,
        moment=to if isinstance(to, datetime) else None,
        streams=streams,
    )


def _conditions(past: "Past") -> dict[str, object]:
    """As they stand on record."""
    return {
        "to": past.position or (past.moment and past.moment.isoformat()),
        "stream": " ".join(map(str, past.streams)),
    }


def _text(revoke: "tuple[UUID, datetime] | None") -> str | None:
    return f"grant={revoke[0]}@{revoke[1].isoformat()}" if revoke else None


def _show(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.show_json(document)
    else:
        output.show_record(document)


def _what_if(
    past: "Past",
    export: Path | None,
    without: int | None,
    revoke: "tuple[UUID, datetime] | None",
    as_json: bool,
) -> None:
    from api.local_readings import recorded
    from api.replaying import differing
    from api.settings import load
    from api.wiring import database
    from ledger.bodies import stored_json
    from projections.what_if import Revoked, Without

    alteration = Revoked(*revoke) if revoke else Without(without or 0)
    with explained(), shown() as tell:
        if export is not None:
            found = differing(None, export, past, alteration, tell)
        else:
            conditions = {**_conditions(past), "without": without, "revoke": _text(revoke)}
            with (
                database(load()) as dsns,
                recorded(dsns.service, "replay.what-if", conditions, tell, output.note) as tally,
            ):
                found = differing(dsns.service, None, past, alteration, tally)
    events = [
        {
            "position": one.position,
            "topic": one.topic,
            "stream": str(one.stream_id),
            "because": one.because,
            "instead": one.instead and stored_json(one.instead),
        }
        for one in found.events
    ]
    changed = [
        {
            "kind": c.kind,
            "id": c.id,
            "grant": str(c.grant_id),
            "actual": c.actual,
            "altered": c.altered,
        }
        for c in found.changed
    ]
    if as_json:
        output.show_json({"at": found.at.isoformat(), "events": events, "changed": changed})
        return
    click.echo("Would not have been, or not so:")
    output.show_table(events[:_SHOWN], ("position", "topic", "because", "stream"))
    click.echo("\nWould end up differently:")
    output.show_table(changed[:_SHOWN], ("kind", "id", "actual", "altered"))
    if max(len(events), len(changed)) > _SHOWN:
        output.note(f"{len(events)} events, {len(changed)} things in all; --json has every one")
    output.note("Accesses: none are recorded yet, so none are told.")


def _replay(past: "Past", out: Path | None, schema: str | None, export: Path | None) -> "Replayed":
    from api import replaying
    from api.local_readings import recorded
    from api.settings import load
    from api.wiring import WiringError, database

    with shown() as tell:
        if export is not None:
            return replaying.from_export(export, past, out, tell)
        conditions = {**_conditions(past), "schema": schema}
        with (
            database(load()) as dsns,
            recorded(dsns.service, "replay", conditions, tell, output.note) as tally,
        ):
            if schema is not None:
                if dsns.owner is None:
                    raise WiringError(
                        "FEDLEDGER_OWNER_DSN is missing: a schema is the owner's to make"
                    )
                replaying.into_schema(dsns.owner, past, schema, tally)
            done = replaying.from_database(dsns.service, past, out, tally)
            tally.count = done.events
            return done


@contextmanager
def explained() -> Iterator[None]:
    """Turn what the rooms below say into an error with an exit code."""
    import psycopg

    from api.cli.machine import explained as explained_machine
    from api.replaying import ReplayError

    try:
        with explained_machine():
            yield
    except ReplayError as error:
        raise CommandError(Exit.REFUSED, "Nothing was replayed", str(error)) from error
    except psycopg.Error as error:
        raise from_database(error) from error
