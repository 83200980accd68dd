"""`fedledger demo` plays the whole story, proves it, and leaves nothing behind."""

import json
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from api.settings import without_real_ledger
from migrations.embedded import Embedded
from support import folders
from support.installation import FEDLEDGER, Installation, running
from support.step_ca import program as step_ca_program
from support.waiting import wait_until

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

# Things that would lead to a real ledger, each of which must be ignored.
TRAPS = {
    "FEDLEDGER_DSN": "host=/nonexistent dbname=real",
    "FEDLEDGER_OWNER_DSN": "host=/nonexistent dbname=real",
    "FEDLEDGER_HOME": "/nonexistent/home",
    "FEDLEDGER_URL": "https://real.example",
    "FEDLEDGER_TOKEN_FILE": "/nonexistent/token",
    "FEDLEDGER_PROFILE": "/nonexistent/profile",
    "FEDLEDGER_PORT": "not-a-port",
    "PGHOST": "/nonexistent",
}


@pytest.fixture
def place() -> Iterator[Path]:
    home = folders.make("fedledger-acceptance-")
    home.chmod(0o711)
    yield home
    shutil.rmtree(home, ignore_errors=True)


def start(place: Path, *arguments: str, **more: str) -> subprocess.Popen[str]:
    ours = {"TMPDIR": str(place), "HOME": str(place / "real-home"), "XDG_CACHE_HOME": "/nowhere"}
    environment = {**without_real_ledger(), **TRAPS, **ours, **more}
    return subprocess.Popen(
        [FEDLEDGER, "demo", *arguments], env=environment, text=True, cwd="/",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def processes_under(place: Path) -> list[str]:
    """Command lines of live processes that have to do with the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(place) in line:
            found.append(line)
    return found


def test_the_story_as_json_is_one_document_that_proves_every_step(place: Path) -> None:
    out, err = (demo := start(place, "--json")).communicate(timeout=180)
    assert demo.returncode == 0, err
    told = json.loads(out)
    assert told["ok"] is True
    assert told["peer"]["state"] == "active"
    assert [grant["status"] for grant in told["grants"]] == ["revoked", "pending_enrollment"]
    assert [g["scope"]["resources"] for g in told["grants"]] == [["tasks"], ["credentials"]]
    assert told["extensions"] == {
        "1.3.6.1.4.1.99999.1": told["grants"][0]["id"],
        "1.3.6.1.4.1.99999.2": told["grants"][0]["subject_user_id"],
    }
    certificate = x509.load_pem_x509_certificate(told["certificate"].encode())
    san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert san.get_values_for_type(x509.UniformResourceIdentifier) == [
        f"urn:uuid:{told['grants'][0]['id']}"
    ]
    topics = [event["topic"] for event in told["events"]]
    assert [event["position"] for event in told["events"]] == [*range(1, len(topics) + 1)]
    for topic in (
        "ledger.created.v1", "peer.registered.v1", "peer.activated.v1", "grant.approved.v1",
        "enrollment-token.redeemed.v1", "issuance.authorized.v1", "certificate.issued.v1",
        "grant.activated.v1", "enrollment.rejected.v1", "grant.revoked.v1", "certificate.revoked.v1",
    ):  # fmt: skip
        assert topic in topics
    assert {c["id"]: c["status"] for c in told["checks"]}["integrity"] == "ok"
    assert list(place.iterdir()) == []
    assert processes_under(place) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_takes_everything_down(place: Path, number: signal.Signals) -> None:
    demo = start(place)
    try:
        wait_until(lambda: list(place.glob("*/data/postmaster.pid")), "the database starts", 60)
        demo.send_signal(number)
        demo.communicate(timeout=90)
    finally:
        demo.kill()
    assert demo.returncode == 130
    wait_until(lambda: not processes_under(place), "its children end", 30)
    assert list(place.rglob("*")) == []


def test_people_are_shown_the_steps_and_the_history_and_can_serve_what_is_kept(
    place: Path,
) -> None:
    kept = place / "kept"
    out, err = (demo := start(place, "--keep", str(kept))).communicate(timeout=180)
    assert demo.returncode == 0, err
    assert err.count("✓") >= 12
    assert "refused" in err
    for told in ("Grant proposed", "by operator", "because: Shared care plan.", "revoked"):
        assert told in out
    assert "fle_" not in out + err
    assert "flo_" not in out + err
    assert "fedledger serve" in err
    assert list(place.iterdir()) == [kept]
    assert stat.S_IMODE((kept / "peer" / "client.key").stat().st_mode) == 0o600
    again = Installation(kept)
    try:
        with running(again, "serve"):
            peers = again.ok("peer", "list", FEDLEDGER_URL=again.url)["items"]
            assert [peer["state"] for peer in peers] == ["active"]
    finally:
        wait_until(Embedded(kept).stop, "the kept database stops", 60)


@pytest.mark.step_ca
def test_the_story_on_a_real_step_ca(place: Path) -> None:
    """The same job, signed by a server that the demo sets up and starts itself."""
    chosen = ("--ca", "step-ca", "--step-ca-program", str(step_ca_program()))
    out, err = (demo := start(place, "--json", *chosen)).communicate(timeout=300)
    assert demo.returncode == 0, err
    told = json.loads(out)
    assert (told["ok"], told["ca"]) == (True, "step-ca")
    assert told["extensions"] == {
        "1.3.6.1.4.1.99999.1": told["grants"][0]["id"],
        "1.3.6.1.4.1.99999.2": told["grants"][0]["subject_user_id"],
    }
    certificate = x509.load_pem_x509_certificate(told["certificate"].encode())
    found = {one.oid.dotted_string for one in certificate.extensions}
    assert "1.3.6.1.4.1.37476.9000.64.1" in found  # which nothing but a step-ca writes
    assert "Mosaic federation" in certificate.issuer.rfc4514_string()
    (adopted,) = (e for e in told["events"] if e["topic"] == "authority.adopted.v1")
    assert adopted["body"]["data"]["kind"] == "step-ca"
    assert {c["status"] for c in told["checks"] if c["id"].startswith("ca-")} == {"ok"}
    assert list(place.iterdir()) == []
    assert processes_under(place) == []


@pytest.mark.step_ca
def test_an_interrupted_story_on_a_step_ca_takes_everything_down(place: Path) -> None:
    chosen = ("--ca", "step-ca", "--step-ca-program", str(step_ca_program()))
    demo = start(place, *chosen)
    try:
        wait_until(lambda: list(place.glob("*/data/postmaster.pid")), "the database starts", 120)
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=90)
    finally:
        demo.kill()
    assert demo.returncode == 130
    wait_until(lambda: not processes_under(place), "its children end", 30)
    assert list(place.rglob("*")) == []


def test_without_a_step_ca_it_says_how_to_get_one(place: Path) -> None:
    _, err = (demo := start(place, "--ca", "step-ca", PATH="/nowhere")).communicate(timeout=60)
    assert demo.returncode == 7
    assert "no step-ca on this machine" in err
    assert "tests/step_ca/build.sh" in err
    _, err = (
        demo := start(place, "--ca", "step-ca", "--step-ca-program", "/nowhere/step-ca")
    ).communicate(timeout=60)
    assert demo.returncode == 2
    assert "/nowhere/step-ca" in err
    assert list(place.iterdir()) == []


def test_a_directory_in_use_is_not_taken(place: Path) -> None:
    (place / "precious").write_text("x")
    _, err = (demo := start(place, "--keep", str(place))).communicate(timeout=120)
    assert demo.returncode == 2
    assert "not empty" in err
    assert [path.name for path in place.iterdir()] == ["precious"]
