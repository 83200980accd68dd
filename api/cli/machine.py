"""The commands that act on this machine: init, up, serve, migrate, doctor. They call no REST.

What is made, started and checked stands in `api/init.py`, `api/wiring.py` and `api/doctor.py`; here
are the words, the paths that are printed, and the exit codes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from api.cli import output
from api.cli.exits import CommandError, Exit
from api.cli.progress import shown

if TYPE_CHECKING:
    from api.init import Initialised


_FILE: Final = click.Path(path_type=Path, dir_okay=False)
_DIRECTORY: Final = click.Path(path_type=Path, file_okay=False)


@contextmanager
def explained() -> Iterator[None]:
    """Turn what the rooms below say into an error with an exit code."""
    from api.settings import SettingsError
    from api.tables import OtherReleaseError
    from api.wiring import LostHistoryError, WiringError
    from ca.authority import AuthorityFilesError
    from migrations.embedded import EmbeddedError
    from migrations.runner import MigrationError
    from projections.rebuild import RebuildError

    ends: dict[type[Exception], tuple[Exit, str]] = {
        SettingsError: (Exit.INVALID, "A setting cannot be used"),
        EmbeddedError: (Exit.UNREACHABLE, "The private PostgreSQL cannot be had"),
        MigrationError: (Exit.REFUSED, "The schema does not fit"),
        OtherReleaseError: (Exit.REFUSED, "The tables do not fit"),
        RebuildError: (
            Exit.REFUSED, "The tables were not rebuilt; the live ones are as they were",
        ),
        LostHistoryError: (Exit.INTEGRITY, "The ledger has lost history"),
        WiringError: (Exit.REFUSED, "This installation does not fit"),
        AuthorityFilesError: (Exit.REFUSED, "This installation does not fit"),
        OSError: (Exit.UNREACHABLE, "This machine said no"),
    }  # fmt: skip
    try:
        yield
    except tuple(ends) as error:
        code, title = next(ends[kind] for kind in type(error).__mro__ if kind in ends)
        raise CommandError(code, title, str(error)) from error


@click.command("init")
@click.option("--ca", type=click.Choice(["local", "step-ca"]), help="What signs certificates.")
@click.option("--ca-url", metavar="URL", help="Of the step-ca.")
@click.option("--root-fingerprint", metavar="HEX", help="SHA-256 of the step-ca's root.")
@click.option("--ca-files", type=_DIRECTORY, help="The folder for-ledger of `ca init-step-ca`.")
@click.option("--ca-password-file", type=_FILE,
              help="The provisioner's password, to stay where it is; else a copy is kept.")  # fmt: skip
def init(
    ca: str | None,
    ca_url: str | None,
    root_fingerprint: str | None,
    ca_files: Path | None,
    ca_password_file: Path | None,
) -> None:
    """Create a ledger: database, keys, authority, and the first two operators.

    Prints where their tokens are, never the tokens. Run again it finishes what was interrupted,
    and changes nothing that is there. With --ca step-ca it connects to a step-ca that exists,
    also for a ledger that has another authority: from then on new certificates come from there.
    """
    from api.init import initialise
    from api.settings import load

    with explained():
        settings = load(
            ca=ca, ca_url=ca_url, ca_root_fingerprint=root_fingerprint, ca_files=ca_files,
            ca_password_file=ca_password_file,
        )  # fmt: skip
        with shown() as tell:
            made = initialise(settings, tell=tell)
    _tell(made)


_LISTENING: Final = (
    click.option("--host", help="Address to listen on; loopback unless behind a proxy."),
    click.option("--port", type=click.IntRange(0, 65535), help="0 lets the system choose."),
    click.option(
        "--behind-proxy",
        is_flag=True,
        default=None,
        help="A proxy ends TLS in front, so other addresses than loopback may be bound.",
    ),
)


def _listening(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_LISTENING):
        command = option(command)
    return command


@click.command("up")
@_listening
def up(host: str | None, port: int | None, behind_proxy: bool | None) -> None:
    """Create what is missing, migrate, and serve: the one command to begin with."""
    from api.init import initialise
    from api.settings import load
    from api.wiring import serve as serve_ledger

    with explained():
        settings = load(host=host, port=port, behind_proxy=behind_proxy)
        # With the serving role's DSN alone nothing can be created: then it serves what is there.
        if settings.embedded or settings.owner_dsn is not None:
            with shown() as tell:
                made = initialise(settings, tell=tell)
            if made.made or made.adopted:
                _tell(made)
        serve_ledger(settings, output.note)


@click.command("serve")
@_listening
def serve(host: str | None, port: int | None, behind_proxy: bool | None) -> None:
    """Serve an existing ledger until SIGTERM; never creates or migrates anything."""
    from api.settings import load
    from api.wiring import serve as serve_ledger

    with explained():
        serve_ledger(load(host=host, port=port, behind_proxy=behind_proxy), output.note)


@click.command("migrate")
def migrate() -> None:
    """Bring the database up to this release; with an embedded database, its own.

    After the schema the tables made from the events: those of an older release are built anew, those
    that are filled after the commit are brought up to the last event. That takes minutes for a
    million events. It may be interrupted and run again.
    """
    from api.init import migrate as bring_up_to_date
    from api.settings import load
    from api.wiring import database

    with explained(), database(load()) as dsns, shown() as tell:
        applied = bring_up_to_date(dsns, tell)
    for name in applied:
        output.note(f"applied {name}")
    output.note("the schema is up to date")


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="The checks as JSON, for programs.")
@click.option(
    "--all", "whole", is_flag=True,
    help="Look at every event of a large ledger, too: about two minutes a million.",
)  # fmt: skip
def doctor(as_json: bool, whole: bool) -> int:
    """Check this installation and its record, and say what to do about each finding.

    Ends with 0 when all is well, 1 with warnings, 2 when something is wrong.
    """
    from api.doctor import EXIT, examine, worst
    from api.settings import load
    from api.wiring import system_clock

    with explained():
        checks = examine(load(), system_clock, whole=whole)
    status = worst(checks)
    rows = [{"id": c.id, "status": c.status, "detail": c.detail, "hint": c.hint} for c in checks]
    if as_json:
        output.show_json({"status": status, "checks": rows})
    else:
        output.show_table(rows, ("id", "status", "detail"))
        for row in rows:
            if row["hint"]:
                output.note(f"{row['id']}: {row['hint']}")
    return EXIT[status]


def _tell(made: "Initialised") -> None:
    """Say on stdout where things are, and on stderr what to do with them."""
    output.show_pairs(
        [
            ("origin", made.origin),
            ("home", str(made.home)),
            ("authority", f"{made.authority_kind} {made.authority_id}"),
            ("log key", made.log_key),
            *((f"{role}'s token", str(path)) for role, path in made.tokens.items()),
        ]
    )
    if made.adopted:
        output.note(
            "New certificates come from this authority; a running service needs no restart."
        )
        return
    if not made.made:
        output.note("All of it was there before; nothing was changed.")
        return
    output.note(
        f"{made.tokens['approver']} belongs in other hands: give it to the second person and "
        "remove it here. Whoever holds both tokens approves his own grants."
    )
