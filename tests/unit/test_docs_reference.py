"""The documentation says what there is: all of it, and nothing else."""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest
from msgspec.structs import fields

from api.cli import root
from api.operations import OPERATIONS
from api.problems import PROBLEMS
from api.settings import ClientSettings, Settings
from ledger.events import TOPICS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.rglob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def page_names(files: list[Path]) -> list[str]:
    return [str(file.relative_to(ROOT)) for file in files]


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


GENERATE = generator()


def reference(name: str) -> str:
    return (DOCS / "reference" / name).read_text()


def commands(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Every command and group of the command line, by its words."""
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(found, (*path, name))


COMMANDS = {" ".join(path) for path in commands(root, ("fedledger",))}


# ---- generated pages -------------------------------------------------------------------------


@pytest.mark.parametrize("name", GENERATE.PAGES)
def test_a_generated_page_is_what_the_code_says_now(name: str) -> None:
    assert (DOCS / name).read_text() == GENERATE.page(name), "run `python docs/generate.py`"


# What the generator writes is looked at again from the other side: it could leave something out.


def test_every_operation_is_documented_and_no_other() -> None:
    said = re.findall(r"^`([A-Z]+ /\S*)` — ", reference("http.md"), re.MULTILINE)
    assert sorted(said) == sorted(f"{row.method} {row.path}" for row in OPERATIONS)
    named = re.findall(r"^### (\S+)$", reference("http.md"), re.MULTILINE)
    assert named == [
        row.name
        for feature in dict.fromkeys(row.feature for row in OPERATIONS)
        for row in OPERATIONS
        if row.feature == feature
    ]


def test_every_command_is_documented_and_no_other() -> None:
    said = re.findall(r"^#{2,3} (fedledger .+)$", reference("cli.md"), re.MULTILINE)
    assert sorted(said) == sorted(COMMANDS - {"fedledger"})


def test_every_setting_is_documented_and_no_other() -> None:
    said = re.findall(r"^\| `(FEDLEDGER_[A-Z_]+)` \|", reference("settings.md"), re.MULTILINE)
    fields = [*Settings.model_fields, *ClientSettings.model_fields]
    assert said == [f"FEDLEDGER_{name.upper()}" for name in fields]


def test_every_topic_is_documented_with_its_fields_and_no_other() -> None:
    rows = re.findall(r"^\| `(\S+\.v\d+)`[^|]*\| (.+?) \| ", reference("events.md"), re.MULTILINE)
    said = {topic: re.findall(r"`(\w+)`", data) for topic, data in rows}
    assert said == {topic: [each.name for each in fields(fact)] for topic, fact in TOPICS.items()}
    assert GENERATE.WORDS["topics"].keys() == TOPICS.keys()


def test_every_problem_is_documented_with_its_statuses_and_no_other() -> None:
    found = re.findall(r"^### (\S+)\n\n([0-9or ]+) · ", reference("problems.md"), re.MULTILINE)
    said = {code: tuple(map(int, statuses.split(" or "))) for code, statuses in found}
    assert said == {code: problem.statuses for code, problem in PROBLEMS.items()}
    assert GENERATE.WORDS["problems"].keys() == PROBLEMS.keys()


def test_every_problem_code_in_the_code_is_documented() -> None:
    rooms = [ROOT / room for room in ("ledger", "projections", "ca", "api")]
    code = "".join(file.read_text() for room in rooms for file in room.rglob("*.py"))
    used = set(re.findall(r"\bcode\s*=\s*\"([a-z-]+)\"", code))
    assert used - {"error"} <= PROBLEMS.keys()  # "error" is the base class's, never answered


# ---- every page ------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """The addresses of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#{1,6} (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", title.lower().replace("`", "")).strip().replace(" ", "-")
        for title in titles
    }


@pytest.mark.parametrize("file", PAGES, ids=page_names(PAGES))
def test_links_lead_somewhere(file: Path) -> None:
    text = FENCE.sub("", file.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        found = (file.parent / path).resolve() if path else file
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found.read_text()), target


def test_the_index_names_every_page() -> None:
    text = (DOCS / "README.md").read_text()
    files = [*DOCS.rglob("*.md"), *DOCS.rglob("*.service")]
    unnamed = {
        str(file.relative_to(DOCS))
        for file in files
        if file.parent.name != "adr" and file != DOCS / "README.md"
    } - set(re.findall(r"\]\(([^)#]+)", text))
    assert unnamed == set()


CALL = re.compile(
    r"""(?:^|[\s(])(\./run|(?:\S*/)?fedledger)(?=[\s)"]|$)((?:[ ]+(?:"[^"]*"|'[^']*'|[^\s"'|;&()<>#]+))*)"""
)


def called(text: str) -> Iterator[list[str]]:
    """The words of every call of the product in the shell blocks of a page."""
    for block in [block for kind, block in FENCE.findall(text) if kind == "sh"]:
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            for program, words in CALL.findall(line):
                yield [program, *words.split()]


def looked_up(words: list[str]) -> click.Command:
    """The command that the first words name."""
    command: click.Command = root
    for word in words:
        if not isinstance(command, click.Group):
            break
        found = command.get_command(click.Context(command), word)
        assert found is not None, words
        command = found
    return command


@pytest.mark.parametrize("file", PAGES, ids=page_names(PAGES))
def test_shell_blocks_call_commands_and_options_that_exist(file: Path) -> None:
    for program, *words in called(file.read_text()):
        if program == "./run" and words[:1] in (["check"], ["test"]):
            continue
        options = {word.partition("=")[0] for word in words if word.startswith("-")} - {"-"}
        command = looked_up([word for word in words if not word.startswith("-")])
        known = {
            name for param in command.params for name in (*param.opts, *param.secondary_opts)
        } | {"--help", "-h"}
        assert options <= known, (words, options - known)


@pytest.mark.parametrize("file", PAGES, ids=page_names(PAGES))
def test_settings_named_anywhere_exist(file: Path) -> None:
    known = {
        f"FEDLEDGER_{name.upper()}"
        for name in (*Settings.model_fields, *ClientSettings.model_fields)
    } | {"FEDLEDGER_COMPLETE"}
    assert set(re.findall(r"FEDLEDGER_[A-Z_]*[A-Z]", file.read_text())) <= known


def test_the_default_port_is_the_one_the_pages_name() -> None:
    port = Settings.model_fields["port"].default
    named = {
        int(found)
        for file in PAGES
        for found in re.findall(r"127\.0\.0\.1:(\d+)", file.read_text())
    }
    assert named == {port}


# ---- completion ------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_documented_completion_is_there_for_each_shell(shell: str) -> None:
    from click.shell_completion import get_completion_class

    assert f"_FEDLEDGER_COMPLETE={shell}_source fedledger" in reference("cli.md")
    made = get_completion_class(shell)
    assert made is not None
    completion = made(root, {}, "fedledger", "_FEDLEDGER_COMPLETE")
    assert [one.value for one in completion.get_completions([], "gra")] == ["grant"]
    assert "propose" in [one.value for one in completion.get_completions(["grant"], "")]


def test_the_shell_gets_its_completions_from_the_program_itself() -> None:
    program = Path(sys.executable).with_name("fedledger")
    asked = {
        "_FEDLEDGER_COMPLETE": "bash_complete",
        "COMP_WORDS": "fedledger gr",
        "COMP_CWORD": "1",
    }
    done = subprocess.run(
        [program], env={"PATH": "/usr/bin:/bin", **asked}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.stdout == "plain,grant\n"
