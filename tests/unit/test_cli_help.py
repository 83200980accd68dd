"""Help is there at once: it loads none of the libraries that make commands slow."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from api.cli import COMMANDS, root
from api.cli.exits import Exit

FEDLEDGER = Path(sys.executable).with_name("fedledger")
SERVICE = ("falcon", "waitress", "psycopg", "cryptography", "eventsourcing", "structlog")
HEAVY = (
    "falcon",
    "psycopg",
    "cryptography",
    "httpx",
    "pydantic",
    "rich",
    "eventsourcing",
    "waitress",
)


COMPLETING = {
    "_FEDLEDGER_COMPLETE": "bash_complete",
    "COMP_WORDS": "fedledger p",
    "COMP_CWORD": "1",
}


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [(["--help"], {}, "Usage: fedledger"), ([], {}, "Usage: fedledger"),
     ([], COMPLETING, "plain,policy")],
)  # fmt: skip
def test_help_and_completion_import_nothing_heavy(
    arguments: list[str], environment: dict[str, str], expected: str
) -> None:
    # Which modules, not how many milliseconds: a busy machine must not fail this.
    seen = subprocess.run(
        [sys.executable, "-X", "importtime", str(FEDLEDGER), *arguments],
        env=os.environ | environment,  # noqa: TID251 -- of a child process, no setting of ours
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    imported = {
        line.rpartition("|")[2].strip().partition(".")[0]
        for line in seen.stderr.splitlines()
        if line.startswith("import time:")
    }
    assert "click" in imported
    assert imported.isdisjoint(HEAVY)
    assert expected in seen.stdout + seen.stderr


@pytest.mark.parametrize("arguments", [["peer", "list"], ["health", "live"], ["grant", "--help"]])
def test_a_command_that_calls_a_ledger_loads_nothing_of_the_service(arguments: list[str]) -> None:
    script = (
        "import sys; from api.cli import run; code = run(sys.argv[1:]); "
        f"print([name for name in {SERVICE} if name in sys.modules], code, file=sys.stderr)"
    )
    environment = {
        "PATH": os.environ["PATH"],  # noqa: TID251 -- of a child process, no setting of ours
        "HOME": "/nonexistent",
        "FEDLEDGER_URL": "http://127.0.0.1:1",
        "FEDLEDGER_TOKEN": "flo_x",
    }
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    expected = Exit.OK if arguments[-1] == "--help" else Exit.UNREACHABLE
    assert done.stderr.splitlines()[-1] == f"[] {int(expected)}", done.stderr


def test_every_command_in_the_table_exists_and_is_named_so() -> None:
    import click

    context = click.Context(root)
    for name, (_, text) in COMMANDS.items():
        command = root.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert command.help
        assert text.endswith(".")


def test_every_verb_explains_itself_and_its_options() -> None:
    import click

    context = click.Context(root)
    for noun in COMMANDS:
        group = root.get_command(context, noun)
        if not isinstance(group, click.Group):
            continue
        for name, verb in group.commands.items():
            assert verb.help, (noun, name)
            for option in verb.params:
                if isinstance(option, click.Option):
                    assert option.help, (noun, name, option.name)
