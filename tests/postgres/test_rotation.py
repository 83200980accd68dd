"""Rotating the authority's key and the database's passwords: nothing lost, wherever it stops."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from cryptography import x509
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier, Literal
from pydantic import SecretStr

from api import authorities, init, rotation, wiring
from api.doctor import examine
from api.rotation import RotationError, Wish, rotate, survey
from api.settings import Settings
from ca import private_files
from ca.local import LocalAuthority, LocalAuthorityError
from ca.reconciler import Reconciler
from ca.step_ca_home import DESCRIPTION
from ledger.application import Ledger
from ledger.errors import UnavailableError
from ledger.events import Actor
from ledger.reading import Call
from migrations.embedded import OWNER, SERVICE, Embedded, EmbeddedError
from migrations.server import SUPERUSER, write_private
from projections.verify import check_ledger
from support import databases
from support.databases import Database
from support.http import ORIGIN, Clock, House, csr

pytestmark = pytest.mark.postgres

NOBODY = Actor(kind="peer", id="unknown", auth="none", source="192.0.2.1")
SYSTEM = Actor(kind="system", id="tests", auth="system")


class StoppedError(Exception):
    """The test pulled the plug."""


def turn(place: House, database: Database, **wish: Any) -> rotation.Rotated:
    return rotate(database.service_dsn, place.home, place.clock, Wish(**wish))


def states(place: House, database: Database) -> dict[str, str]:
    """Folder → state; an authority whose folder is not here by its id."""
    found = survey(database.service_dsn, place.home)
    return {one.folder.name if one.folder else one.id: one.state for one in found}


def token(place: House, name: str) -> str:
    return place.token(place.grant(place.peer(name)["id"])["id"])


def enrolled(place: House, name: str) -> dict[str, Any]:
    """A certificate of a new peer's, from the whole way through HTTP."""
    answer = place.enroll(token(place, name), csr())
    assert answer.status_code == 200, answer.text
    return dict(answer.json)


def issuer(answer: dict[str, Any]) -> str:
    """Who signed it, with the whole chain verified up to a root that the ledger names."""
    certificate = x509.load_pem_x509_certificate(answer["certificate"].encode())
    chain = x509.load_pem_x509_certificates(answer["chain"].encode())
    certificate.verify_directly_issued_by(chain[0])
    for link, above in zip(chain, [*chain[1:], chain[-1]], strict=True):
        link.verify_directly_issued_by(above)
    return chain[0].subject.rfc4514_string()


def roots(place: House) -> str:
    return place.call("authority.roots").text


# ---- the authority --------------------------------------------------------------------------


def test_a_running_service_issues_with_the_new_key_at_once(
    place: House, database: Database
) -> None:
    before, trusted = enrolled(place, "one"), roots(place)
    done = turn(place, database, reason="yearly")
    after = enrolled(place, "two")
    assert issuer(before) != issuer(after)
    assert issuer(after) == f"CN={ORIGIN} issuing CA 2"
    assert roots(place) == trusted
    assert done.state == "adopted"
    assert states(place, database) == {"authority": "retired", "authority-2": "issuing"}
    # What the old one signed is as good as before.
    issuer(before)
    assert place.ok("certificate.status", serial=before["serial"])["status"] == "good"
    topics = [event["topic"] for event in place.ok("event.list", query="limit=500")["items"]]
    assert topics.count("authority.adopted.v1") == 2
    assert topics.count("authority.retired.v1") == 1
    found = {one.state: one for one in survey(database.service_dsn, place.home)}
    assert found["retired"].last_end is not None
    assert not (place.home / "authority-2" / "root.key").exists()


def test_what_was_begun_with_the_old_key_is_finished_with_it(
    place: House, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    cycle = place.parts.services.issuance
    opened, request = token(place, "one"), csr()

    def stop(step: str) -> None:
        raise StoppedError

    with monkeypatch.context() as patched:
        patched.setattr(cycle, "_at_step", stop)
        with pytest.raises(StoppedError):
            cycle.redeem(Call(NOBODY, "stopped"), opened, request)
    done = turn(place, database)
    assert (done.retired, list(done.waiting.values())) == ((), [1])
    assert states(place, database) == {"authority": "finishing", "authority-2": "issuing"}
    assert issuer(enrolled(place, "two")).endswith("issuing CA 2")
    place.parts.maintenance.round()
    assert states(place, database)["authority"] == "finishing", "it is open still"
    again = turn(place, database)
    assert again.state == "finished", "a rotation that waits is not begun anew"
    assert issuer(dict(place.enroll(opened, request).json)).endswith("issuing CA")
    place.parts.maintenance.round()
    assert states(place, database) == {"authority": "retired", "authority-2": "issuing"}


@pytest.mark.parametrize("moment", ["before it is folded", "before it is written"])
def test_an_order_that_meets_the_rotation_goes_to_the_new_authority(
    place: House, database: Database, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The table named the old one; before the append it is retired. The peer notices nothing."""
    opened = token(place, "one")
    cycle, ledger = place.parts.services.issuance, place.parts.services.ledger
    owner, name = (
        (cycle._authorizations, "_current")
        if moment == "before it is folded"
        else (ledger.recorder, "insert_events")
    )
    original = getattr(owner, name)
    turned = False

    def interrupted(*arguments: Any, **named: Any) -> Any:
        nonlocal turned
        first, turned = not turned, True
        if moment == "before it is folded":
            found = original()
            if first:
                turn(place, database)
            return found
        if first:
            turn(place, database)
        return original(*arguments, **named)

    monkeypatch.setattr(owner, name, interrupted)
    answer = place.enroll(opened, csr())
    assert answer.status_code == 200, answer.text
    assert issuer(dict(answer.json)).endswith("issuing CA 2")


@pytest.mark.parametrize("step", range(4))
def test_stopped_before_any_step_it_goes_on(
    place: House, database: Database, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """The plug is pulled before the n-th thing that lasts: a folder, an append."""
    done = 0

    def counted(original: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            nonlocal done
            if done == step:
                raise StoppedError
            done += 1
            return original(*arguments, **named)

        return call

    before = enrolled(place, "one")
    with monkeypatch.context() as patched:
        patched.setattr(private_files, "_move_into_place", counted(private_files._move_into_place))
        patched.setattr(Ledger, "_append", counted(Ledger._append))
        stopped = True
        try:
            turn(place, database)
            stopped = False
        except StoppedError:
            pass
    assert stopped == (step < 3)
    during = enrolled(place, "two")  # the service never stops
    if stopped:
        turn(place, database)
    assert states(place, database) == {"authority": "retired", "authority-2": "issuing"}
    after = enrolled(place, "three")
    assert issuer(after).endswith("issuing CA 2")
    for one in (before, during, after):
        assert place.ok("certificate.status", serial=one["serial"])["status"] == "good"
        issuer(one)
    assert not list(place.home.glob(".authority-*"))


def test_what_a_kill_left_half_written_is_removed(place: House, database: Database) -> None:
    half = place.home / ".authority-2-abc"
    half.mkdir()
    (half / "issuing.key").write_text("half")
    turn(place, database)
    assert not half.exists()


def test_prepared_first_it_can_be_copied_to_other_machines(
    place: House, database: Database, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(place.home / "authority", other / "authority")
    prepared = turn(place, database, prepare=True)
    assert prepared.state == "prepared"
    assert turn(place, database, prepare=True).authority_id == prepared.authority_id
    assert states(place, database) == {"authority": "issuing", "authority-2": "prepared"}
    assert issuer(enrolled(place, "one")).endswith("issuing CA")
    wiring.refuse_unknown(place.parts.services.ledger, place.home)  # a restart meanwhile
    assert turn(place, database).authority_id == prepared.authority_id
    assert issuer(enrolled(place, "two")).endswith("issuing CA 2")
    # The machine that was forgotten says what it lacks.
    with pytest.raises(wiring.WiringError, match="copy it from the machine"):
        wiring.refuse_unknown(place.parts.services.ledger, other)
    shutil.copytree(prepared.folder, other / prepared.folder.name)
    wiring.refuse_unknown(place.parts.services.ledger, other)


def test_an_authority_whose_successor_is_elsewhere_is_not_retired_here(
    place: House, database: Database, tmp_path: Path
) -> None:
    elsewhere = LocalAuthority.create(tmp_path / "elsewhere", name="Other", now=place.clock())
    ledger, one = place.parts.services.ledger, UUID(elsewhere.id)
    call = Call(SYSTEM, "adopt")
    ledger.adopt_authority(call, one, "local", elsewhere.chain(), elsewhere.not_after)
    services = place.parts.services
    reader = place.parts.reader.glance
    Reconciler(ledger, services.issuance, reader, database.service_dsn).run_once(place.clock())
    assert states(place, database) == {"authority": "issuing", elsewhere.id: "elsewhere"}
    assert issuer(enrolled(place, "one")).endswith("issuing CA")
    with pytest.raises(RotationError, match="is not in"):
        turn(place, database)


def test_a_folder_with_another_chain_than_on_record_signs_nothing(
    place: House, database: Database, tmp_path: Path
) -> None:
    done = turn(place, database)
    other = LocalAuthority.create(tmp_path / "other", name="Other", now=place.clock())
    for name in ("issuing.pem", "issuing.key", "root.pem"):
        shutil.copy(tmp_path / "other" / name, done.folder / name)
    assert other.id != done.authority_id
    with pytest.raises(wiring.WiringError, match="not the authority"):
        wiring.refuse_unknown(place.parts.services.ledger, place.home)
    with pytest.raises(UnavailableError) as caught:
        place.parts.services.issuance.signers.current()
    assert caught.value.code == "authority-unavailable"


def test_a_root_near_its_end_is_refused_and_a_new_one_told_of(
    place: House, database: Database
) -> None:
    end = survey(database.service_dsn, place.home)[0].not_after

    def late() -> datetime:
        return end - timedelta(days=20)

    with pytest.raises(RotationError, match="root itself ends") as caught:
        rotate(database.service_dsn, place.home, late, Wish())
    assert "fedledger ca rotate --new-root --prepare" in caught.value.hint
    assert states(place, database) == {"authority": "issuing"}
    trusted = roots(place)
    prepared = turn(place, database, new_root=True, prepare=True)
    assert roots(place) == trusted
    turn(place, database)
    assert roots(place) == trusted + (prepared.folder / "root.pem").read_text()
    assert issuer(enrolled(place, "one")).endswith("issuing CA 2")
    # And the next is under the new root again, by its key in the second folder.
    turn(place, database)
    assert states(place, database)["authority-3"] == "issuing"
    assert issuer(enrolled(place, "two")).endswith("issuing CA 3")


def test_a_root_key_kept_elsewhere(place: House, database: Database, tmp_path: Path) -> None:
    key = tmp_path / "offline.key"
    (place.home / "authority" / "root.key").rename(key)
    with pytest.raises(RotationError) as caught:
        turn(place, database)
    assert "--root-key" in caught.value.hint
    wrong = tmp_path / "wrong"
    LocalAuthority.create(wrong, name="Other", now=place.clock())
    with pytest.raises(LocalAuthorityError, match="not the key"):
        turn(place, database, root_key=wrong / "root.key")
    key.chmod(0o644)
    with pytest.raises(LocalAuthorityError, match="open to others"):
        turn(place, database, root_key=key)
    key.chmod(0o600)
    assert states(place, database) == {"authority": "issuing"}
    turn(place, database, root_key=key)
    assert states(place, database) == {"authority": "retired", "authority-2": "issuing"}
    assert not list(place.home.glob("authority*/root.key"))


def test_doctor_says_in_time_what_to_run(place: House, database: Database) -> None:
    settings = Settings(dsn=SecretStr(database.service_dsn), home=place.home)

    def found(at: datetime) -> tuple[str, str]:
        checks = {check.id: check for check in examine(settings, lambda: at)}
        return checks["authority"].status, checks["authority"].hint

    end = survey(database.service_dsn, place.home)[0].not_after
    assert found(end - timedelta(days=61)) == ("ok", "")
    assert found(end - timedelta(days=59)) == ("warn", rotation.NEW_ROOT)
    assert found(end + timedelta(days=1)) == ("fail", rotation.NEW_ROOT)
    # An issuing certificate that ends long before its root, as another kind of authority has.
    chain, soon = turn(place, database), place.clock() + timedelta(days=29)
    links = LocalAuthority.open(chain.folder).chain()
    call = Call(SYSTEM, "adopt")
    other = uuid4()
    place.parts.services.ledger.adopt_authority(call, other, "step-ca", links, soon)
    assert found(place.clock())[0] == "fail"  # not here to issue
    (folder := place.home / "authority-3").mkdir()
    (folder / DESCRIPTION).write_text(json.dumps({"id": str(other), "kind": "step-ca"}))
    status, hint = found(place.clock())
    assert (status, "init --ca step-ca" in hint) == ("warn", True)
    status, hint = found(soon)
    assert (status, "init --ca step-ca" in hint) == ("fail", True)


def test_init_after_a_rotation_changes_nothing(place: House, database: Database) -> None:
    turn(place, database)
    again = init.furnish(database.service_dsn, place.home, ORIGIN, Clock())
    assert not again.made
    assert states(place, database) == {"authority": "retired", "authority-2": "issuing"}


def test_a_broken_folder_does_not_stop_the_others(place: House, database: Database) -> None:
    done = turn(place, database)
    (place.home / "authority" / "issuing.key").chmod(0o644)
    assert [one.id for one in authorities.usable(place.home)] == [done.authority_id]
    assert issuer(enrolled(place, "one")).endswith("issuing CA 2")


def test_an_empty_ledger_has_nothing_to_rotate(database: Database, tmp_path: Path) -> None:
    with pytest.raises(RotationError, match="no authority") as caught:
        rotate(database.service_dsn, tmp_path, Clock(), Wish())
    assert "fedledger init" in caught.value.hint
    assert check_ledger(database.service_dsn).ok


# ---- the private database's passwords -------------------------------------------------------

ROLES = (SERVICE, OWNER, SUPERUSER)


@pytest.fixture
def home() -> Iterator[Path]:
    made = databases.make_home()
    yield made
    databases.remove_home(made)


def embedded(home: Path) -> Embedded:
    return Embedded(home, bindir=databases.bindir(), grace=0.2, durable=False)


def passwords(home: Path) -> dict[str, str]:
    return {role: (home / f"{role}.pgpass").read_text() for role in ROLES}


def assert_all_connect(postgres: Embedded) -> None:
    for dsn in (postgres.service_dsn, postgres.owner_dsn, postgres.superuser_dsn):
        psycopg.connect(dsn).close()
    assert not list(postgres.home.glob("*.next.pgpass"))


def test_new_passwords_replace_the_old_and_open_connections_live_on(home: Path) -> None:
    with embedded(home) as postgres, psycopg.connect(postgres.service_dsn) as kept:
        before = passwords(home)
        assert postgres.rotate_passwords() == ROLES
        after = passwords(home)
        assert all(before[role] != after[role] for role in ROLES)
        assert kept.execute("SELECT 1").fetchone() == (1,)
        assert_all_connect(postgres)
        write_private(home / "old.pgpass", before[SERVICE])
        dsn = make_conninfo(postgres.service_dsn, passfile=str(home / "old.pgpass"))
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(dsn)
        for file in home.glob("*.pgpass"):
            assert file.stat().st_mode & 0o777 == 0o600
        logged = "".join(file.read_text() for file in (home / "log").iterdir())
        for line in (*before.values(), *after.values()):
            assert line.strip().rpartition(":")[2] not in logged


@pytest.mark.parametrize("told", [False, True], ids=["written", "written and told"])
@pytest.mark.parametrize("role", ROLES)
def test_a_change_cut_short_is_finished_by_whoever_comes_next(
    home: Path, role: str, told: bool
) -> None:
    """The two places where it can be cut: before the server is told, and before the rename."""
    with embedded(home) as postgres:
        beside = home / f"{role}.next.pgpass"
        write_private(beside, f"*:*:*:{role}:the-new-one\n")
        if told:
            with psycopg.connect(postgres.superuser_dsn, autocommit=True) as connection:
                statement = SQL("ALTER ROLE {} PASSWORD {}")
                connection.execute(statement.format(Identifier(role), Literal("the-new-one")))
        with embedded(home) as next_one:
            assert_all_connect(next_one)
            assert "the-new-one" in passwords(home)[role]
        postgres.rotate_passwords()
        assert_all_connect(postgres)


def test_a_rotation_stopped_before_any_step_goes_on(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As killed before the n-th file or rename; the other step is in the test above."""
    from migrations import passwords as module

    with embedded(home) as postgres:
        for step in range(7):
            done = 0

            def counted(original: Callable[..., None], stop: int) -> Callable[..., None]:
                def call(*arguments: Any) -> None:
                    nonlocal done
                    if done == stop:
                        raise StoppedError
                    done += 1
                    original(*arguments)

                return call

            with monkeypatch.context() as patched:
                patched.setattr(module, "write_private", counted(module.write_private, step))
                patched.setattr(module, "sync_folder", counted(module.sync_folder, step))
                with suppress(StoppedError):
                    postgres.rotate_passwords()
                    assert step == 6
            with embedded(home) as next_one:
                assert_all_connect(next_one)


def test_the_superusers_file_lost_is_said(home: Path) -> None:
    with embedded(home) as postgres:
        (home / "postgres.pgpass").unlink()
        with pytest.raises(EmbeddedError, match="cannot be changed"):
            postgres.rotate_passwords()
