"""Rotates the local authority on the machine that has its home: a new issuing key, step by step.

1. prepare: a new folder beside the old one, whole or not at all, with a key under the same root
2. adopt: one append; from then on every new order goes to the new authority, without a restart
3. retire: one append, when no issuance is open with the old one any more; a running service does
   it as well

Run again after a kill between any two, it goes on where it stopped. It removes no key: the old one
is still needed for what is open, and for revocation lists until its last certificate ends.
"""

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal
from uuid import UUID, uuid4

import psycopg

from api import authorities as places
from api.exchange import Clock
from api.init import alone
from api.wiring import open_ledger
from ca.local import ROOT_KEY, LocalAuthority
from ca.retirement import retire_superseded, superseded
from ca.signers import Adopted
from ledger.application import Ledger
from ledger.database import conninfo
from ledger.events import Actor
from ledger.store import Call
from projections import authorities, certificates
from projections.authorities import AuthorityRow

ROOT_ENDS_SOON: Final = timedelta(days=60)
"""Less than this and a new issuing certificate is not worth its rotation: it ends with its root."""

_Read = Callable[[], AbstractContextManager[psycopg.Connection[Any]]]
NEW_ROOT: Final = (
    "Make a new root with `fedledger ca rotate --new-root --prepare`, give its root.pem to every "
    "gateway, then run `fedledger ca rotate`."
)
"""The next step where the root itself is near its end."""


class RotationError(Exception):
    """The authority is not rotated, and nothing was changed. `hint` is the next step."""

    def __init__(self, detail: str, hint: str) -> None:
        super().__init__(detail)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for. `root_key`: where the root's key is, if it is not in the home."""

    prepare: bool = False
    new_root: bool = False
    root_key: Path | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Rotated:
    """How far it came. `waiting`: a superseded authority → issuances open with it."""

    state: Literal["prepared", "adopted", "finished"]
    authority_id: str
    folder: Path
    not_after: datetime
    retired: tuple[str, ...] = ()
    waiting: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Standing:
    """One authority as it stands. `folder` is None where its key is not in this home.

    state: issuing, finishing (superseded, with work left), retired, prepared (not yet adopted),
    elsewhere (adopted, but its key is not here). `last_end`: of its last certificate.
    """

    id: str
    state: Literal["issuing", "finishing", "retired", "prepared", "elsewhere"]
    folder: Path | None
    not_after: datetime
    root_not_after: datetime | None = None
    adopted_at: datetime | None = None
    retired_at: datetime | None = None
    open: int = 0
    last_end: datetime | None = None


def rotate(dsn: str, home: Path, clock: Clock, wish: Wish) -> Rotated:
    """Rotate, or finish the rotation that was begun.

    Raises:
        RotationError: it cannot be done; nothing was changed.
        AuthorityFilesError: the files of an authority cannot be used.
        LedgerError, psycopg.Error: the database says no.
    """
    _refuse_strangers(home)
    with alone(home), closing(open_ledger(dsn, clock)) as ledger:
        _sweep(home)
        read = _reader(dsn)
        scene = _look(read, home)
        _refuse_foreign(scene)
        found = _prepared(scene, wish)
        if found is None and (unfinished := scene.successor()) is not None:
            return _retire(ledger, home, read, wish, "finished", *unfinished)
        folder, authority = found or _make(scene, home, clock(), wish)
        if authority.not_after - clock() < ROOT_ENDS_SOON:
            raise RotationError(
                f"what was prepared in {folder} ends {authority.not_after:%Y-%m-%d}",
                f"Remove {folder}. {NEW_ROOT}",
            )
        if wish.prepare:
            return Rotated("prepared", authority.id, folder, authority.not_after)
        chain, end = authority.chain(), authority.not_after
        ledger.adopt_authority(_call(wish), UUID(authority.id), authority.kind, chain, end)
        return _retire(ledger, home, read, wish, "adopted", folder, authority)


def survey(dsn: str, home: Path) -> list[Standing]:
    """Every authority, those on record by their adoption, then what is only prepared."""
    read = _reader(dsn)
    scene = _look(read, home)
    old = scene.superseded()
    with read() as connection:
        found = [_standing(connection, scene, row, row.id in old) for row in scene.rows]
    prepared = [
        Standing(one.id, "prepared", folder, one.not_after, one.root_not_after)
        for folder, one in scene.unadopted()
    ]
    return [*found, *prepared]


# ---- what there is --------------------------------------------------------------------------

_Place = tuple[Path, places.Held]


@dataclass(frozen=True, slots=True)
class _Scene:
    """The authorities on record, oldest first, and those whose key is in this home, by id."""

    rows: list[AuthorityRow]
    here: dict[str, _Place]

    def unadopted(self) -> list[_Place]:
        known = {str(row.id) for row in self.rows}
        return [place for one, place in self.here.items() if one not in known]

    def newest(self) -> _Place | None:
        """The one that issues now, None if its key is not here."""
        live = [str(row.id) for row in self.rows if row.retired_at is None]
        return self.here.get(live[-1]) if live else None

    def superseded(self) -> set[UUID]:
        newest = self.newest()
        if newest is None:
            return set()
        return {row.id for row in superseded(self.rows, lambda: UUID(newest[1].id))}

    def successor(self) -> _Place | None:
        """The one that took over from another which is not retired yet, if there is one such."""
        return self.newest() if self.superseded() else None


def _look(read: _Read, home: Path) -> _Scene:
    with read() as connection:
        rows = authorities.everything(connection)
    here = {one.id: (folder, one) for folder, one in places.open_all(home).items()}
    if not rows:
        raise RotationError("this ledger has no authority", "Run `fedledger init`.")
    return _Scene(rows, here)


def _standing(
    connection: psycopg.Connection[Any], scene: _Scene, row: AuthorityRow, old: bool
) -> Standing:
    folder, authority = scene.here.get(str(row.id), (None, None))
    live: Literal["issuing", "elsewhere"] = "elsewhere" if folder is None else "issuing"
    return Standing(
        id=str(row.id),
        state="retired" if row.retired_at else "finishing" if old else live,
        folder=folder,
        not_after=row.not_after,
        root_not_after=authority.root_not_after if authority else None,
        adopted_at=row.adopted_at,
        retired_at=row.retired_at,
        open=certificates.open_with(connection, row.id),
        last_end=certificates.last_end(connection, row.id),
    )


# ---- the steps ------------------------------------------------------------------------------


def _prepared(scene: _Scene, wish: Wish) -> _Place | None:
    """What step 1 left, cut short or with --prepare, and step 2 did not take up."""
    roots = {row.chain[-1] for row in scene.rows}
    for folder, authority in scene.unadopted():
        if wish.new_root and authority.chain()[-1] in roots:
            raise RotationError(
                f"{folder} was prepared under the old root",
                f"Remove {folder}, or go on with it by `fedledger ca rotate`.",
            )
        return folder, authority
    return None


def _make(scene: _Scene, home: Path, now: datetime, wish: Wish) -> _Place:
    """Step 1."""
    newest = scene.newest()
    if newest is None:
        raise RotationError(
            f"the folder of the authority that issues now is not in {home}",
            "Run it on the machine that has it, or copy the folder here.",
        )
    authority = newest[1]
    if not isinstance(authority, LocalAuthority):
        raise _foreign(authority)
    number, folder = places.free_folder(home, len(scene.rows) + 1)
    if wish.new_root:
        return folder, LocalAuthority.create(folder, name=authority.name, now=now, number=number)
    if authority.root_not_after - now < ROOT_ENDS_SOON:
        raise RotationError(
            f"the root itself ends {authority.root_not_after:%Y-%m-%d}: nothing under it lives "
            "longer",
            NEW_ROOT,
        )
    key = wish.root_key or _root_key(scene, authority)
    if key is None:
        raise RotationError(
            f"the root's key is not in {home}", "Give --root-key FILE; it is read, not kept."
        )
    return folder, authority.successor(folder, root_key=key, now=now, number=number)


def _refuse_foreign(scene: _Scene) -> None:
    newest = scene.newest()
    if newest is not None and not isinstance(newest[1], LocalAuthority):
        raise _foreign(newest[1])


def _foreign(authority: places.Held) -> RotationError:
    return RotationError(
        f"the authority that issues now is a {authority.kind}, and its keys are not here",
        "Rotate them where it runs.",
    )


def _root_key(scene: _Scene, authority: LocalAuthority) -> Path | None:
    """The key of this authority's root, in whichever folder of the home it was left."""
    for folder, other in scene.here.values():
        key = folder / ROOT_KEY
        if other.chain()[-1] == authority.chain()[-1] and key.exists():
            return key
    return None


def _retire(
    ledger: Ledger,
    home: Path,
    read: _Read,
    wish: Wish,
    state: Literal["adopted", "finished"],
    folder: Path,
    authority: places.Held,
) -> Rotated:
    """Step 3."""
    signers = Adopted(read, partial(places.usable, home))
    done = retire_superseded(ledger, signers, read, partial(_call, wish))
    return Rotated(
        state,
        authority.id,
        folder,
        authority.not_after,
        tuple(map(str, done.retired)),
        {str(one): count for one, count in done.waiting.items()},
    )


def _reader(dsn: str) -> _Read:
    return lambda: psycopg.connect(conninfo(dsn), autocommit=True)


def _refuse_strangers(home: Path) -> None:
    owner = home.stat().st_uid
    if owner != os.geteuid():
        # The service runs as the owner: it could not read a key that is ours.
        raise RotationError(
            f"{home} belongs to the user with id {owner}", "Run this command as that user."
        )


def _sweep(home: Path) -> None:
    """Remove what a kill in the middle of step 1 left; only under the home's lock."""
    for beside in home.glob(f".{places.FOLDER}-*"):
        shutil.rmtree(beside, ignore_errors=True)


def _call(wish: Wish) -> Call:
    actor = Actor(kind="local", id=f"uid:{os.getuid()}", auth="local")
    return Call(actor=actor, correlation_id=str(uuid4()), reason=wish.reason or "rotation")
