"""The tutorial works, word by word, and shows what it says it shows."""

import subprocess
from pathlib import Path

import pytest

from support.installation import FEDLEDGER, Installation, installation, running
from support.pages import blocks, shows

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

PAGE_HOME, PAGE_PORT = "/tmp/fedledger-tutorial", "8440"


def test_the_tutorial(tmp_path: Path) -> None:
    found = blocks("tutorial.md", "sh", "text")
    (_, first), (_, ready), *rest = found
    assert first == f"export FEDLEDGER_HOME={PAGE_HOME}\n./run\n"  # it stays in its terminal
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    run = checkout / "run"  # ours would bring this checkout's .venv up to date
    run.write_text(f'#!/bin/sh\nexec {FEDLEDGER} "${{@:-up}}"\n')
    run.chmod(0o755)
    with installation() as place, running(place) as service:
        assert ready.strip().replace(PAGE_PORT, str(place.port)) in service.log.read_text()
        played = play(place, checkout, [block for block in rest if block[0] == "sh"])
        assert played.returncode == 0, played.stderr + played.stdout
        parts = played.stdout.split("=== next ===\n")
        assert "fle_" not in played.stdout + played.stderr
        step = 0
        for kind, text in rest:
            if kind == "sh":
                step += 1
                continue
            for line in text.splitlines():
                if PAGE_HOME not in line:  # the last block removes what this test removes itself
                    assert shows(parts[step], line), (line, parts[step])


def play(
    place: Installation, checkout: Path, steps: list[tuple[str, str]]
) -> subprocess.CompletedProcess[str]:
    """All the reader's shell blocks in one shell, what each prints kept apart."""
    script = "set -eu\n" + "".join(f"echo '=== next ==='\n{text}" for _, text in steps)
    return subprocess.run(
        ["bash", "-c", script.replace(PAGE_HOME, str(place.home))],
        cwd=checkout, env=place.environment, capture_output=True, text=True, check=False,
        timeout=300,
    )  # fmt: skip
