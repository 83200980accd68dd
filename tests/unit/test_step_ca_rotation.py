"""Rotation at a step-ca that we set up: no key is lost, wherever it is cut short."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from ca import jose
from ca.step_ca_files import SetUpError, read_ca_key, read_password, unlocked
from ca.step_ca_rotation import (
    Passwords,
    rotate_ca_password,
    rotate_provisioner_key,
    rotate_provisioner_password,
)
from ca.step_ca_setup import Wish, set_up
from support.killing import KilledError, Killer
from support.step_ca_places import NOW, config, files, make_quick

KEYS = ("secrets/root_ca_key", "secrets/intermediate_ca_key", "for-ledger/provisioner.jwe")
PASSWORDS = ("secrets/password", "secrets/password", "for-ledger/provisioner.password")
Rotate = Callable[[Path], tuple[str, ...]]
ROTATIONS: dict[str, Rotate] = {
    "ca password": lambda place: rotate_ca_password(place, Passwords()),
    "provisioner password": lambda place: rotate_provisioner_password(
        place / "for-ledger", Passwords()
    ),
    "provisioner key": rotate_provisioner_key,
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    make_quick(monkeypatch)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    directory = tmp_path / "step-ca"
    set_up(directory, Wish(), NOW)
    return directory


def opened(place: Path) -> list[ec.EllipticCurvePublicKey]:
    """The public halves of the three keys, opened with the passwords in their usual places."""
    root, issuing, provisioner = (
        (place / key, read_password(place / password))
        for key, password in zip(KEYS, PASSWORDS, strict=True)
    )
    return [
        read_ca_key(*root).public_key(),
        read_ca_key(*issuing).public_key(),
        unlocked(provisioner[0].read_text(), provisioner[1]).public_key(),
    ]


def provisioner_jwk(place: Path) -> dict[str, Any]:
    found: dict[str, Any] = config(place)["authority"]["provisioners"][0]["key"]
    return found


@pytest.mark.parametrize("name", ["ca password", "provisioner password"])
def test_a_password_changes_and_no_key(place: Path, name: str) -> None:
    before, keys = files(place), opened(place)
    assert ROTATIONS[name](place)
    after = files(place)
    assert opened(place) == keys
    ours = {"ca password": 0, "provisioner password": 2}[name]
    changed = {file for file in before if before[file] != after[file]}
    assert changed == {*KEYS[ours : ours + 2], PASSWORDS[ours]}
    assert after.keys() == before.keys()
    assert set_up(place, Wish(), NOW).done == ()


def test_a_new_provisioner_key_and_the_ca_keys_stay(place: Path) -> None:
    before = opened(place)
    (said,) = rotate_provisioner_key(place)
    after = opened(place)
    assert after[:2] == before[:2]
    assert after[2] != before[2]
    assert provisioner_jwk(place) == jose.public_jwk(after[2])
    assert provisioner_jwk(place)["kid"] in said
    assert set_up(place, Wish(), NOW).done == ()


def test_a_new_provisioner_key_where_the_old_one_went_to_the_ledger(place: Path) -> None:
    for path in (place / "for-ledger").iterdir():
        path.unlink()
    rotate_provisioner_key(place)
    assert provisioner_jwk(place) == jose.public_jwk(opened(place)[2])


def test_without_the_roots_key_the_issuing_one_is_rotated(place: Path) -> None:
    (place / KEYS[0]).unlink()
    assert rotate_ca_password(place, Passwords()) == (
        "intermediate_ca_key put under the new password",
    )


def test_passwords_in_the_operators_files(place: Path, tmp_path: Path) -> None:
    chosen, later = tmp_path / "chosen", tmp_path / "later"
    chosen.write_text("chosen by a person\n")
    later.write_text("chosen by a machine\n")
    rotate_ca_password(place, Passwords(new=chosen))
    # The one in the usual place would mislead; the next rotation needs none there.
    assert read_password(place / "secrets/password") == b"chosen by a person"
    (place / "secrets/password").unlink()
    rotate_ca_password(place, Passwords(current=chosen, new=later))
    assert not (place / "secrets/password").exists()
    for name in KEYS[:2]:
        read_ca_key(place / name, b"chosen by a machine")


def test_a_wrong_password_changes_nothing(place: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("not the right one")
    before = files(place)
    for rotate in (
        lambda: rotate_ca_password(place, Passwords(current=wrong)),
        lambda: rotate_ca_password(place, Passwords(current=wrong, new=wrong)),
        lambda: rotate_provisioner_password(place / "for-ledger", Passwords(current=wrong)),
    ):
        with pytest.raises(SetUpError):
            rotate()
        assert files(place) == before


def test_one_password_for_both_is_refused(place: Path) -> None:
    before = files(place)
    with pytest.raises(SetUpError, match="different passwords"):
        rotate_ca_password(place, Passwords(new=place / "for-ledger/provisioner.password"))
    with pytest.raises(SetUpError, match="different passwords"):
        rotate_provisioner_key(place, place / "secrets/password")
    assert files(place) == before


@pytest.mark.parametrize("rotate", ROTATIONS.values(), ids=ROTATIONS)
def test_where_there_is_no_step_ca(tmp_path: Path, rotate: Rotate) -> None:
    with pytest.raises(SetUpError):
        rotate(tmp_path / "nothing")
    assert list(tmp_path.iterdir()) == []


STEPS = {"ca password": 27, "provisioner password": 16, "provisioner key": 33}


@pytest.mark.parametrize(
    ("name", "step"), [(name, step) for name, count in STEPS.items() for step in range(count + 1)]
)
def test_killed_anywhere_it_goes_on(
    place: Path, monkeypatch: pytest.MonkeyPatch, name: str, step: int
) -> None:
    keys = opened(place)
    with monkeypatch.context() as patch:
        killer = Killer(patch, step)
        with suppress(KilledError):
            ROTATIONS[name](place)
        assert killer.dead == (step < STEPS[name]), "the number of steps has changed: count again"
    assert ROTATIONS[name](place)
    left = [path for path in files(place) if path.endswith(".next")]
    assert left == []
    found = opened(place)
    assert found[:2] == keys[:2]
    assert provisioner_jwk(place) == jose.public_jwk(found[2])
    assert set_up(place, Wish(), NOW).done == ()


@pytest.mark.parametrize("name", STEPS)
def test_a_set_up_waits_for_the_end_of_a_rotation(
    place: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with monkeypatch.context() as patch:
        Killer(patch, STEPS[name] // 2)
        with pytest.raises(KilledError):
            ROTATIONS[name](place)
    before = files(place)
    with pytest.raises(SetUpError, match="rotation was begun"):
        set_up(place, Wish(), NOW)
    assert {
        n: c for n, c in files(place).items() if ".unfinished" not in n
    }.items() <= before.items()
