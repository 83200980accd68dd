"""Looks at an installation from outside and says what is wrong with it. It mends nothing.

Each check has an id that never changes, a status, what was found, and the next step. Adding a check
is adding a function to `_CHECKS` below.
"""

import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeAlias

import psycopg
from cryptography import x509
from psycopg.rows import tuple_row

from api import host, list_checks, step_ca_checks, tables
from api.authorities import ids
from api.findings import Check, Status
from api.last_seen import LastSeen
from api.rotation import NEW_ROOT, ROOT_ENDS_SOON
from api.settings import Settings
from api.wiring import WiringError, database
from ledger.database import Reads
from ledger.errors import LedgerError
from ledger.record import Record
from migrations import runner
from migrations.embedded import EmbeddedError
from projections import alarms, authorities, policy, verify

_Clock: TypeAlias = Callable[[], datetime]
_Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

EXIT: Final[dict[Status, int]] = {"ok": 0, "warn": 1, "fail": 2}
_SKEW: Final = timedelta(seconds=30)  # beyond it the ledger itself refuses to write
_NEAR_SKEW: Final = timedelta(seconds=5)
_AHEAD: Final = timedelta(seconds=60)
_AUTHORITY_ENDS_SOON: Final = timedelta(days=30)
_CONNECT_SECONDS: Final = 10
_WHOLE: Final = 20_000  # events; a ledger up to this size is checked whole, in seconds
_PART: Final = 1_000  # of a larger one, the newest events
_FOR_TABLES: Final = "`fedledger projections verify` compares them with all events"
_PRIVATE_SUFFIXES: Final = frozenset({".key", ".token", ".pgpass", ".password"})
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO

_ROLE: Final = (
    "SELECT r.rolname::text, r.rolsuper OR r.rolcreaterole OR pg_has_role(c.relowner, 'USAGE') "
    "FROM pg_roles r, pg_class c WHERE r.rolname = current_user AND c.oid = to_regclass(%s)"
)
_MAY_CHANGE: Final = "SELECT has_table_privilege(%s, 'UPDATE, DELETE, TRUNCATE')"
_FACTS: Final = ("ledger_events", "ledger_nodes", "ledger_claims", "ledger_idempotency")


@dataclass(frozen=True, slots=True)
class _Scene:
    settings: Settings
    clock: _Clock
    dsn: str
    connection: _Connection
    whole: bool  # every event of a large ledger, too


def examine(settings: Settings, clock: _Clock, *, whole: bool = False) -> list[Check]:
    """Run every check and return its finding, in order; no check stops the others.

    `whole`: look at every event however many there are, which takes about two minutes a million,
    and 600 MiB.
    """
    try:
        with _scene(settings, clock, whole) as scene:
            found = [_run(name, check, scene) for name, check in _CHECKS]
    except (psycopg.Error, EmbeddedError, WiringError) as error:
        unreached = Check("database", "fail", str(error).strip(), _hint_for_database(settings))
        found = [unreached, *(_unseen(name) for name, _ in _CHECKS if name != "database")]
    local = (_look(name, check, settings) for name, check in _ON_THIS_MACHINE)
    return [*found, *local, *step_ca_checks.checks(settings, clock)]


def worst(checks: list[Check]) -> Status:
    """Return the status of the whole: that of its worst part."""
    return max((check.status for check in checks), key=EXIT.__getitem__, default="ok")


@contextmanager
def _scene(settings: Settings, clock: _Clock, whole: bool) -> Iterator[_Scene]:
    with database(settings) as dsns, psycopg.connect(
        dsns.service, autocommit=True, connect_timeout=_CONNECT_SECONDS,
        application_name="fedledger doctor", row_factory=tuple_row,
    ) as connection:  # fmt: skip
        yield _Scene(settings, clock, dsns.service, connection, whole)


def _hint_for_database(settings: Settings) -> str:
    if settings.embedded:
        return "Run `fedledger up`, or set FEDLEDGER_HOME to where the ledger is."
    return "Start the database, or correct FEDLEDGER_DSN."


def _unseen(name: str) -> Check:
    return Check(name, "fail", "not examined: the database is out of reach")


def _run(name: str, check: Callable[[_Scene], Check], scene: _Scene) -> Check:
    try:
        return check(scene)
    except (psycopg.Error, LedgerError, runner.MigrationError, OSError) as error:
        return Check(name, "fail", f"cannot be examined: {str(error).strip()}")


def _look(name: str, check: Callable[[Settings], Check], settings: Settings) -> Check:
    try:
        return check(settings)
    except (OSError, EmbeddedError) as error:
        return Check(name, "fail", f"cannot be examined: {error}")


# ---- the checks -----------------------------------------------------------------------------


def _database_check(scene: _Scene) -> Check:
    return host.version(scene.connection.info.server_version)


def _durability(scene: _Scene) -> Check:
    return host.durability(scene.connection)


def _checksums(scene: _Scene) -> Check:
    return host.checksums(scene.connection)


def _schema(scene: _Scene) -> Check:
    missing = runner.pending(scene.dsn)
    if missing:
        return Check("schema", "fail", f"lacks {', '.join(missing)}", "Run `fedledger migrate`.")
    if others := tables.of_other_releases(scene.connection):
        what = ", ".join(f"{name} of release {release}" for name, release in others.items())
        return Check("schema", "fail", f"tables: {what}", "Run `fedledger migrate`.")
    return Check("schema", "ok", "is this release's, and so are the tables")


def _service_role(scene: _Scene) -> Check:
    row = scene.connection.execute(_ROLE, (_FACTS[0],)).fetchone()
    if row is None:
        return Check("service-role", "fail", "the tables are missing", "Run `fedledger migrate`.")
    name, powerful = row
    able = [table for table in _FACTS if _one(scene, _MAY_CHANGE, table)]
    if powerful or able:
        what = "owns the tables or is a superuser" if powerful else f"may change {', '.join(able)}"
        return Check(
            "service-role", "fail", f"{name} {what}",
            "Let FEDLEDGER_DSN name a login role that is a member of fedledger_service only.",
        )  # fmt: skip
    return Check("service-role", "ok", f"{name} may add facts and change none")


def _triggers(scene: _Scene) -> Check:
    rows = scene.connection.execute(
        "SELECT tgrelid::regclass::text, count(*) FROM pg_trigger "
        "WHERE NOT tgisinternal AND tgenabled = 'A' AND tgrelid::regclass::text = ANY(%s) "
        "GROUP BY 1",
        (list(_FACTS),),
    ).fetchall()
    armed: dict[str, int] = dict(rows)
    weak = [table for table in _FACTS if armed.get(table, 0) < 2]  # no change, no truncate
    if weak:
        return Check(
            "immutability", "fail", f"the guards of {', '.join(weak)} are off",
            "Somebody with the owner's right turned them off: find out who, then restore them.",
        )  # fmt: skip
    return Check("immutability", "ok", "facts cannot be changed, by no role")


def _clocks(scene: _Scene) -> Check:
    before = scene.clock()
    theirs = _one(scene, "SELECT clock_timestamp()")
    ours = before + (scene.clock() - before) / 2
    skew = abs(theirs - ours)
    last = _one(scene, "SELECT last_recorded_at FROM ledger_head")
    if skew > _SKEW:
        return Check("clock", "fail", f"{_seconds(skew)} from the database's", _NTP)
    if last is not None and last - ours > _AHEAD:
        return Check("clock", "fail", f"the last event is {_seconds(last - ours)} ahead", _NTP)
    if skew > _NEAR_SKEW:
        return Check("clock", "warn", f"{_seconds(skew)} from the database's", _NTP)
    return Check("clock", "ok", f"within {_seconds(_NEAR_SKEW)} of the database's")


def _four_eyes(scene: _Scene) -> Check:
    if not policy.current(scene.connection).four_eyes:
        return Check(
            "four-eyes", "warn", "off: the proposer's side approves sensitive grants itself",
            "An approver can turn it on: `fedledger policy change --four-eyes`.",
        )  # fmt: skip
    token = scene.settings.home / "approver.token"
    # No warning: on the day of `init` this is as it should be, and nobody can see whose hands.
    hint = f"{token} belongs in other hands: give it away, remove it here." * token.exists()
    return Check("four-eyes", "ok", "a second person approves sensitive grants", hint)


def _authority(scene: _Scene) -> Check:
    live = [found for found in authorities.everything(scene.connection) if not found.retired_at]
    if not live:
        return Check("authority", "fail", "none: no certificate can be issued", "Run `init`.")
    newest = live[-1]  # the one adopted last issues
    if str(newest.id) not in ids(scene.settings.home):
        detail = f"{newest.kind}, but its folder is not in {scene.settings.home}"
        return Check("authority", "fail", f"{detail}: no certificate can be issued here", _PUT_BACK)
    left = newest.not_after - scene.clock()
    detail = f"{newest.kind}, ends {newest.not_after:%Y-%m-%d %H:%M:%S} UTC"
    root = x509.load_der_x509_certificate(newest.chain[-1]).not_valid_after_utc
    if root - scene.clock() < ROOT_ENDS_SOON:
        detail, hint = f"{detail}, its root {root:%Y-%m-%d}", NEW_ROOT
    elif left < _AUTHORITY_ENDS_SOON:
        hint = "Run `fedledger ca rotate`."
    else:
        return Check("authority", "ok", detail)
    if newest.kind == "step-ca":
        hint = _ELSEWHERE
    return Check("authority", "warn" if left > timedelta(0) else "fail", detail, hint)


def _revocation_list(scene: _Scene) -> Check:
    return list_checks.check(scene.dsn, scene.clock, lambda: nullcontext(scene.connection))


def _alarms(scene: _Scene) -> Check:
    waiting = alarms.count_open(scene.connection)
    if waiting:
        return Check(
            "alarms", "warn", f"{waiting} open",
            "Look at them with `fedledger alarm list`, then acknowledge each with a reason.",
        )  # fmt: skip
    return Check("alarms", "ok", "none open")


def _integrity(scene: _Scene) -> Check:
    size = _one(scene, "SELECT size FROM ledger_head") or 0
    if size <= _WHOLE:
        report = verify.check_ledger(scene.dsn)
        right = f"all {size} events and every table are right"
    elif scene.whole:
        report = verify.check_newest(scene.dsn, size)
        right = f"all {size} events and the head are right; no table was looked at: {_FOR_TABLES}"
    else:
        report = verify.check_newest(scene.dsn, _PART)
        right = (
            f"the newest {_PART} of {size} events and the head are right; older events were not looked "
            f"at: `fedledger doctor --all` does; nor any table: {_FOR_TABLES}"
        )
    if report.violations:
        shown = "; ".join(f"{where}: {what}" for where, what in report.violations[:5])
        return Check(
            "integrity", "fail", f"{len(report.violations)} violations: {shown}",
            _TAMPERED if report.recorded else _TABLES_ALONE,
        )  # fmt: skip
    return Check("integrity", "ok", right)


def _history(scene: _Scene) -> Check:
    """Compare with the head seen last: a restored old backup is sound, yet lost events."""
    reads = Reads(scene.dsn, 1)
    try:
        seen = LastSeen(scene.settings.home, Record(reads))
        if objection := seen.objection():
            return Check("history", "fail", objection, seen.advice())
        size = seen.remember()
    finally:
        reads.close()
    if size == 0:
        return Check("history", "warn", "the ledger is empty", "Run `fedledger init`.")
    return Check("history", "ok", f"{size} events, nothing lost since the last look")


def _key_files(settings: Settings) -> Check:
    open_ones = [path for path in _secrets_in(settings.home) if path.stat().st_mode & _OTHERS]
    if open_ones:
        names = ", ".join(map(str, open_ones))
        return Check("key-files", "fail", f"others can read {names}", "chmod 600 them.")
    return Check("key-files", "ok", f"private in {settings.home}")


def _secrets_in(home: Path) -> list[Path]:
    try:
        return [
            path
            for path in (*home.glob("*"), *home.glob("*/*.key"))
            if path.suffix in _PRIVATE_SUFFIXES and path.is_file()
        ]
    except OSError:
        return []


def _one(scene: _Scene, query: str, *values: object) -> Any:
    row = scene.connection.execute(query.encode(), values).fetchone()
    return row[0] if row else None


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():.1f} s"


_NTP: Final = "Set the clocks of this machine and of the database right (NTP)."
_ELSEWHERE: Final = "Make its certificates anew where the step-ca runs, then run `fedledger init --ca step-ca` again."
_PUT_BACK: Final = "Put the folder back, from a backup or from the machine that has it."
_TAMPERED: Final = "Stop writing, keep everything as it is, and compare with a backup."
_TABLES_ALONE: Final = (
    "The events are right, tables are not: find out who wrote there, then run "
    "`fedledger projections rebuild`."
)
_CHECKS: Final[tuple[tuple[str, Callable[[_Scene], Check]], ...]] = (
    ("database", _database_check),
    ("durability", _durability),
    ("checksums", _checksums),
    ("schema", _schema),
    ("service-role", _service_role),
    ("immutability", _triggers),
    ("clock", _clocks),
    ("four-eyes", _four_eyes),
    ("authority", _authority),
    ("revocation-list", _revocation_list),
    ("alarms", _alarms),
    ("integrity", _integrity),
    ("history", _history),
)
_ON_THIS_MACHINE: Final[tuple[tuple[str, Callable[[Settings], Check]], ...]] = (
    ("key-files", _key_files),
    ("disk", host.disk),
    ("private-server", host.private_server),
)
