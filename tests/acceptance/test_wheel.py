"""The wheel holds all that the product needs: installed elsewhere, without the source, it plays.

It is built and installed by the commands of the Dockerfile, each with places of ours: what plays
here is what the image holds.
"""

import json
import os
import shlex
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
from support.compose import instructions

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
ROOMS = ("ledger", "projections", "ca", "api", "migrations")
NOBODY = 65534
FOUND = list(instructions())


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that everybody may enter, unlike pytest's as root."""
    folder = Path(tempfile.mkdtemp(prefix="fedledger-wheel-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def installed(place: Path) -> Path:
    """The console script of an environment that was made as the image's is."""
    source = place / "source"  # a copy: setuptools writes into the tree that it builds from
    source.mkdir()
    copied = [shlex.split(rest) for word, rest in build_stage() if word == "COPY"]
    for *names, _ in copied:
        for name in names:
            if (ROOT / name).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / name, source / name, ignore=ignored)
            else:
                shutil.copy(ROOT / name, source)
    for word, rest in build_stage():
        if word == "RUN":
            run(*here(shlex.split(rest), place), cwd="/")
    shutil.rmtree(source)
    return place / "venv" / "bin" / "fedledger"


@pytest.fixture(scope="module")
def wheel(place: Path, installed: Path) -> Path:
    (built,) = (place / "wheel").glob("*.whl")
    return built


def build_stage() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile's first stage."""
    begin, end = (index for index, (word, _) in enumerate(FOUND) if word == "FROM")
    return FOUND[begin:end]


def here(command: list[str], place: Path) -> list[str | Path]:
    """A command of the image with this machine's Python, its pip, and places of ours."""
    assert command[0] == "python3"
    options: list[str | Path] = []
    if command[1:3] == ["-m", "pip"]:
        # pip on behalf of that environment: ours has one or, on Debian, the system's Python.
        own = subprocess.run(
            [sys.executable, "-m", "pip", "--version"], capture_output=True, check=False
        )
        program: str | Path = sys.executable if own.returncode == 0 else "/usr/bin/python3"
        options = ["-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
        command = command[2:]
    else:
        program = interpreter()
    places = {"/source": "source", "/wheel": "wheel", "/opt/fedledger": "venv"}
    ours = [
        next(
            (word.replace(p, str(place / o), 1) for p, o in places.items() if word.startswith(p)),
            word,
        )
        for word in command[1:]
    ]
    return [program, *options, *ours]


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


def test_the_image_takes_no_more_from_the_build_than_the_environment() -> None:
    second = FOUND[len(build_stage()) + FOUND.index(build_stage()[0]) :]
    taken = [rest for word, rest in second if word == "COPY" and "--from" in rest]
    assert taken == ["--from=build /opt/fedledger /opt/fedledger"]
    assert not any("pip" in rest for word, rest in second if word == "RUN")


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
