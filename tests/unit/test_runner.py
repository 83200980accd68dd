"""Migration files: which names, numbers and contents are taken."""

import hashlib
from pathlib import Path

import pytest

from migrations.runner import Migration, MigrationError, load, parse


def test_the_release_has_migrations_in_order() -> None:
    files = load()
    assert [m.version for m in files] == list(range(1, len(files) + 1))
    assert str(files[0]) == "0001_ledger"


def test_a_file_is_its_number_name_text_and_digest() -> None:
    text = "SELECT '100%';\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert parse("0007_more_rows.sql", text.encode()) == Migration(7, "more_rows", text, digest)


def test_line_ends_of_a_checkout_do_not_count() -> None:
    assert parse("0001_a.sql", b"SELECT 1;\r\n") == parse("0001_a.sql", b"SELECT 1;\n")


@pytest.mark.parametrize(
    "name", ["1_a.sql", "0001-a.sql", "0001_A.sql", "0001_a.sql.bak", "00001_a.sql", "0001_.sql"]
)
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(MigrationError, match="is not named"):
        parse(name, b"")


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(MigrationError, match="UTF-8"):
        parse("0001_a.sql", b"\xff")


@pytest.mark.parametrize("text", ["COMMIT;", "SELECT 1;\n  begin ;\n", "Rollback;"])
def test_a_file_may_not_end_its_own_transaction(text: str) -> None:
    with pytest.raises(MigrationError, match="transactions"):
        parse("0001_a.sql", text.encode())


def test_the_blocks_of_plpgsql_are_no_transactions() -> None:
    parse("0001_a.sql", b"DO $$\nBEGIN\n  BEGIN\n  NULL;\n  END;\nEND\n$$;\n")


@pytest.mark.parametrize("names", [["0002_b"], ["0001_a", "0003_c"], ["0001_a", "0001_b"]])
def test_gaps_and_duplicates_are_refused(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / f"{name}.sql").write_text("SELECT 1;")
    with pytest.raises(MigrationError, match="without gaps"):
        load(tmp_path)


def test_an_empty_folder_is_a_broken_installation(tmp_path: Path) -> None:
    (tmp_path / "README").write_text("no migration")
    with pytest.raises(MigrationError, match="incomplete"):
        load(tmp_path)
