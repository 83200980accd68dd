"""Looks into the directory of a step-ca that the product made, for tests."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ca import jose

NOW = datetime(2026, 11, 23, 15, 7, 8, tzinfo=UTC)


def make_quick(patch: pytest.MonkeyPatch) -> None:
    """Spare the tests what a password's guess costs, and the wait for a busy disk."""
    patch.setattr(jose, "encrypt", partial(jose.encrypt, iterations=1000))
    patch.setattr(os, "fsync", lambda descriptor: None)


def files(place: Path) -> dict[str, bytes]:
    """Every file by its path within the directory."""
    return {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()}


def config(place: Path) -> dict[str, Any]:
    """Its ca.json."""
    found: dict[str, Any] = json.loads((place / "config" / "ca.json").read_text())
    return found


def provisioner(place: Path) -> dict[str, Any]:
    """The only provisioner in it."""
    (found,) = config(place)["authority"]["provisioners"]
    assert isinstance(found, dict)
    return found


def edit(place: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change its ca.json as an operator would."""
    document = config(place)
    change(document)
    (place / "config" / "ca.json").write_text(json.dumps(document))
