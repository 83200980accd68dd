"""The authorities of a home: where their folders are, how they are opened, which may serve.

It signs and adopts nothing. `authority` is the folder that `init` made; a rotation makes
`authority-2`, `authority-3` … beside it. A folder holds the keys of a local authority, or what it
takes to ask a step-ca; which of the two, it says itself.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, TypeAlias
from uuid import UUID

import structlog

from ca.authority import AuthorityFilesError
from ca.local import LocalAuthority
from ca.step_ca import StepCaAuthority
from ca.step_ca_home import DESCRIPTION, KIND
from ledger.authorities import Authority

Held: TypeAlias = LocalAuthority | StepCaAuthority
"""An authority that this home can have certificates signed by."""

FOLDER: Final = "authority"
"""Of the first one."""

_logger: Final = structlog.get_logger("fedledger.authorities")


def folders(home: Path) -> list[Path]:
    """The folders of all authorities of this home, the first one first."""
    later = [path for path in home.glob(f"{FOLDER}-*") if path.is_dir()]
    first = home / FOLDER
    return [*([first] if first.is_dir() else []), *sorted(later, key=_number)]


def free_folder(home: Path, number: int) -> tuple[int, Path]:
    """The first number from `number` on that no folder has, and the folder it stands for."""
    while (folder := home / f"{FOLDER}-{number}").exists():
        number += 1
    return number, folder


def ids(home: Path) -> set[str]:
    """The authorities whose folders are in this home, whether or not they can be opened."""
    return {str(_description(folder).get("id")) for folder in folders(home)}


def open_one(folder: Path) -> Held:
    """Open the authority of one folder.

    Raises:
        AuthorityFilesError: it is not usable.
    """
    if _description(folder).get("kind") == KIND:
        return StepCaAuthority.open(folder)
    return LocalAuthority.open(folder)  # which says what is wrong with it, if anything is


def open_all(home: Path) -> dict[Path, Held]:
    """Every authority of this home, by its folder.

    Raises:
        AuthorityFilesError: one of them is not usable.
    """
    return {folder: open_one(folder) for folder in folders(home)}


def usable(home: Path) -> Iterator[Held]:
    """Every authority of this home that can be opened: one broken folder must not stop the rest."""
    for folder in folders(home):
        try:
            yield open_one(folder)
        except AuthorityFilesError as error:
            _logger.error("authority not usable", folder=str(folder), error=str(error))


def objection(here: Mapping[Path, Held], load: Callable[[UUID], Authority | None]) -> str | None:
    """Why a service must not begin with the authorities of its home; None if it may.

    `load` folds an authority's stream. One that was never adopted is a rotation being prepared.
    """
    if not here:
        return "there is no authority in this home: run fedledger init"
    able = False
    for folder, authority in here.items():
        adopted = load(UUID(authority.id))
        if adopted is not None and adopted.chain != authority.chain():
            return f"{folder} is not the authority that this ledger adopted: put that one back"
        able = able or (adopted is not None and adopted.retired_at is None)
    if able:
        return None
    return (
        "no authority of this home is one that this ledger adopted and still issues with: put its "
        "folder back, or copy it from the machine that ran fedledger ca rotate"
    )


def _description(folder: Path) -> Mapping[str, object]:
    """What the folder says it is; nothing, where that cannot be read."""
    try:
        description = json.loads((folder / DESCRIPTION).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return description if isinstance(description, dict) else {}


def _number(folder: Path) -> tuple[int, str]:
    digits = folder.name.removeprefix(f"{FOLDER}-")
    return (int(digits) if digits.isdecimal() else 0, digits)
