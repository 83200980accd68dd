"""The command line against a running service: what it prints, where, and how it ends."""

import json
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from api.cli.redeem import read_extension
from support.installation import Installation, installation, running

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

NOWHERE = "00000000-0000-4000-8000-00000000dead"


@pytest.fixture(scope="module")
def place() -> Iterator[Installation]:
    with installation() as made, running(made):
        made.extra["FEDLEDGER_URL"] = made.url
        yield made


@pytest.fixture
def peer(place: Installation, request: pytest.FixtureRequest) -> dict[str, Any]:
    name = f"Peer {abs(hash(request.node.nodeid))}"
    made = place.ok("peer", "register", "--name", name, "--base-url", "https://peer.example")
    found: dict[str, Any] = place.ok("peer", "activate", made["id"], "--verification", "phoned")
    return found


@pytest.fixture
def grant(place: Installation, peer: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = place.ok(*proposal(peer, "--resource", "tasks"))
    return found


def proposal(peer: dict[str, Any], *more: str) -> tuple[str, ...]:
    return (
        "grant", "propose", "--peer-id", peer["id"], "--subject-user-id", "user-1",
        "--max-rows", "10", "--expires-at", "+10d", *more,
    )  # fmt: skip


# ---- the machine ----------------------------------------------------------------------------


def test_init_prints_where_the_tokens_are_and_never_the_tokens() -> None:
    with installation() as made:
        ended = made.run("init")
        assert ended.code == 0, ended
        said = ended.out + ended.err
        for path in (made.admin, made.approver):
            assert str(path) in said
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert path.read_text().strip() not in said
        assert "other hands" in said
        token = made.admin.read_text()
        again = made.run("init")
        assert again.code == 0
        assert "nothing was changed" in again.err
        assert made.admin.read_text() == token
        with running(made, "serve"):
            assert made.ok("peer", "list")["items"] == []


def test_serve_never_creates() -> None:
    with installation() as made:
        ended = made.run("serve")
        assert ended.code != 0
        assert "fedledger init" in ended.err
        assert not made.admin.exists()
        assert not (made.home / "data").exists()


def test_up_can_be_repeated_and_ends_in_order(place: Installation) -> None:
    again = place.neighbour()
    service = again.start("up")
    service.wait_until_ready()
    assert service.terminate() == 0


def test_ctrl_c_ends_the_service_in_order(place: Installation) -> None:
    service = place.neighbour().start("serve")
    service.wait_until_ready()
    service.process.send_signal(signal.SIGINT)
    assert service.process.wait(60) in {0, 130}


def test_migrate_says_that_nothing_is_to_be_done(place: Installation) -> None:
    ended = place.run("migrate")
    assert (ended.code, ended.out) == (0, "")
    assert "up to date" in ended.err


def test_doctor_is_green_on_a_new_ledger(place: Installation) -> None:
    ended = place.run("doctor", "--json")
    assert ended.code == 0, ended
    checks = {check["id"]: check for check in ended.document["checks"]}
    assert {check["status"] for check in checks.values()} == {"ok"}
    assert checks.keys() >= {
        "database", "schema", "service-role", "immutability", "clock", "four-eyes", "authority",
        "alarms", "integrity", "history", "key-files", "durability", "checksums", "disk",
        "private-server",
    }  # fmt: skip
    table = place.run("doctor")
    assert table.code == 0
    assert "integrity" in table.out


def test_doctor_is_red_about_a_secret_that_others_can_read(place: Installation) -> None:
    place.approver.chmod(0o644)
    try:
        ended = place.run("doctor", "--json")
    finally:
        place.approver.chmod(0o600)
    assert ended.code == 2
    assert [c["id"] for c in ended.document["checks"] if c["status"] == "fail"] == ["key-files"]


def test_doctor_is_red_about_a_private_server_that_is_open(place: Installation) -> None:
    sockets = place.home / "run"
    sockets.chmod(0o755)
    try:
        ended = place.run("doctor", "--json")
    finally:
        sockets.chmod(0o700)
    assert ended.code == 2
    (found,) = [check for check in ended.document["checks"] if check["status"] == "fail"]
    assert found["id"] == "private-server"
    assert f"{sockets} has mode 0755" in found["detail"]


def test_doctor_is_yellow_without_four_eyes(place: Installation) -> None:
    switch = ("policy", "change", "--token-file", str(place.approver), "--reason", "trying")
    place.ok(*switch, "--no-four-eyes")
    try:
        ended = place.run("doctor", "--json")
    finally:
        place.ok(*switch, "--four-eyes")
    assert ended.code == 1
    assert [c["id"] for c in ended.document["checks"] if c["status"] == "warn"] == ["four-eyes"]


def test_doctor_without_a_ledger_is_red_and_makes_none() -> None:
    with installation() as made:
        ended = made.run("doctor", "--json")
        assert ended.code == 2
        assert ended.document["checks"][0]["id"] == "database"
        assert not (made.home / "data").exists()


# ---- exit codes, through real refusals ------------------------------------------------------


def test_refused_is_1(place: Installation, grant: dict[str, Any]) -> None:
    place.ok("grant", "revoke", grant["id"], "--reason", "over")
    ended = place.run("grant", "suspend", grant["id"], "--reason", "late")
    assert ended.code == 1
    assert ended.out == ""
    assert "error:" in ended.err
    assert "request:" in ended.err


def test_invalid_is_2_and_says_every_issue(place: Installation, peer: dict[str, Any]) -> None:
    ended = place.run(*proposal(peer, "--resource", "tasks", "--resource", "tasks"))
    assert ended.code == 2
    assert "must not contain duplicate values" in ended.err


def test_not_found_is_3(place: Installation) -> None:
    assert place.run("grant", "show", NOWHERE).code == 3


def test_no_right_is_4(place: Installation, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.token"
    wrong.write_text("flo_0000000000000000_" + "0" * 49)
    wrong.chmod(0o600)
    ended = place.run("peer", "list", "--token-file", str(wrong))
    assert ended.code == 4
    assert "flo_" not in ended.err
    ended = place.run(
        "peer", "register", "--name", "x", "--base-url", "https://x.example",
        "--token-file", str(place.approver),
    )  # fmt: skip
    assert ended.code == 4


def test_stale_is_5(place: Installation, peer: dict[str, Any]) -> None:
    update = ("peer", "update", peer["id"], "--base-url", "https://new.example", "--if-match")
    place.ok(*update, str(peer["version"]))
    assert place.run(*update, str(peer["version"])).code == 5


def test_nobody_there_is_7(place: Installation) -> None:
    assert place.run("peer", "list", "--url", "http://127.0.0.1:1").code == 7


# ---- what is shown --------------------------------------------------------------------------


def test_tables_go_to_stdout_and_hints_to_stderr(place: Installation, peer: dict[str, Any]) -> None:
    ended = place.run("peer", "list", "--all")
    assert ended.out.splitlines()[0].split() == ["ID", "NAME", "STATE", "BASE", "URL"]
    assert peer["id"] in ended.out
    assert ended.err == ""


def test_a_list_can_be_paged_or_taken_whole(place: Installation, peer: dict[str, Any]) -> None:
    place.ok("peer", "register", "--name", f"two {peer['name']}", "--base-url", "https://b.example")
    first = place.run("peer", "list", "--limit", "1")
    assert len(first.out.splitlines()) == 2
    cursor = first.err.split("--cursor ")[1].strip()
    second = place.ok("peer", "list", "--limit", "1", "--cursor", cursor)
    assert second["items"][0]["id"] not in first.out
    assert len(place.ok("peer", "list", "--all")["items"]) >= 2


def test_a_dry_run_shows_the_events_and_records_nothing(
    place: Installation, grant: dict[str, Any]
) -> None:
    ended = place.run("grant", "revoke", grant["id"], "--reason", "perhaps", "--dry-run")
    assert ended.code == 0, ended
    assert "grant.revoked.v1" in ended.out
    assert "nothing was recorded" in ended.err
    assert place.ok("grant", "show", grant["id"])["status"] == "pending_enrollment"


def test_a_key_repeats_a_call_without_a_second_event(place: Installation) -> None:
    register = (
        "peer", "register", "--name", "Repeated", "--base-url", "https://r.example",
        "--idempotency-key", "k-1",
    )  # fmt: skip
    first, second = place.ok(*register), place.run(*register, "--json")
    assert second.document["id"] == first["id"]
    assert "already done" in second.err


def test_a_scope_comes_from_a_file_or_stdin(
    place: Installation, peer: dict[str, Any], tmp_path: Path
) -> None:
    scope = {
        "resources": ["notes"],
        "max_rows_per_query": 5,
        "filters": {"notes": {"include_teams": ["blue"]}},
    }
    file = tmp_path / "scope.json"
    file.write_text(json.dumps(scope))
    propose = (
        "grant", "propose", "--peer-id", peer["id"], "--subject-user-id", "u",
        "--expires-at", "+1d", "--scope",
    )  # fmt: skip
    from_file = place.ok(*propose, str(file))
    from_stdin = place.ok(*propose, "-", stdin=json.dumps(scope))
    assert from_file["scope"] == from_stdin["scope"]
    assert from_file["scope"]["filters"]["notes"]["include_teams"] == ["blue"]


def test_the_exact_bytes_of_an_event(place: Installation) -> None:
    entry = place.run("audit", "show", "1", "--format", "entry").out
    assert entry.startswith("fedledger-event/v1\nposition: 1\n")
    assert len(entry.splitlines()) == 7


def test_a_profile_names_url_and_token_and_must_be_private(place: Installation) -> None:
    profile = place.home / "profile.toml"
    profile.write_text('url = "http://127.0.0.1:1"\ntoken_file = "approver.token"\n')
    profile.chmod(0o600)
    try:
        # The environment's URL wins, the profile's token is used.
        ended = place.run("peer", "register", "--name", "x", "--base-url", "https://x.example")
        assert ended.code == 4
        profile.chmod(0o644)
        ended = place.run("peer", "list")
        assert ended.code == 2
        assert "can be read by others" in ended.err
    finally:
        profile.unlink()


# ---- enrollment -----------------------------------------------------------------------------


def test_a_peer_enrolls_with_url_and_token_alone(
    place: Installation, grant: dict[str, Any], tmp_path: Path
) -> None:
    token = tmp_path / "enrollment.token"
    made = place.ok("enroll", "token", grant["id"], "--out", str(token))
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert made["token"] == str(token)

    stranger = {"FEDLEDGER_HOME": str(tmp_path / "elsewhere"), "FEDLEDGER_TOKEN_FILE": ""}
    redeem = ("enroll", "redeem", "--out", str(tmp_path / "peer"), "--token-file")
    issued = place.ok(*redeem, "-", stdin=token.read_text(), **stranger)
    pem = (tmp_path / "peer" / "client.crt").read_text()
    assert read_extension(pem, "1.3.6.1.4.1.99999.1") == grant["id"]
    chain = x509.load_pem_x509_certificates((tmp_path / "peer" / "chain.pem").read_bytes())
    assert len(chain) >= 2
    chain[0].verify_directly_issued_by(chain[1])
    assert place.ok("cert", "status", issued["serial"])["status"] == "good"

    # Never a second time into the same place, and no other key with the same token.
    assert place.run(*redeem, str(token), **stranger).code == 1
    other = ("enroll", "redeem", "--out", str(tmp_path / "thief"), "--token-file", str(token))
    assert place.run(*other, **stranger).code == 4

    story = place.run("grant", "history", grant["id"]).out
    assert "Enrollment token" in story
    assert f"certificate {issued['serial']}".lower() in story.lower()
    assert "status: active" in story


def test_a_redemption_cut_short_before_the_answer_goes_on(
    place: Installation, grant: dict[str, Any], tmp_path: Path
) -> None:
    token = tmp_path / "enrollment.token"
    place.ok("enroll", "token", grant["id"], "--out", str(token))
    redeem = ("enroll", "redeem", "--out", str(tmp_path / "peer"), "--token-file", str(token))
    lost = place.run(*redeem, "--url", "http://127.0.0.1:1")
    assert lost.code == 7
    key = (tmp_path / "peer" / "client.key").read_bytes()
    first = place.ok(*redeem)
    (tmp_path / "peer" / "client.crt").unlink()
    assert place.ok(*redeem)["serial"] == first["serial"]
    assert (tmp_path / "peer" / "client.key").read_bytes() == key


def test_a_token_is_not_taken_from_the_command_line(place: Installation) -> None:
    ended = place.run("enroll", "redeem", "--out", "/nonexistent", "--token", "fle_x")
    assert ended.code == 2


def test_a_lost_admin_token_is_replaced_on_the_machine(place: Installation, tmp_path: Path) -> None:
    new = tmp_path / "new.token"
    ended = place.run("operator", "credential", "--local", "--out", str(new))
    assert ended.code == 0, ended
    assert place.ok("peer", "list", "--token-file", str(new))["items"] is not None
    alarms = place.ok("alarm", "list", "--open")["items"]
    assert any("credential" in alarm["kind"] for alarm in alarms)
