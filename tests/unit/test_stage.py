"""The demo's stage is taken down so that nobody can put anything into it again."""

import shutil
from pathlib import Path

import pytest

from api.cli.stage import _remove
from migrations.watcher import open_lock


def test_a_watcher_that_comes_while_the_home_is_removed_cannot_bring_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "data").write_text("")
    removed = shutil.rmtree

    def while_somebody_comes(path: Path, *, ignore_errors: bool) -> None:
        with pytest.raises(FileNotFoundError):
            open_lock(home / "watch.lock")
        removed(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", while_somebody_comes)
    _remove(home)
    assert list(tmp_path.iterdir()) == []
