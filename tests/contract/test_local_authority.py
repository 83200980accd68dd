"""The local authority, and its successors under the same root: the contract, and what is its own."""

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import PublicFormat

from ca import private_files
from ca.authority import AuthorityRefused
from ca.local import LocalAuthority, LocalAuthorityError
from support.authority_contract import TIMEOUT, AuthorityContract
from support.csrs import ec_key, handmade_request, request, spki_with_point

NOW = datetime(2026, 11, 23, 15, 7, 8, 123456, tzinfo=UTC)


class TestLocal(AuthorityContract):
    def now(self) -> datetime:
        return NOW

    @pytest.fixture
    def directory(self, tmp_path: Path) -> Path:
        return tmp_path / "state" / "authority"

    @pytest.fixture
    def authority(self, directory: Path) -> LocalAuthority:
        return LocalAuthority.create(directory, name="Example", now=NOW)

    def test_signing_again_gives_the_same_bytes(
        self, authority: LocalAuthority, directory: Path
    ) -> None:
        asked = self.order(request(ec_key()))
        first = authority.sign(asked, timeout=TIMEOUT)
        assert authority.sign(asked, timeout=TIMEOUT) == first
        assert LocalAuthority.open(directory).sign(asked, timeout=TIMEOUT) == first

    def test_a_compressed_point_is_certified_uncompressed(self, authority: LocalAuthority) -> None:
        spki = spki_with_point(ec_key(), PublicFormat.CompressedPoint)
        asked = self.order(handmade_request(ec_key(), spki=spki))
        assert spki not in self.assert_as_ordered(authority, asked)

    def test_refuses_to_be_outlived(self, authority: LocalAuthority) -> None:
        asked = self.order(request(ec_key()), not_after=authority.not_after)
        with pytest.raises(AuthorityRefused, match="outlive"):
            authority.sign(asked, timeout=TIMEOUT)
        self.assert_as_ordered(
            authority, replace(asked, not_after=authority.not_after - timedelta(seconds=1))
        )

    def test_refuses_another_key(self, authority: LocalAuthority) -> None:
        with pytest.raises(AuthorityRefused):
            authority.sign(
                self.order(request(ec_key()), csr_der=request(ec_key(1))), timeout=TIMEOUT
            )

    def test_files_are_private_and_nothing_else_remains(
        self, authority: LocalAuthority, directory: Path
    ) -> None:
        assert authority.kind == "local"
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
        names = ("authority.json", "issuing.key", "issuing.pem", "root.key", "root.pem")
        assert modes == dict.fromkeys(names, 0o600)
        assert [path.name for path in directory.parent.iterdir()] == ["authority"]
        assert (directory / "root.key").read_text().startswith("-----BEGIN PRIVATE KEY-----")
        again = LocalAuthority.open(directory)
        assert (again.id, again.chain()) == (authority.id, authority.chain())

    def test_identifiers_come_from_the_randomness_given(self, directory: Path) -> None:
        made = LocalAuthority.create(
            directory, name="Example", now=NOW, randomness=lambda n: b"\x11" * n
        )
        assert made.id == "11111111-1111-4111-9111-111111111111"
        serials = [x509.load_der_x509_certificate(der).serial_number for der in made.chain()]
        assert serials == [int("51" + "11" * 15, 16)] * 2

    def test_ten_years(self, directory: Path) -> None:
        now = datetime(2026, 11, 23, 15, 7, 8, 999_999, tzinfo=UTC)
        made = LocalAuthority.create(directory, name="Example", now=now)
        assert made.not_after == datetime(2036, 11, 22, 15, 7, 8, tzinfo=UTC)

    def test_never_overwrites(self, authority: LocalAuthority, directory: Path) -> None:
        before = {path: path.read_bytes() for path in directory.iterdir()}
        with pytest.raises(LocalAuthorityError, match="already holds"):
            LocalAuthority.create(directory, name="Example", now=NOW)
        assert {path: path.read_bytes() for path in directory.iterdir()} == before
        assert [path.name for path in directory.parent.iterdir()] == ["authority"]

    def test_takes_an_empty_directory(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        LocalAuthority.create(directory, name="Example", now=NOW)
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700

    def test_of_concurrent_creations_one_wins(self, directory: Path) -> None:
        def create(_: int) -> LocalAuthority | None:
            try:
                return LocalAuthority.create(directory, name="Example", now=NOW)
            except LocalAuthorityError:
                return None

        with ThreadPoolExecutor(8) as pool:
            made = [one for one in pool.map(create, range(8)) if one]
        assert len(made) == 1
        assert made[0].id == LocalAuthority.open(directory).id
        assert [path.name for path in directory.parent.iterdir()] == ["authority"]

    @pytest.mark.parametrize("step", ["create", "sync_directory", "_move_into_place"])
    def test_an_interruption_leaves_nothing(
        self, directory: Path, step: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(private_files, step, interrupted)
            with pytest.raises(KeyboardInterrupt):
                LocalAuthority.create(directory, name="Example", now=NOW)
        assert list(directory.parent.iterdir()) == []
        LocalAuthority.create(directory, name="Example", now=NOW)

    @pytest.mark.parametrize("name", ["", " a", "a" * 49, "a\n", "é", "a/b", "a,CN=b"])
    def test_names(self, directory: Path, name: str) -> None:
        with pytest.raises(LocalAuthorityError, match="name"):
            LocalAuthority.create(directory, name=name, now=NOW)
        assert not directory.parent.exists()

    @pytest.mark.parametrize("name", ["issuing.key", "root.key"])
    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
    def test_refuses_loose_keys(
        self, authority: LocalAuthority, directory: Path, name: str, mode: int
    ) -> None:
        (directory / name).chmod(mode)
        with pytest.raises(LocalAuthorityError, match="open to others"):
            LocalAuthority.open(directory)

    def test_refuses_a_directory_others_may_write(
        self, authority: LocalAuthority, directory: Path
    ) -> None:
        directory.chmod(0o770)
        with pytest.raises(LocalAuthorityError, match="open to others"):
            LocalAuthority.open(directory)

    def test_the_root_key_may_be_elsewhere(
        self, authority: LocalAuthority, directory: Path
    ) -> None:
        (directory / "root.key").unlink()
        assert LocalAuthority.open(directory).id == authority.id

    @pytest.mark.parametrize("name", ["issuing.key", "issuing.pem", "root.pem", "authority.json"])
    @pytest.mark.parametrize("content", [None, b"", b"junk", b"{}", b"[]"])
    def test_refuses_what_is_missing_or_damaged(
        self, authority: LocalAuthority, directory: Path, name: str, content: bytes | None
    ) -> None:
        if content is None:
            (directory / name).unlink()
        else:
            (directory / name).write_bytes(content)
        with pytest.raises(LocalAuthorityError):
            LocalAuthority.open(directory)

    def test_refuses_what_does_not_fit_together(
        self, authority: LocalAuthority, directory: Path, tmp_path: Path
    ) -> None:
        other = tmp_path / "other"
        LocalAuthority.create(other, name="Example", now=NOW)
        for name in ("issuing.key", "issuing.pem", "root.pem"):
            original = (directory / name).read_bytes()
            (directory / name).write_bytes((other / name).read_bytes())
            with pytest.raises(LocalAuthorityError):
                LocalAuthority.open(directory)
            (directory / name).write_bytes(original)
        LocalAuthority.open(directory)

    def test_the_repr_and_the_description_hold_no_key(
        self, authority: LocalAuthority, directory: Path
    ) -> None:
        assert "PRIVATE KEY" not in repr(authority)
        assert json.loads((directory / "authority.json").read_text()) == {
            "id": authority.id,
            "name": "Example",
            "version": 1,
        }


class TestLocalSuccessor(AuthorityContract):
    """Another issuing key under the root of the first: an authority like any other."""

    def now(self) -> datetime:
        return NOW

    @pytest.fixture
    def first(self, tmp_path: Path) -> LocalAuthority:
        return LocalAuthority.create(tmp_path / "authority", name="Example", now=NOW)

    @pytest.fixture
    def authority(self, first: LocalAuthority, tmp_path: Path) -> LocalAuthority:
        key = tmp_path / "authority" / "root.key"
        return first.successor(tmp_path / "authority-2", root_key=key, now=NOW, number=2)

    def test_shares_the_root_and_nothing_else(
        self, first: LocalAuthority, authority: LocalAuthority, tmp_path: Path
    ) -> None:
        assert authority.id != first.id
        assert authority.chain()[1] == first.chain()[1]
        issuing, other = (x509.load_der_x509_certificate(a.chain()[0]) for a in (first, authority))
        assert issuing.public_key() != other.public_key()
        assert issuing.subject != other.subject
        assert issuing.not_valid_after_utc == other.not_valid_after_utc
        assert not (tmp_path / "authority-2" / "root.key").exists()
