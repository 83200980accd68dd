"""The command line `fedledger`: its words, and how every command ends. No command lives here.

Nouns are loaded when they are used: `fedledger --help` must not wait for a web framework, a
database driver or a cryptography library. Stop importing lazily and help takes a second.
"""

import logging
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final, NoReturn

import click
from click.shell_completion import CompletionItem

from api.cli.exits import BROKEN_PIPE, INTERRUPTED, CommandError, Exit, from_refusal
from ledger.errors import LedgerError

# name -> where the command is, and its one line of help (kept here so that help loads nothing).
COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "up": ("api.cli.machine:up", "Create what is missing, migrate, and serve."),
    "init": ("api.cli.machine:init", "Create a ledger: keys, first operators, authority."),
    "serve": ("api.cli.machine:serve", "Serve an existing ledger; never creates one."),
    "migrate": ("api.cli.machine:migrate", "Bring the database's schema up to date."),
    "doctor": ("api.cli.machine:doctor", "Check this installation and its record."),
    "demo": ("api.cli.demo:demo", "Play the whole story on a throw-away ledger."),
    "peer": ("api.cli.nouns:peer", "Organisations that may be given grants."),
    "grant": ("api.cli.nouns:grant", "What a peer may read, for whom, until when."),
    "enroll": ("api.cli.nouns:enroll", "Enrollment tokens, and the peer's side of them."),
    "cert": ("api.cli.nouns:cert", "Client certificates and their revocation."),
    "ca": ("api.cli.ca:ca", "The authority that signs certificates."),
    "operator": ("api.cli.nouns:operator", "People and machines that use this ledger."),
    "policy": ("api.cli.nouns:policy", "The rules that can be set."),
    "audit": ("api.cli.nouns:audit", "The events, as they were recorded."),
    "alarm": ("api.cli.nouns:alarm", "What somebody must look at."),
    "health": ("api.cli.nouns:health", "How a running service does, seen from anywhere."),
    "projections": ("api.cli.nouns:projections", "The tables made from the events."),
    "replay": ("api.cli.replay:replay", "History folded again, into a throw-away place."),
    "database": ("api.cli.database:database", "The database this ledger is kept in."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, not when they are listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the story, not of the alphabet."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the named command, importing its module; None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)  # noqa: S101 - a wrong table, seen by a test
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the names from the table alone: a shell asks with every press of a key."""
        found = [
            CompletionItem(name, help=text)
            for name, (_, text) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"fedledger {version('fedledger')}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version,
    help="Show the version and exit.",
)  # fmt: skip
def root() -> None:
    """An event-sourced audit and grant ledger for server-to-server federation.

    Data goes to stdout, everything else to stderr; --json is for programs. Exit codes: 0 ok,
    1 refused, 2 usage or invalid, 3 not found, 4 authentication, 5 stale, 6 integrity violation,
    7 unreachable or a server's error.
    """


def main() -> NoReturn:
    """Run `fedledger` with the arguments of this process, and end the process."""
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has gone: nothing more can be written, not even at interpreter shutdown.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = BROKEN_PIPE
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; whatever went wrong is said on stderr."""
    # What the driver warns of, each command tells itself, once; a service logs it, too.
    logging.getLogger("psycopg").addHandler(logging.NullHandler())
    try:
        ended: Any = root.main(arguments, prog_name="fedledger", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return int(Exit.INVALID)
    except (CommandError, LedgerError) as error:
        met = from_refusal(error) if isinstance(error, LedgerError) else error
        show_error(met)
        return int(met.exit)
    except (click.Abort, KeyboardInterrupt):
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception:  # noqa: BLE001 - Python's own exit code 1 would say "refused by the rules"
        _show_mistake()
        return int(Exit.UNREACHABLE)
    return ended if isinstance(ended, int) else int(Exit.OK)


def _show_mistake() -> None:
    import traceback

    traceback.print_exc()
    sys.stderr.write("error: this is a mistake of fedledger's; please report it with the above\n")


def show_error(error: CommandError) -> None:
    """Write what went wrong on stderr: title, detail, next step, request id."""
    from api.cli.output import note, safe

    note(safe(error.title), mark="error:", colour="bold red")
    for line in error.detail.splitlines():
        note(f"  {safe(line)}")
    if error.hint:
        note(f"  next: {safe(error.hint)}")
    if error.request_id:
        note(f"  request: {safe(error.request_id)}")
