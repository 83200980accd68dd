"""`init`: makes everything once, goes on after an interruption, and never overwrites."""

import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from api import init, wiring
from ledger import bearer
from ledger.events import LEDGER_ID
from ledger.identity import Identity
from projections import operators
from projections.verify import check_ledger
from support.databases import Database
from support.http import ORIGIN, Clock


class StoppedError(Exception):
    """The test pulled the plug."""


def _furnish(database: Database, home: Path) -> init.Initialised:
    return init.furnish(database.service_dsn, home, ORIGIN, Clock())


def _works(database: Database, path: Path) -> bool:
    token = bearer.parse(path.read_text().strip())
    assert token is not None
    with psycopg.connect(database.service_dsn) as connection:
        known = operators.credential(connection, token.accessor)
    return (
        known is not None
        and known.live(Clock()())
        and bearer.same_digest(token.digest, known.token_sha256)
    )


def _files(home: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()
    }


def test_what_there_is_afterwards(database: Database, tmp_path: Path) -> None:
    made = _furnish(database, tmp_path)
    assert made.made
    assert made.log_key.startswith(f"{ORIGIN}+")
    for role in ("admin", "approver"):
        path = made.tokens[role]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert _works(database, path)
    assert stat.S_IMODE((tmp_path / init.LOG_KEY).stat().st_mode) == 0o600
    assert not (tmp_path / "init.unfinished").exists()
    report = check_ledger(database.service_dsn)
    assert report.ok, str(report)
    assert report.size == 7


def test_again_it_changes_nothing(database: Database, tmp_path: Path) -> None:
    _furnish(database, tmp_path)
    before = _files(tmp_path)
    again = _furnish(database, tmp_path)
    assert not again.made
    assert _files(tmp_path) == before
    assert check_ledger(database.service_dsn).size == 7


def test_a_token_taken_away_is_not_made_again(database: Database, tmp_path: Path) -> None:
    made = _furnish(database, tmp_path)
    made.tokens["approver"].unlink()  # it was given into other hands
    _furnish(database, tmp_path)
    assert not made.tokens["approver"].exists()
    assert check_ledger(database.service_dsn).size == 7


@pytest.mark.parametrize("step", range(12))
def test_interrupted_anywhere_it_converges(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """The plug is pulled before the n-th thing that lasts: an append, a file."""
    done = 0

    def counted(original: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            nonlocal done
            if done == step:
                raise StoppedError
            done += 1
            return original(*arguments, **named)

        return call

    with monkeypatch.context() as patched:
        patched.setattr(init, "write_new", counted(init.write_new))
        patched.setattr(init.LocalAuthority, "create", counted(init.LocalAuthority.create))
        patched.setattr(init.Ledger, "_append", counted(init.Ledger._append))
        try:
            _furnish(database, tmp_path)
        except StoppedError:
            pass
        else:
            assert step >= done
    kept = {
        name: content
        for name, content in _files(tmp_path).items()
        if name.endswith((".key", ".token", ".pem"))
    }
    made = _furnish(database, tmp_path)
    after = _files(tmp_path)
    assert {name: after[name] for name in kept} == kept
    for path in made.tokens.values():
        assert _works(database, path)
    with psycopg.connect(database.service_dsn) as connection:
        for role in ("admin", "approver"):
            (only,) = operators.enabled_with_role(connection, role)
            live = [c for c in operators.credentials_of(connection, only.id) if not c.revoked_at]
            assert len(live) == 1
    with closing(wiring.open_ledger(database.service_dsn, Clock())) as ledger:
        identity = ledger.load(Identity, LEDGER_ID)
        assert identity is not None
        assert identity.log_key == made.log_key
    assert not (tmp_path / "init.unfinished").exists()
    assert check_ledger(database.service_dsn).ok


def test_a_home_of_another_ledger_is_refused(database: Database, tmp_path: Path) -> None:
    _furnish(database, tmp_path)
    (tmp_path / init.LOG_KEY).unlink()
    with pytest.raises(wiring.WiringError, match="put the ledger's log key back"):
        _furnish(database, tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(wiring.WiringError, match="missing"):
        _furnish(database, other)


def test_tokens_of_another_ledger_are_refused(database: Database, tmp_path: Path) -> None:
    stranger = bearer.mint(bearer.BearerKind.OPERATOR, bytes).text
    init.write_new(tmp_path / "admin.token", stranger.encode())
    with pytest.raises(wiring.WiringError, match="another ledger"):
        _furnish(database, tmp_path)


def test_a_login_role_is_admitted(database: Database) -> None:
    """With a DSN of one's own the serving role is some login role, made by whoever runs the server."""
    role = f"r_{database.name}"
    dsn = make_conninfo(database.service_dsn, user=role, password="x", passfile="/dev/null")
    with psycopg.connect(database.superuser_dsn, autocommit=True) as superuser:
        superuser.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
        try:
            # Here a superuser made the service role, so the owner cannot hand it out ...
            with pytest.raises(wiring.WiringError, match=f'GRANT "fedledger_service" TO "{role}"'):
                init.migrate(wiring.Dsns(dsn, database.owner_dsn))
            superuser.execute("GRANT fedledger_service TO fedledger_owner WITH ADMIN OPTION")
            # ... and where the migration made it, the owner can.
            assert init.migrate(wiring.Dsns(dsn, database.owner_dsn)) == []
            wiring.refuse_power(dsn)
        finally:
            superuser.execute("REVOKE fedledger_service FROM fedledger_owner CASCADE")
            superuser.execute(f"DROP ROLE {role}")


def test_migrating_takes_the_owner(database: Database) -> None:
    with pytest.raises(wiring.WiringError, match="FEDLEDGER_OWNER_DSN"):
        init.migrate(wiring.Dsns(database.service_dsn, None))
