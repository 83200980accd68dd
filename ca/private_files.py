"""Files for their owner's eyes: written whole or not at all, and on the disk when it returns.

It knows nothing of what is in them. Only `replace` takes the place of something; nothing here
removes anything but what it wrote itself.
"""

import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

PRIVATE: Final = 0o600
PUBLIC: Final = 0o644
_UNFINISHED: Final = ".unfinished"


class NotPrivateError(Exception):
    """Others could read or change it. The text names the file and what to do, no content."""


def write_new(path: Path, content: bytes, mode: int = PRIVATE) -> None:
    """Write a file that is not there yet, whole or not at all; make its folder (0700) if needed.

    Raises:
        FileExistsError: there is one; it was not touched.
        OSError: the file system said no.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = _beside(path)
    try:
        create(beside, content, mode)
        os.link(beside, path)  # unlike a rename it takes nothing's place
    finally:
        beside.unlink(missing_ok=True)
    sync_directory(path.parent)


def replace(path: Path, content: bytes, mode: int = PRIVATE) -> None:
    """Write a file in the place of whatever has its name: a reader sees the old one or the new one.

    Raises:
        OSError: the file system said no.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = _beside(path)
    try:
        create(beside, content, mode)
        beside.rename(path)
    finally:
        beside.unlink(missing_ok=True)
    sync_directory(path.parent)


def make_directory(directory: Path, files: Mapping[str, bytes]) -> None:
    """Make a directory (0700) with these private files, whole or not at all.

    Raises:
        FileExistsError: it holds something already; nothing was touched.
        OSError: the file system said no.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        for file, content in files.items():
            create(beside / file, content)
        sync_directory(beside)
        _move_into_place(beside, directory)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def sweep(directory: Path) -> None:
    """Remove what a kill in the middle of a write left. Only for who holds the directory's lock."""
    for beside in directory.glob(f".*{_UNFINISHED}"):
        beside.unlink(missing_ok=True)


def read(path: Path) -> bytes:
    """Read a file that must be its owner's alone.

    Raises:
        NotPrivateError: others can read it, or it belongs to another user.
        OSError: it cannot be read.
    """
    # The mode of the file that was opened, not of whatever has the name a moment later.
    with path.open("rb") as file:
        refuse_loose(path, os.fstat(file.fileno()), forbidden=0o077)
        return file.read()


def refuse_loose(path: Path, status: os.stat_result, *, forbidden: int) -> None:
    """Refuse what others may come at. `forbidden`: mode bits that must not be set.

    Raises:
        NotPrivateError: one of them is, or the owner is neither this user nor root.
    """
    mode = stat.S_IMODE(status.st_mode)
    if mode & forbidden:
        raise NotPrivateError(
            f"{path} is open to others: mode {mode:04o}, take {forbidden:04o} away"
        )
    if status.st_uid not in (0, os.geteuid()):
        raise NotPrivateError(f"{path} belongs to another user")


def create(path: Path, content: bytes, mode: int = PRIVATE) -> None:
    """Write a new file, of this mode from its first moment and on the disk when this returns."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        if mode != PRIVATE:
            os.fchmod(descriptor, mode)  # whatever the umask is: others must be able to read it
        file.flush()
        os.fsync(descriptor)


def sync_directory(directory: Path) -> None:
    """Put the names in a directory on the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}{_UNFINISHED}")


def _move_into_place(beside: Path, directory: Path) -> None:
    try:
        # rename(2) takes the place of nothing, or of an empty directory, and of nothing else:
        # of two creations at once exactly one gets here, and no key is ever overwritten.
        beside.rename(directory)
    except OSError as error:
        if directory.exists() or directory.is_symlink():
            raise FileExistsError(f"{directory} already holds something") from error
        raise
    sync_directory(directory.parent)
