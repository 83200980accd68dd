"""`fedledger ca reconcile`: what is open is closed, and a step-ca's log is held against the record.

The steps stand in `api/reconciliation.py`; here are the words. It calls no REST: it acts on the
machine that has the home.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from api.cli import output
from api.cli.exits import CommandError, Exit

if TYPE_CHECKING:
    from api.reconciliation import Log, Reconciled
    from ca.discovery import Unknown

_STDIN = Path("-")
_COLUMNS = ("serial", "new", "path", "when", "authority_id")


@click.command("reconcile")
@click.option(
    "--log", "logs", multiple=True, metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="A step-ca's JSON log; - is standard input. Repeat it.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The answer as JSON, for programs.")
def reconcile(logs: tuple[Path, ...], as_json: bool) -> None:
    """Close issuances left open by a crash or a time-out, and look for certificates nobody ordered.

    Issuances open for a minute are driven on with their recorded serial, and revocations the
    authority has not heard of are told; a running service does both by itself. Every certificate
    in the logs that the ledger never authorized is put on record with an alarm, once; then the
    command ends with 6. It may be run as often as you like.
    """
    from api.reconciliation import reconcile as reconcile_home
    from api.settings import load
    from api.wiring import database, system_clock

    with _explained(), ExitStack() as stack:
        settings = load()
        named = [_opened(stack, path) for path in logs]
        dsns = stack.enter_context(database(settings))
        found = reconcile_home(dsns.service, settings.home, system_clock, named)
    _show(found, as_json=as_json)
    if any(one.new for one in found.unknown):
        raise CommandError(
            Exit.INTEGRITY,
            "Certificates were signed that this ledger never authorized",
            "They open nothing here: what is not on record is refused. But somebody has the "
            "provisioner's key.",
            "Replace it: `fedledger ca rotate-step-ca`. See `fedledger alarm list`.",
        )


def _opened(stack: ExitStack, path: Path) -> "Log":
    if path == _STDIN:
        return "standard input", sys.stdin
    return path.name, stack.enter_context(path.open(encoding="utf-8", errors="replace"))


def _show(found: "Reconciled", *, as_json: bool) -> None:
    rows = [_row(one) for one in found.unknown]
    document = {"ran": found.ran, "done": dict(found.done), "log": dict(found.seen)}
    if as_json:
        output.show_json({**document, "unknown": rows})
        return
    if not found.ran:
        output.note("A running service is reconciling just now; what is open is its business.")
    output.show_record({**found.done, **{f"log {name}": n for name, n in found.seen.items()}})
    if rows:
        output.show_table(rows, _COLUMNS)


def _row(unknown: "Unknown") -> dict[str, Any]:
    return {
        "serial": unknown.signed.serial,
        "authority_id": str(unknown.authority_id),
        "when": unknown.signed.when,
        "path": unknown.signed.path,
        "new": unknown.new,
    }


@contextmanager
def _explained() -> Iterator[None]:
    import psycopg

    from api.cli.machine import explained

    try:
        with explained():
            yield
    except psycopg.Error as error:
        raise CommandError(
            Exit.UNREACHABLE, "The database says no", str(error).strip(), "Run `fedledger doctor`."
        ) from error
    except OSError as error:
        raise CommandError(
            Exit.INVALID, "A log cannot be read", str(error), "Check its path and rights."
        ) from error
