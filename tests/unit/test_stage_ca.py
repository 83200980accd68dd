"""Where the demo looks for a step-ca."""

import os
import shutil
from pathlib import Path

import pytest

from api.cli import stage_ca
from api.cli.exits import CommandError, Exit


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's cache that is empty, on a machine where no step-ca is installed."""
    monkeypatch.setattr(stage_ca, "user_cache", lambda: tmp_path)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    return tmp_path / "fedledger" / "step-ca"


def built(folder: Path, when: int) -> Path:
    folder.mkdir(parents=True)
    program = folder / "step-ca"
    program.touch()
    os.utime(program, (when, when))
    return program


def test_the_one_named_goes_first(cache: Path, tmp_path: Path) -> None:
    built(cache / "0.19.0", 1)
    named = built(tmp_path / "named", 1)
    assert stage_ca.find_program(named) == named
    with pytest.raises(CommandError) as missing:
        stage_ca.find_program(tmp_path / "nowhere")
    assert missing.value.exit is Exit.INVALID


def test_then_the_one_installed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built(cache / "0.19.0", 1)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/" + name)
    assert stage_ca.find_program(None) == Path("/usr/bin/step-ca")


def test_then_the_one_built_last(cache: Path) -> None:
    built(cache / "b", 1)
    newest = built(cache / "a", 2)
    assert stage_ca.find_program(None) == newest


def test_else_it_says_how_to_get_one(cache: Path) -> None:
    with pytest.raises(CommandError) as none:
        stage_ca.find_program(None)
    assert none.value.exit is Exit.UNREACHABLE
    assert "tests/step_ca/build.sh" in none.value.hint
