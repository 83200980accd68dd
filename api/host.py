"""Doctor's look at what the ledger stands on: the server's settings, the disk, the private server.

It reads and judges; it changes no setting and no mode. What the ledger itself says is looked at in
`doctor.py`.
"""

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import psycopg

from api.findings import Check
from api.settings import Settings
from migrations.server import Server

_OLDEST, _NEWEST = 15, 18  # PostgreSQL majors this release was tested with
# Below these, updates of the catalog in place could be lost and leave corrupt indexes behind
# (PostgreSQL release notes 15.9, 16.5 and 17.1, of 14 November 2024).
_SAFE_MINORS: Final[Mapping[int, int]] = MappingProxyType({15: 9, 16: 5, 17: 1})

_SETTINGS: Final = "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)"
_MEBI: Final = 1024 * 1024
_DISK_FAIL: Final = 128 * _MEBI  # a few more segments of write-ahead log, then the server stops
_DISK_WARN: Final = 1024 * _MEBI


def version(number: int) -> Check:
    """Judge `server_version_num`, such as 180006 for 18.6."""
    major, minor = divmod(number, 10000)
    detail = f"PostgreSQL {major}.{minor} answers"
    if major < _OLDEST:
        return Check("database", "fail", detail, f"Use PostgreSQL {_OLDEST} to {_NEWEST}.")
    if minor < _SAFE_MINORS.get(major, 0):
        return Check(
            "database", "warn", f"{detail}, with known faults that can damage data",
            f"Update to {major}.{_SAFE_MINORS[major]} or a newer {major}.",
        )  # fmt: skip
    if major > _NEWEST:
        return Check("database", "warn", detail, f"Tested are PostgreSQL {_OLDEST} to {_NEWEST}.")
    return Check("database", "ok", detail)


def durability(connection: psycopg.Connection[Any]) -> Check:
    """Whether what is acknowledged survives a power cut."""
    return judge_durability(
        _settings(connection, "fsync", "full_page_writes", "synchronous_commit")
    )


def judge_durability(found: Mapping[str, str]) -> Check:
    """Judge the three settings. The ledger's own appends turn synchronous_commit on themselves."""
    off = [name for name in ("fsync", "full_page_writes") if found.get(name) != "on"]
    if off:
        return Check(
            "durability", "fail", f"{' and '.join(off)} off: a power cut can destroy the ledger",
            "Turn them on in postgresql.conf, then reload the server.",
        )  # fmt: skip
    if found.get("synchronous_commit") == "off":
        return Check(
            "durability", "warn", "synchronous_commit is off; only the ledger's appends wait",
            "Turn it on in postgresql.conf, for this database or for this role.",
        )  # fmt: skip
    return Check("durability", "ok", "fsync, full_page_writes and synchronous_commit are on")


def checksums(connection: psycopg.Connection[Any]) -> Check:
    """Whether the server notices a page that the disk changed."""
    return judge_checksums(_settings(connection, "data_checksums"))


def judge_checksums(found: Mapping[str, str]) -> Check:
    if found.get("data_checksums") == "on":
        return Check("checksums", "ok", "data pages carry checksums")
    return Check(
        "checksums", "warn", "data pages carry no checksums: a failing disk goes unnoticed",
        "Stop the server and run pg_checksums --enable.",
    )  # fmt: skip


def disk(settings: Settings) -> Check:
    """Free space where keys and the private server's data are; another server's is not seen."""
    places = [settings.home, settings.home / "data"] if settings.embedded else [settings.home]
    found = [(_free(place), place) for place in places if place.exists()]
    if not found:
        return Check("disk", "fail", f"{settings.home} is missing", "Run `fedledger init`.")
    free, place = min(found)
    detail = f"{free // _MEBI} MiB free at {place}"
    if free < _DISK_WARN:
        hint = "Make room: without it writing is refused; reading goes on."
        return Check("disk", "fail" if free < _DISK_FAIL else "warn", detail, hint)
    return Check("disk", "ok", detail)


def _free(place: Path) -> int:
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize


def private_server(settings: Settings) -> Check:
    """Whether nobody but its account can come at the private server's files and socket."""
    if not settings.embedded:
        return Check("private-server", "ok", "none: FEDLEDGER_DSN names a database")
    server = Server(settings.home)
    if not server.exists():
        return Check("private-server", "fail", "there is none", "Run `fedledger init`.")
    wrong = [
        *_wrong([settings.home], os.geteuid(), 0o711),
        *_wrong([server.data, server.sockets, server.log], server.account.uid, 0o700),
        *_wrong([server.socket], server.account.uid, 0o700),
    ]
    if wrong:
        return Check(
            "private-server", "fail", "; ".join(wrong),
            "Find out who changed it; put owner and mode right, then restart the service.",
        )  # fmt: skip
    return Check("private-server", "ok", f"its files in {settings.home} are closed to others")


def _wrong(places: Iterable[Path], owner: int, widest: int) -> list[str]:
    found = []
    for place in places:
        try:
            seen = place.lstat()
        except FileNotFoundError:
            found.append(f"{place} is missing")
            continue
        mode = stat.S_IMODE(seen.st_mode)
        if seen.st_uid != owner:
            found.append(f"{place} belongs to the user with id {seen.st_uid}, not {owner}")
        if mode & ~widest:
            found.append(f"{place} has mode {mode:04o}")
    return found


def _settings(connection: psycopg.Connection[Any], *names: str) -> dict[str, str]:
    return dict(connection.execute(_SETTINGS, [list(names)]).fetchall())
