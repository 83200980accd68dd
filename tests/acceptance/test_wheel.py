"""The wheel holds all that the product needs: installed elsewhere, without the source, it plays."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.settings import without_real_ledger

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
ROOMS = ("ledger", "projections", "ca", "api", "migrations")
NOBODY = 65534


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that everybody may enter, unlike pytest's as root."""
    folder = Path(tempfile.mkdtemp(prefix="fedledger-wheel-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def wheel(place: Path) -> Path:
    """Built from a copy: setuptools writes into the tree that it builds from."""
    source = place / "source"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__"))
    pip(sys.executable, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", place, source)
    shutil.rmtree(source)
    (built,) = place.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(place: Path, wheel: Path) -> Path:
    """The console script of an environment that holds the wheel and what the lock file names."""
    environment = place / "venv"
    run(interpreter(), "-m", "venv", "--without-pip", environment)
    python = environment / "bin" / "python"
    pip(python, "install", "--require-hashes", "--requirement", ROOT / "requirements.lock")
    pip(python, "install", "--no-deps", "--no-index", wheel)
    return environment / "bin" / "fedledger"


def stranger() -> dict[str, Any]:
    """Options that make a process somebody who cannot read the source, where we can."""
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


def interpreter() -> Path:
    """A Python the stranger may run; ours can lie in a closed home."""
    candidates = (Path(sys.executable).resolve(), Path("/usr/bin/python3"))
    return next(path for path in candidates if may_run(path))


def may_run(python: Path) -> bool:
    code = "import sys; sys.exit(sys.version_info < (3, 11))"
    try:
        done = subprocess.run([python, "-I", "-c", code], check=False, cwd="/", **stranger())
    except OSError:
        return False
    return done.returncode == 0


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def pip(python: str | Path, *arguments: str | Path) -> None:
    """pip on behalf of `python`: this environment's own or, on Debian, the system's."""
    own = subprocess.run(
        [sys.executable, "-m", "pip", "--version"], capture_output=True, check=False
    )
    program = sys.executable if own.returncode == 0 else "/usr/bin/python3"
    quiet = ("--quiet", "--disable-pip-version-check", "--no-input")
    run(program, "-m", "pip", "--python", python, *quiet, *arguments, cwd="/")


def test_everything_of_the_rooms_is_inside_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    tree = {
        str(file.relative_to(ROOT))
        for room in ROOMS
        for file in (ROOT / room).rglob("*")
        if file.is_file() and file.suffix != ".pyc"
    }
    assert inside == tree
    assert {f"{room}/py.typed" for room in ROOMS} <= inside
    assert "migrations/sql/0001_ledger.sql" in inside


def test_the_story_plays_without_the_source(place: Path, installed: Path) -> None:
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    if os.geteuid() == 0:
        os.chown(elsewhere, NOBODY, NOBODY)
    environment = without_real_ledger() | {"HOME": str(elsewhere), "TMPDIR": str(elsewhere)}
    python = installed.with_name("python")
    code = "import ledger, api.cli; print(ledger.__file__)"
    found = run(python, "-c", code, cwd=elsewhere, env=environment, **stranger())
    assert Path(found.stdout.strip()).is_relative_to(place / "venv")
    version = run(installed, "--version", cwd=elsewhere, env=environment, **stranger())
    assert version.stdout.startswith("fedledger 0.")
    played = run(
        installed, "demo", "--json", cwd=elsewhere, env=environment, timeout=180, **stranger()
    )
    assert json.loads(played.stdout)["ok"] is True
