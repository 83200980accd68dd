"""`fedledger audit` against a running service: stories, the live tail, exports and their check."""

import json
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.installation import FEDLEDGER, Installation, Service, installation, running
from support.waiting import wait_until

pytestmark = [pytest.mark.postgres, pytest.mark.slow]


@pytest.fixture(scope="module")
def place() -> Iterator[Installation]:
    with installation() as made, running(made):
        made.extra["FEDLEDGER_URL"] = made.url
        yield made


def register(place: Installation, name: str) -> Any:
    return place.ok("peer", "register", "--name", name, "--base-url", "https://peer.example")


def test_the_story_of_a_peer_for_people_and_programs(place: Installation) -> None:
    peer = register(place, "Story Peer")
    told = place.run("audit", "about", "story peer")
    assert told.code == 0, told
    assert told.out.startswith(f"peer {peer['id']} pending\n")
    assert "Peer Story Peer registered at https://peer.example" in told.out
    document = place.ok("audit", "about", peer["id"])
    assert [one["topic"] for one in document["items"]] == ["peer.registered.v1"]
    assert place.ok("audit", "about", peer["id"], "--all")["things"] == document["things"]
    assert place.run("audit", "about", "no-such-thing").code == 3


def test_of_a_token_only_the_accessor_leaves_this_machine(place: Installation) -> None:
    token = place.admin.read_text().strip()
    told = place.run("audit", "about", token)
    assert told.code == 0, told
    assert told.out.startswith(f"credential {token.split('_')[1]} live\n")
    assert token not in told.out + told.err


def test_a_list_is_a_timeline(place: Installation) -> None:
    register(place, "Listed")
    told = place.run("audit", "list", "--topic", "peer.registered.v1", "--newest-first")
    assert "Peer Listed registered" in told.out.splitlines()[0]
    assert "by operator" in told.out.splitlines()[1]


def test_an_export_and_its_check(place: Installation, tmp_path: Path) -> None:
    register(place, "Exported")
    for kind in ("jsonl", "csv"):
        out = tmp_path / f"all.{kind}"
        told = place.ok("audit", "export", "--format", kind, "--out", str(out))
        assert stat.S_IMODE(out.stat().st_mode) == 0o600
        assert told["count"] == told["tree_size"]
        # Without a service, and without this home: the file and the key are enough.
        log_key = place.ok("audit", "show", "1")["body"]["data"]["log_key"]
        elsewhere = {
            "FEDLEDGER_HOME": str(tmp_path / "none"),
            "FEDLEDGER_URL": "http://127.0.0.1:1",
        }
        shown = place.run("audit", "verify-export", str(out), "--log-key", log_key, **elsewhere)
        assert shown.code == 0, shown
        assert "the whole ledger, to its root" in shown.out
        assert place.run("audit", "verify-export", str(out)).code == 0
        assert place.run("audit", "verify-export", str(out), **elsewhere).code == 2
        again = place.run("audit", "export", "--out", str(out))
        assert (again.code, "nothing is overwritten" in again.err) == (2, True)
        data = out.read_bytes()
        out.write_bytes(data.replace(b"peer.registered.v1", b"peer.suspended.v1 "[:18], 1))
        assert place.run("audit", "verify-export", str(out)).code == 6
        out.write_bytes(data[: len(data) // 2])
        assert place.run("audit", "verify-export", str(out)).code == 6
    part = tmp_path / "part.jsonl"
    place.ok("audit", "export", "--topic", "operator.registered.v1", "--out", str(part))
    assert len(part.read_text().splitlines()) == 3  # two operators and the manifest
    shown = place.run("audit", "verify-export", str(part))
    assert "signer's word" in shown.out
    assert sorted(one.name for one in tmp_path.iterdir()) == ["all.csv", "all.jsonl", "part.jsonl"]


# ---- the tail -------------------------------------------------------------------------------


@contextmanager
def tail(place: Installation, out: Path, *more: str) -> Iterator[None]:
    with out.open("wb") as output, out.with_suffix(".err").open("wb") as errors:
        process = subprocess.Popen(
            [FEDLEDGER, "audit", "tail", *more], env=place.environment, stdout=output,
            stderr=errors, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        yield
        assert process.poll() is None, out.with_suffix(".err").read_text()
    finally:
        process.kill()
        process.wait(30)


def test_the_tail_tells_what_happens_and_survives_a_restart(tmp_path: Path) -> None:
    out, raw = tmp_path / "told", tmp_path / "raw"
    with installation() as place, running(place) as first:
        place.extra["FEDLEDGER_URL"] = place.url
        with (
            tail(place, out, "--lines", "1"),
            tail(place, raw, "--json", "--topic", "peer.registered.v1", "--lines", "0"),
        ):
            wait_until(lambda: out.read_text().count("#"), "the tail shows what there is")
            register(place, "Before")
            wait_until(lambda: "Peer Before registered" in out.read_text(), "it shows the next")
            assert first.terminate() == 0
            wait_until(
                lambda: "until it answers" in out.with_suffix(".err").read_text(), "it notices"
            )
            second: Service = place.start()
            try:
                second.wait_until_ready()
                register(place, "After")
                wait_until(lambda: "Peer After registered" in out.read_text(), "it goes on")
                wait_until(lambda: len(raw.read_text().splitlines()) == 2, "so does the other")
            finally:
                assert second.terminate() == 0
        names = [json.loads(line)["body"]["data"]["name"] for line in raw.read_text().splitlines()]
        assert names == ["Before", "After"]
        told = out.read_text()
        assert told.count("Peer Before registered") == told.count("Peer After registered") == 1
