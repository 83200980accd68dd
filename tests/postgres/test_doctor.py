"""Doctor sees what is wrong: each ailment made for real, on a real database."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr

from api import doctor, host
from api.doctor import examine, worst
from api.findings import Check
from api.init import furnish
from api.settings import Settings
from api.wiring import system_clock
from support.databases import Cluster, Database

pytestmark = pytest.mark.postgres

CHECKS = {
    "database", "schema", "service-role", "immutability", "clock", "four-eyes", "authority",
    "alarms", "integrity", "history", "key-files", "durability", "checksums", "disk",
    "private-server", "revocation-list",
}  # fmt: skip
# The tests' own cluster is made to be thrown away: here this check is red without our doing.
# Green on a real installation: tests/acceptance/test_cli.py.
HERE = {"durability": "fail"}


@dataclass
class Patient:
    """An installation on a database of the test's own."""

    database: Database
    settings: Settings

    def examine(
        self, clock: Callable[[], datetime] = system_clock, *, whole: bool = False
    ) -> dict[str, Check]:
        return {check.id: check for check in examine(self.settings, clock, whole=whole)}

    def tamper(self, *statements: str) -> None:
        """As somebody with the superuser's right would."""
        with psycopg.connect(self.database.superuser_dsn, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def findings(self, clock: Callable[[], datetime] = system_clock) -> dict[str, str]:
        """What is not as it should be, beyond `HERE`: check → status."""
        found = {c.id: c.status for c in self.examine(clock).values() if c.status != "ok"}
        assert found.items() >= HERE.items()
        return {name: status for name, status in found.items() if name not in HERE}


@pytest.fixture
def patient(database: Database, tmp_path: Path) -> Patient:
    home = tmp_path / "home"
    home.mkdir(0o700)
    furnish(database.service_dsn, home, "test.fedledger.example", system_clock)
    return Patient(database, Settings(dsn=SecretStr(database.service_dsn), home=home))


def test_a_healthy_ledger(patient: Patient) -> None:
    checks = patient.examine()
    assert checks.keys() == CHECKS
    assert patient.findings() == {}
    assert worst([check for check in checks.values() if check.id not in HERE]) == "ok"
    assert "fsync and full_page_writes off" in checks["durability"].detail
    assert "other hands" in checks["four-eyes"].hint


def test_no_database_is_said_once_and_every_check_is_there(patient: Patient) -> None:
    patient.settings = Settings(
        dsn=SecretStr("host=/nonexistent password=hunter2"), home=patient.settings.home
    )
    checks = patient.examine()
    assert checks.keys() == CHECKS
    assert checks["database"].hint
    assert "hunter2" not in str(checks)
    assert worst(list(checks.values())) == "fail"


def test_an_old_schema(empty_database: Database, tmp_path: Path) -> None:
    settings = Settings(dsn=SecretStr(empty_database.owner_dsn), home=tmp_path)
    checks = {check.id: check for check in examine(settings, system_clock)}
    assert checks["schema"].status == "fail"
    assert "fedledger migrate" in checks["schema"].hint
    assert checks["integrity"].status == "fail"


def test_a_role_that_could_change_facts(patient: Patient) -> None:
    patient.settings = Settings(
        dsn=SecretStr(patient.database.owner_dsn), home=patient.settings.home
    )
    assert patient.findings() == {"service-role": "fail"}


def test_a_role_that_was_given_too_much(patient: Patient) -> None:
    patient.tamper("GRANT UPDATE ON ledger_claims TO fedledger_service")
    assert patient.findings() == {"service-role": "fail"}
    assert "ledger_claims" in patient.examine()["service-role"].detail


def test_guards_that_are_off(patient: Patient) -> None:
    patient.tamper("ALTER TABLE ledger_nodes DISABLE TRIGGER ALL")
    assert patient.findings() == {"immutability": "fail"}


@pytest.mark.parametrize(
    ("seconds", "found"), [(-3600, "fail"), (-10, "warn"), (0, None), (10, "warn"), (3600, "fail")]
)
def test_clocks_that_differ(patient: Patient, seconds: int, found: str | None) -> None:
    skewed = patient.findings(lambda: system_clock() + timedelta(seconds=seconds))
    assert skewed.get("clock") == found


def test_an_authority_whose_folder_is_gone(patient: Patient) -> None:
    folder = patient.settings.home / "authority"
    folder.rename(folder.with_name("elsewhere"))
    assert patient.findings() == {"authority": "fail"}
    assert "its folder is not in" in patient.examine()["authority"].detail


def test_an_authority_near_its_end_and_past_it(patient: Patient) -> None:
    end = system_clock() + timedelta(days=3652)
    assert patient.findings(lambda: end - timedelta(days=7))["authority"] == "warn"
    assert patient.findings(lambda: end + timedelta(days=7))["authority"] == "fail"


def test_a_table_that_was_tampered_with(patient: Patient) -> None:
    patient.tamper("UPDATE federation_operators SET roles = '[\"admin\"]'")
    assert patient.findings() == {"integrity": "fail"}
    found = patient.examine()["integrity"]
    assert "federation_operators" in found.detail
    assert "projections rebuild" in found.hint


def test_an_event_that_was_rewritten(patient: Patient) -> None:
    patient.tamper(
        "ALTER TABLE ledger_events DISABLE TRIGGER ALL",
        "UPDATE ledger_events SET recorded_at = recorded_at + interval '1 second' "
        "WHERE position = 1",
        "ALTER TABLE ledger_events ENABLE ALWAYS TRIGGER ledger_events_no_change",
        "ALTER TABLE ledger_events ENABLE ALWAYS TRIGGER ledger_events_no_truncate",
    )
    assert patient.findings() == {"integrity": "fail"}
    # To fold the tables anew from altered events would cover it up.
    assert "projections rebuild" not in patient.examine()["integrity"].hint


def test_history_that_was_lost(patient: Patient) -> None:
    assert patient.findings() == {}
    patient.tamper(
        "ALTER TABLE ledger_events DISABLE TRIGGER ALL",
        "DELETE FROM ledger_events WHERE position = (SELECT max(position) FROM ledger_events)",
        "ALTER TABLE ledger_events ENABLE ALWAYS TRIGGER ledger_events_no_change",
        "ALTER TABLE ledger_events ENABLE ALWAYS TRIGGER ledger_events_no_truncate",
    )
    findings = patient.findings()
    assert findings["history"] == "fail"
    # The mark is kept until somebody has looked: a second run must not make it green.
    assert patient.findings()["history"] == "fail"


def test_a_secret_that_lies_open(patient: Patient) -> None:
    (patient.settings.home / "keys" / "log.key").chmod(0o640)
    assert patient.findings() == {"key-files": "fail"}
    (patient.settings.home / "keys" / "log.key").chmod(0o600)
    (patient.settings.home / "authority" / "issuing.key").chmod(0o604)
    assert patient.findings() == {"key-files": "fail"}


def test_a_large_ledger_is_checked_in_part_and_says_so(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = patient.examine()["integrity"].detail
    assert re.fullmatch(r"all \d+ events and every table are right", whole)
    monkeypatch.setattr(doctor, "_WHOLE", 3)
    assert patient.findings() == {}
    part = patient.examine()["integrity"].detail
    assert re.match(
        r"the newest 1000 of \d+ events and the head are right; older events were not", part
    )
    assert "fedledger doctor --all" in part
    assert "fedledger projections verify" in part
    every = patient.examine(whole=True)["integrity"].detail
    assert re.match(r"all \d+ events and the head are right; no table", every)
    patient.tamper("UPDATE ledger_head SET last_recorded_at = last_recorded_at - interval '1 s'")
    assert patient.findings() == {"integrity": "fail"}
    assert patient.examine(whole=True)["integrity"].status == "fail"


@pytest.mark.parametrize(
    ("mebi", "found"), [(127, "fail"), (129, "warn"), (1023, "warn"), (1025, None)]
)
def test_a_disk_that_fills(
    patient: Patient, monkeypatch: pytest.MonkeyPatch, mebi: int, found: str | None
) -> None:
    monkeypatch.setattr(host, "_free", lambda place: mebi * 1024 * 1024)
    assert patient.findings().get("disk") == found
    if found:
        assert f"{mebi} MiB free" in patient.examine()["disk"].detail


def test_a_home_that_is_gone(patient: Patient) -> None:
    patient.settings = patient.settings.model_copy(update={"home": Path("/nonexistent")})
    assert patient.findings()["disk"] == "fail"


@pytest.mark.parametrize(
    ("number", "found"),
    [(140020, "fail"), (150008, "warn"), (150009, "ok"), (160004, "warn"), (170000, "warn"),
     (180000, "ok"), (190001, "warn")],
)  # fmt: skip
def test_versions_of_postgresql(number: int, found: str) -> None:
    check = host.version(number)
    assert check.status == found
    assert f"PostgreSQL {number // 10000}.{number % 10000} " in check.detail
    assert bool(check.hint) is (found != "ok")


DURABLE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}


@pytest.mark.parametrize(
    ("off", "found"),
    [("fsync", "fail"), ("full_page_writes", "fail"), ("synchronous_commit", "warn")],
)
def test_each_setting_that_keeps_data(off: str, found: str) -> None:
    assert host.judge_durability(DURABLE).status == "ok"
    check = host.judge_durability({**DURABLE, off: "off"})
    assert (check.status, off in check.detail) == (found, True)


def test_checksums_that_are_off() -> None:
    assert host.judge_checksums({"data_checksums": "on"}).status == "ok"
    assert host.judge_checksums({"data_checksums": "off"}).status == "warn"


def test_a_private_server_that_lies_open(cluster: Cluster) -> None:
    """On the run's own server, which has the product's layout; only what is not in use is moved."""
    home = cluster._postgres.home
    settings = Settings(home=home)
    assert host.private_server(settings).status == "ok"
    logs = home / "log"
    logs.chmod(0o750)
    try:
        assert "log has mode 0750" in host.private_server(settings).detail
        assert host.private_server(settings).status == "fail"
    finally:
        logs.chmod(0o700)


def test_a_private_server_that_is_not_there_or_not_used(tmp_path: Path) -> None:
    assert host.private_server(Settings(home=tmp_path)).status == "fail"
    elsewhere = Settings(home=tmp_path, dsn=SecretStr("host=/nowhere"))
    assert host.private_server(elsewhere).status == "ok"


def test_an_open_alarm(patient: Patient) -> None:
    from contextlib import closing

    from api.wiring import open_ledger
    from ledger.events import Actor
    from ledger.store import Call

    actor = Actor(kind="system", id="tests", auth="system")
    with closing(open_ledger(patient.database.service_dsn, system_clock)) as ledger:
        ledger.raise_alarm(Call(actor, "r-1", reason="test"), "something", (), "look")
    assert patient.findings() == {"alarms": "warn"}


def test_an_empty_ledger_has_no_authority(database: Database, tmp_path: Path) -> None:
    settings = Settings(dsn=SecretStr(database.service_dsn), home=tmp_path)
    found = {check.id: check.status for check in examine(settings, system_clock)}
    assert found["authority"] == "fail"
    assert found["history"] == "warn"
