"""`fedledger init --ca step-ca` against a real server: what it pins, what it refuses, and again."""

import json
import signal
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from pydantic import SecretStr

from api import authorities
from api.doctor import examine
from api.init import Initialised, furnish
from api.settings import Settings
from api.step_ca import Wish
from api.wiring import WiringError, system_clock
from ca.local import LocalAuthority
from ca.profile import DEFAULT_ARC
from ca.step_ca import StepCaAuthority
from ca.step_ca_rotation import Passwords, rotate_provisioner_key, rotate_provisioner_password
from ledger.application import Ledger
from projections import authorities as on_record
from projections.verify import check_ledger
from support.databases import Database
from support.step_ca import StepCa, step_ca
from support.waiting import wait_until

pytestmark = [pytest.mark.step_ca, pytest.mark.postgres]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StepCa]:
    (tmp_path / "server").mkdir()
    with step_ca(tmp_path / "server") as found:
        yield found


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir(0o700)
    return tmp_path / "home"


def wish(server: StepCa, **more: Any) -> Wish:
    made = Wish(server.url, server.directory / "for-ledger", None, None, DEFAULT_ARC)
    return replace(made, **more)


def connect(database: Database, home: Path, chosen: Wish | None) -> Initialised:
    made = furnish(database.service_dsn, home, "test.fedledger.example", system_clock, chosen)
    report = check_ledger(database.service_dsn)
    assert report.ok, str(report)
    return made


def in_days(days: int) -> Callable[[], datetime]:
    """A clock that is ahead."""
    return lambda: system_clock() + timedelta(days=days)


def live(database: Database) -> list[tuple[str, str]]:
    """(kind, id) of the authorities that were not retired, oldest first."""
    with psycopg.connect(database.service_dsn) as connection:
        rows = on_record.everything(connection)
    return [(row.kind, str(row.id)) for row in rows if row.retired_at is None]


def reread(server: StepCa, kid: str) -> None:
    """Let the server read ca.json anew, and wait until it shows this key."""
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)

    def shown() -> bool:
        found = httpx.get(f"{server.url}/provisioners", verify=False, trust_env=False)
        return kid in found.text

    wait_until(shown, "the server has read its configuration")


def test_a_new_ledger_issues_with_it(server: StepCa, database: Database, home: Path) -> None:
    made = connect(database, home, wish(server))
    assert made.made
    assert live(database) == [("step-ca", made.authority_id)]
    authority = authorities.open_one(home / "authority")
    assert isinstance(authority, StepCaAuthority)
    for path in (home / "authority").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    names = {path.name for path in (home / "authority").iterdir()}
    assert not any("ca_key" in name for name in names)


def test_doctor_says_where_its_end_is_mended(
    server: StepCa, database: Database, home: Path
) -> None:
    connect(database, home, wish(server))
    settings = Settings(dsn=SecretStr(database.service_dsn), home=home)
    for days, found in ((0, "ok"), (3640, "warn"), (3660, "fail")):
        checks = {check.id: check for check in examine(settings, in_days(days))}
        assert checks["authority"].status == found
        assert ("where the step-ca runs" in checks["authority"].hint) == (found != "ok")
        assert checks["ca-reachable"].status == "ok"


def test_again_it_changes_nothing_and_needs_no_server(
    server: StepCa, database: Database, home: Path
) -> None:
    first = connect(database, home, wish(server))
    files = {path: path.read_bytes() for path in (home / "authority").iterdir()}
    again = connect(database, home, wish(server))
    server.stop()
    down = connect(database, home, wish(server))
    for path in (server.directory / "for-ledger").iterdir():
        path.unlink()
    gone = connect(database, home, wish(server))
    for one in (again, down, gone):
        assert not one.made
        assert not one.adopted
        assert one.authority_id == first.authority_id
    assert {path: path.read_bytes() for path in (home / "authority").iterdir()} == files
    assert [path.name for path in authorities.folders(home)] == ["authority"]


def test_a_ledger_with_an_authority_of_its_own_changes_over(
    server: StepCa, database: Database, home: Path
) -> None:
    local = connect(database, home, None)
    made = connect(database, home, wish(server))
    assert (made.made, made.adopted) == (False, True)
    assert live(database) == [("step-ca", made.authority_id)]
    assert made.authority_id != local.authority_id
    assert isinstance(authorities.open_one(home / "authority"), LocalAuthority)
    # Without saying it again, nothing goes back.
    connect(database, home, None)
    assert live(database) == [("step-ca", made.authority_id)]


def test_cut_short_before_it_is_adopted_it_goes_on(
    server: StepCa, database: Database, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StoppedError(Exception):
        """The test pulled the plug."""

    def stopped(*_: object, **__: object) -> None:
        raise StoppedError

    local = connect(database, home, None)
    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "adopt_authority", stopped)
        with pytest.raises(StoppedError):
            connect(database, home, wish(server))
    assert live(database) == [("local", local.authority_id)]
    made = connect(database, home, wish(server))
    assert live(database) == [("step-ca", made.authority_id)]
    assert [path.name for path in authorities.folders(home)] == ["authority", "authority-2"]


def test_the_fingerprint_given_goes_before_the_one_in_the_folder(
    server: StepCa, database: Database, home: Path
) -> None:
    noted = server.directory / "for-ledger" / "root_fingerprint"
    right = noted.read_text().strip()
    noted.unlink()
    with pytest.raises(WiringError, match="FEDLEDGER_CA_ROOT_FINGERPRINT"):
        connect(database, home, wish(server))
    connect(database, home, wish(server, fingerprint=right.upper()))


@pytest.mark.parametrize("fingerprint", ["0" * 64, "no fingerprint"])
def test_another_root_is_refused(
    server: StepCa, database: Database, home: Path, fingerprint: str
) -> None:
    with pytest.raises(WiringError, match="not the CA that was asked for"):
        connect(database, home, wish(server, fingerprint=fingerprint))
    assert authorities.folders(home) == []


def test_a_server_that_is_down_is_refused(server: StepCa, database: Database, home: Path) -> None:
    server.stop()
    with pytest.raises(WiringError, match="cannot be asked"):
        connect(database, home, wish(server))
    assert authorities.folders(home) == []
    # And once it is there, the same command goes on.
    server.start()
    assert connect(database, home, wish(server)).made


def renewable(document: dict[str, Any]) -> None:
    document["authority"]["provisioners"][0]["claims"]["disableRenewal"] = False


def another_template(document: dict[str, Any]) -> None:
    document["authority"]["provisioners"][0]["options"]["x509"]["template"] = "{}"


def nameless(document: dict[str, Any]) -> None:
    document["authority"]["provisioners"][0]["name"] = "another"


@pytest.mark.parametrize(
    ("change", "said"),
    [(renewable, "ca-renewal"), (another_template, "ca-template"), (nameless, "ca-provisioner")],
)
def test_a_server_that_cannot_be_relied_on_is_refused(
    server: StepCa, database: Database, home: Path, change: Any, said: str
) -> None:
    server.configure(change)
    server.restart()
    with pytest.raises(WiringError, match=said):
        connect(database, home, wish(server))
    assert authorities.folders(home) == []


def test_a_key_of_another_ca_is_refused(
    server: StepCa, database: Database, home: Path, tmp_path: Path
) -> None:
    rotate_provisioner_key(server.directory)  # the server does not know it yet
    with pytest.raises(WiringError, match="ca-key"):
        connect(database, home, wish(server))


def test_the_password_may_stay_where_it_is(
    server: StepCa, database: Database, home: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    (server.directory / "for-ledger" / "provisioner.password").rename(secret)
    connect(database, home, wish(server, password_file=secret))
    assert not (home / "authority" / "provisioner.password").exists()
    assert isinstance(authorities.open_one(home / "authority"), StepCaAuthority)


def test_a_new_provisioner_key_makes_a_new_authority(
    server: StepCa, database: Database, home: Path
) -> None:
    first = connect(database, home, wish(server))
    rotate_provisioner_key(server.directory)
    document = json.loads(server.config.read_text())
    reread(server, document["authority"]["provisioners"][0]["key"]["kid"])
    second = connect(database, home, wish(server))
    assert second.adopted
    assert live(database) == [("step-ca", second.authority_id)]
    assert second.authority_id != first.authority_id
    old, new = (authorities.open_one(home / name) for name in ("authority", "authority-2"))
    assert isinstance(old, StepCaAuthority)
    assert isinstance(new, StepCaAuthority)
    assert old.home.kid != new.home.kid
    assert not connect(database, home, wish(server)).adopted


def test_a_new_provisioner_password_where_the_ledger_keeps_it(
    server: StepCa, database: Database, home: Path
) -> None:
    connect(database, home, wish(server))
    before = (home / "authority" / "provisioner.jwe").read_bytes()
    rotate_provisioner_password(home / "authority", Passwords())
    assert (home / "authority" / "provisioner.jwe").read_bytes() != before
    authority = authorities.open_one(home / "authority")
    assert isinstance(authority, StepCaAuthority)
    assert not connect(database, home, wish(server)).adopted


def test_a_password_rotated_elsewhere_is_taken_over(
    server: StepCa, database: Database, home: Path, tmp_path: Path
) -> None:
    """A container's secret changes, and what the home keeps no longer opens: init mends it."""
    secret = tmp_path / "secret"
    secret.write_text("the first password\n")
    for_ledger = server.directory / "for-ledger"
    rotate_provisioner_password(for_ledger, Passwords(new=secret))
    chosen = wish(server, password_file=secret)
    first = connect(database, home, chosen)
    secret.write_text("the second password\n")
    rotate_provisioner_password(
        for_ledger, Passwords(current=for_ledger / "provisioner.password", new=secret)
    )
    again = connect(database, home, chosen)
    assert (again.authority_id, again.adopted) == (first.authority_id, False)
    assert isinstance(authorities.open_one(home / "authority"), StepCaAuthority)
