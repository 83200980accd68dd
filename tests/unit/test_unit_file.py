"""The systemd unit of the how-to pages: hardened, well formed, and about the program there is."""

import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import click
import pytest

from api.cli import root
from api.cli.exits import Exit
from api.server import DRAIN_SECONDS

UNIT = Path(__file__).parents[2] / "docs" / "how-to" / "fedledger.service"
FEDLEDGER = Path(sys.executable).with_name("fedledger")


@pytest.fixture
def service() -> dict[str, str]:
    unit = ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # systemd minds the case
    text = UNIT.read_text()
    # The one key that may stand twice in a unit and not in an ini file.
    assert text.count("\nEnvironment=") == 1
    unit.read_string(text)
    return dict(unit["Service"])


def test_it_starts_a_command_that_exists(service: dict[str, str]) -> None:
    program, command = service["ExecStart"].split()
    assert program.endswith("/fedledger")
    assert root.get_command(click.Context(root), command) is not None


def test_it_holds_the_process_in(service: dict[str, str]) -> None:
    for name in (
        "NoNewPrivileges", "ProtectHome", "PrivateTmp", "PrivateDevices", "ProtectKernelModules",
        "ProtectKernelTunables", "ProtectControlGroups", "RestrictSUIDSGID", "LockPersonality",
    ):  # fmt: skip
        assert service[name] == "true", name
    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == ""
    assert service["User"] not in ("", "root")
    # Writable is the state directory alone, and that is the home.
    home = f"FEDLEDGER_HOME=/var/lib/{service['StateDirectory']}"
    assert service["Environment"] == home
    assert "ReadWritePaths" not in service


def test_it_lets_requests_end_and_does_not_insist_on_what_cannot_work(
    service: dict[str, str],
) -> None:
    assert int(service["TimeoutStopSec"]) > DRAIN_SECONDS
    never = {str(int(code)) for code in (Exit.REFUSED, Exit.INVALID)}
    assert set(service["RestartPreventExitStatus"].split()) == never
    assert service["Restart"] == "on-failure"


def test_no_secret_and_no_owner_stand_in_it() -> None:
    text = "".join(
        line for line in UNIT.read_text().splitlines(keepends=True) if not line.startswith("#")
    )
    assert "DSN" not in text
    assert "password" not in text.lower()


def test_systemd_finds_nothing_wrong_with_it(tmp_path: Path) -> None:
    """Where there is systemd; elsewhere the tests above have parsed it."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        return
    here = tmp_path / UNIT.name
    text = UNIT.read_text().replace("/opt/fedledger/bin/fedledger", str(FEDLEDGER))
    here.write_text(text)
    done = subprocess.run(
        [analyze, "verify", "--man=no", here], capture_output=True, text=True, check=False
    )
    found = [line for line in (done.stdout + done.stderr).splitlines() if UNIT.name in line]
    assert found == []
    assert done.returncode == 0 or not found
