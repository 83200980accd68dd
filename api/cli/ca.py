"""`fedledger ca`: the authority that signs, shown and rotated on the machine that has its key.

The steps stand in `api/rotation.py`; here are the words. No verb here calls REST: who may rotate
is who has the home and the root's key.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from api.cli import output
from api.cli.exits import CommandError, Exit
from api.cli.reconcile import reconcile
from api.cli.step_ca import init_step_ca, rotate_step_ca

if TYPE_CHECKING:
    from datetime import datetime

    from api.rotation import Rotated

_JSON = click.option("--json", "as_json", is_flag=True, help="The answer as JSON, for programs.")
_COLUMNS = ("state", "folder", "not_after", "open", "last_end", "retired_at", "id")


@click.group("ca")
def ca() -> None:
    """The authority that signs certificates."""


ca.add_command(init_step_ca)
ca.add_command(rotate_step_ca)
ca.add_command(reconcile)


@ca.command("show")
@_JSON
def show(as_json: bool) -> None:
    """List the authorities: which one issues, when each ends, what is open with it.

    States: issuing · finishing (a later one took over, something is open) · retired · prepared
    (made, not yet in use) · elsewhere (its key is not in this home).
    """
    from api.rotation import survey
    from api.settings import load
    from api.wiring import database

    with _explained():
        settings = load()
        with database(settings) as dsns:
            found = survey(dsns.service, settings.home)
    rows = [
        {
            "id": one.id,
            "state": one.state,
            "folder": str(one.folder) if one.folder else None,
            "not_after": _time(one.not_after),
            "root_not_after": _time(one.root_not_after),
            "adopted_at": _time(one.adopted_at),
            "retired_at": _time(one.retired_at),
            "open": one.open,
            "last_end": _time(one.last_end),
        }
        for one in found
    ]
    if as_json:
        output.show_json({"items": rows})
    else:
        output.show_table(rows, _COLUMNS)


@ca.command("rotate")
@click.option(
    "--prepare", is_flag=True,
    help="Make the new key only, and put it to use with the next `ca rotate`: first copy its "
    "folder to the other machines that serve this ledger, or give a new root to the gateways.",
)  # fmt: skip
@click.option(
    "--root-key", type=click.Path(path_type=Path, dir_okay=False),
    help="The root's private key, if it was taken out of the home; it is read, not kept.",
)  # fmt: skip
@click.option("--new-root", is_flag=True, help="Under a new root, which every gateway must trust.")
@click.option("--reason", help="Why; recorded with it.")
@_JSON
def rotate(
    prepare: bool, root_key: Path | None, new_root: bool, reason: str | None, as_json: bool
) -> None:
    """Replace the key that signs certificates by a new one under the same root.

    Running services use it from the next order on, without a restart. What was begun with the old
    one is finished with it; then it is retired. Certificates it issued stay good to their end.
    Cut short, run it again: it goes on where it stopped.
    """
    from api.rotation import Wish
    from api.rotation import rotate as rotate_authority
    from api.settings import load
    from api.wiring import database, system_clock

    with _explained():
        settings = load()
        wish = Wish(prepare=prepare, new_root=new_root, root_key=root_key, reason=reason)
        with database(settings) as dsns:
            done = rotate_authority(dsns.service, settings.home, system_clock, wish)
    document = _document(done)
    if as_json:
        output.show_json(document)
    else:
        output.show_record(document)
    _tell(done)


def _document(done: "Rotated") -> dict[str, Any]:
    return {
        "state": done.state,
        "authority_id": done.authority_id,
        "folder": str(done.folder),
        "not_after": _time(done.not_after),
        "retired": list(done.retired),
        "waiting": dict(done.waiting),
    }


def _tell(done: "Rotated") -> None:
    if done.state == "prepared":
        output.note(
            f"Nothing is issued with it yet. Copy {done.folder} to the home of every other machine "
            "that serves this ledger; under a new root, give its root.pem to every gateway. Then "
            "run `fedledger ca rotate`."
        )
        return
    if done.state == "finished":
        output.note("An earlier rotation was finished; no new key was made.")
    else:
        output.note("New certificates are signed with the new key from now on; nothing restarts.")
    for old, count in done.waiting.items():
        output.note(
            f"{old} is not retired yet: {count} issuances are open with it. A running service "
            "closes them and retires it; `fedledger ca rotate` does so too."
        )
    output.note(
        "Back up the home now. Keep the old folders until `fedledger ca show` says that their last "
        "certificate has ended; then they may be removed, except the one with root.key."
    )


def _time(moment: "datetime | None") -> str | None:
    return moment.isoformat().replace("+00:00", "Z") if moment else None


@contextmanager
def _explained() -> Iterator[None]:
    import psycopg

    from api.cli.machine import explained
    from api.rotation import RotationError

    try:
        with explained():
            yield
    except RotationError as error:
        title = "The authority was not rotated"
        raise CommandError(Exit.REFUSED, title, str(error), error.hint) from error
    except psycopg.Error as error:
        raise CommandError(
            Exit.UNREACHABLE, "The database says no", str(error).strip(), "Run `fedledger doctor`."
        ) from error
