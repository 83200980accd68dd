"""The page about a stolen key, word by word, on a ledger in which one was enrolled."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from support.installation import FEDLEDGER, Installation, installation, running
from support.pages import blocks, shows
from support.waiting import wait_until

pytestmark = [pytest.mark.postgres, pytest.mark.slow]


def test_the_page(tmp_path: Path) -> None:
    (_, given), *rest = blocks("how-to/incident.md", "sh", "text")
    with installation() as place, running(place):
        place.extra["FEDLEDGER_URL"] = place.url
        serial = enrolled(place, tmp_path)
        night = later_than_now(place)
        colons = ":".join(serial[at : at + 2] for at in range(0, 32, 2)).upper()
        lines = [
            f"SERIAL={colons}" if line.startswith("SERIAL=")
            else f"NIGHT={night}" if line.startswith("NIGHT=")
            else line
            for line in given.splitlines()
        ]  # fmt: skip
        assert len(set(lines) & set(given.splitlines())) == 1  # `member` alone is the page's own
        played = play(
            place, tmp_path, ["\n".join(lines) + "\n"] + [t for k, t in rest if k == "sh"]
        )
        assert played.returncode == 0, played.stderr + played.stdout
        parts = played.stdout.split("=== next ===\n")[1:]
        step = 0
        for kind, text in rest:
            if kind == "sh":
                step += 1
                continue
            for line in text.splitlines():
                assert shows(parts[step], line), (line, parts[step], played.stderr)
        assert (tmp_path / "incident-7.jsonl").exists()


def enrolled(place: Installation, folder: Path) -> str:
    """A peer with an active grant; the serial of its certificate."""
    peer = place.ok("peer", "register", "--name", "Example Corp", "--base-url", "https://x.example")
    place.ok("peer", "activate", peer["id"], "--verification", "phoned")
    grant = place.ok(
        "grant", "propose", "--peer-id", peer["id"], "--subject-user-id", "user-17",
        "--resource", "tasks", "--max-rows", "100", "--expires-at", "+30d",
    )  # fmt: skip
    token = folder / "enrollment.token"
    place.ok("enroll", "token", grant["id"], "--out", str(token))
    ended = place.run("enroll", "redeem", "--token-file", str(token), "--out", str(folder / "peer"))
    assert ended.code == 0, ended
    found: dict[str, Any] = place.ok("cert", "list", "--grant-id", grant["id"])
    return str(found["items"][0]["serial"])


def later_than_now(place: Installation) -> str:
    """A whole second that is over, after everything recorded so far."""
    last = place.ok("audit", "list", "--newest-first", "--limit", "1")["items"][0]["recorded_at"]
    moment = datetime.fromisoformat(last).replace(microsecond=0).timestamp() + 1
    wait_until(lambda: datetime.now(UTC).timestamp() > moment, "that second is over")  # noqa: TID251
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def play(place: Installation, folder: Path, steps: list[str]) -> subprocess.CompletedProcess[str]:
    """All the reader's shell blocks in one shell, what each prints kept apart."""
    script = "set -eu\n" + "".join(f"echo '=== next ==='\n{text}" for text in steps)
    path = f"{FEDLEDGER.parent}:/usr/bin:/bin"
    return subprocess.run(
        ["bash", "-c", script], cwd=folder, env={**place.environment, "PATH": path},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
