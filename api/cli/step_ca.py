"""`fedledger ca init-step-ca` and `rotate-step-ca`: what a step-ca needs, without the step CLI.

The steps stand in `ca/step_ca_setup.py` and `ca/step_ca_rotation.py`; here are the words. They act
on a directory of this machine and touch no ledger.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from api.cli import output
from api.cli.exits import CommandError, Exit

if TYPE_CHECKING:
    from ca.step_ca_setup import SetUp

_FILE = click.Path(path_type=Path, dir_okay=False)
_DIRECTORY = click.Path(path_type=Path, file_okay=False)
_WHAT = ("password", "provisioner-password", "provisioner-key")
_NEXT = {
    "password": "The server needs the new password at its next start; it goes on until then.",
    "provisioner-password": "Whoever has a copy of the key in another folder rotates that one too.",
    "provisioner-key": "Let the server read ca.json anew (SIGHUP), then run `fedledger init "
    "--ca step-ca` with for-ledger: until both are done, certificates are refused.",
}


@click.command("init-step-ca")
@click.argument("directory", metavar="DIR", type=_DIRECTORY)
@click.option("--name", default="Mosaic federation", show_default=True,
              help="What the names of new CA certificates begin with.")  # fmt: skip
@click.option("--dns", "names", multiple=True, metavar="NAME",
              help="What clients call the server; repeat it.  [default: localhost, 127.0.0.1]")  # fmt: skip
@click.option("--address", help="What the server listens on.  [default: :9000]")
@click.option("--arc", help="Of the two extensions.  [default: 1.3.6.1.4.1.99999]")
@click.option("--password-file", type=_FILE, help="The CA's password; one is made if not given.")
@click.option("--provisioner-password-file", type=_FILE,
              help="The provisioner's; another than the CA's.")  # fmt: skip
@click.option("--seen-as", type=_DIRECTORY, help="DIR as the server sees it, if elsewhere.")
@click.option("--json", "as_json", is_flag=True, help="The answer as JSON, for programs.")
def init_step_ca(
    directory: Path,
    name: str,
    names: tuple[str, ...],
    address: str | None,
    arc: str | None,
    password_file: Path | None,
    provisioner_password_file: Path | None,
    seen_as: Path | None,
    as_json: bool,
) -> None:
    """Make root, intermediate, provisioner, template and ca.json of a step-ca in DIR.

    Run again, after an upgrade or an interruption, it brings template, claims and what is missing
    up to date; it never replaces a key or a password. Run it as the user that step-ca runs as.
    """
    from api.wiring import system_clock
    from ca.step_ca_setup import Wish, set_up

    wish = Wish(
        name, names or None, address, arc, password_file, provisioner_password_file, seen_as
    )
    with explained():
        made = set_up(directory.absolute(), wish, system_clock())
    if as_json:
        output.show_json(_document(made))
    else:
        output.show_record(_document(made))
    _tell(made)


@click.command("rotate-step-ca")
@click.argument("directory", metavar="DIR", type=_DIRECTORY)
@click.argument("what", type=click.Choice(_WHAT))
@click.option("--password-file", type=_FILE, help="The current password, if it is not in DIR.")
@click.option("--new-password-file", type=_FILE, help="The new one; one is made if not given.")
def rotate_step_ca(
    directory: Path, what: str, password_file: Path | None, new_password_file: Path | None
) -> None:
    """Replace the CA's password, or the provisioner's password or key, of a step-ca in DIR.

    Cut short, run it again: it goes on where it stopped. For the provisioner's password DIR may
    also be the authority's folder in a ledger's home. Run it as the user that owns DIR.
    """
    from ca import step_ca_rotation as rotation

    directory = directory.absolute()
    passwords = rotation.Passwords(password_file, new_password_file)
    with explained():
        if what == "password":
            done = rotation.rotate_ca_password(directory, passwords)
        elif what == "provisioner-password":
            done = rotation.rotate_provisioner_password(_keeper(directory), passwords)
        else:
            done = rotation.rotate_provisioner_key(directory, new_password_file)
    for line in done:
        output.note(line)
    output.note(_NEXT[what])


def _keeper(directory: Path) -> Path:
    """The folder that has the provisioner's key."""
    from ca.step_ca_files import FOR_LEDGER

    inside = directory / FOR_LEDGER
    return inside if inside.exists() else directory


@contextmanager
def explained() -> Iterator[None]:
    """Turn what the room below says into an error with an exit code."""
    from ca.step_ca_files import SetUpError

    try:
        yield
    except SetUpError as error:
        raise CommandError(Exit.REFUSED, "The step-ca was not set up", str(error)) from error
    except OSError as error:
        raise CommandError(Exit.UNREACHABLE, "This machine said no", str(error)) from error


def _document(made: "SetUp") -> dict[str, object]:
    return {
        "config": str(made.config),
        "root": str(made.root),
        "root_fingerprint": made.fingerprint,
        "provisioner_kid": made.kid,
        "for_ledger": str(made.for_ledger),
        "done": list(made.done),
    }


def _tell(made: "SetUp") -> None:
    if not made.done:
        output.note("All of it was there and up to date; nothing was changed.")
        return
    output.note("Start the server, or let a running one read it anew (SIGHUP):")
    output.note(f"  step-ca --password-file PASSWORD_FILE {made.config}")
    output.note(
        f"{made.for_ledger} is for the ledger: move it to where the ledger runs. Move "
        "secrets/root_ca_key to a place without a network; the server does not need it."
    )
