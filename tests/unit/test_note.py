"""Verifier keys of signed notes, against the example of c2sp.org/signed-note."""

import base64

import pytest

from ledger.tlog.note import key_hash, verifier_key

# The verifier key of Go's checksum database log, as golang.org/x/mod publishes it.
GO = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"


def test_a_published_key() -> None:
    name, _, encoded = GO.split("+", 2)
    public_key = base64.b64decode(encoded)[1:]
    assert verifier_key(name, public_key) == GO
    assert key_hash(name, public_key).hex() == "033de0ae"


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\n", "a\u2003b"])
def test_no_such_name(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        verifier_key(name, bytes(32))


@pytest.mark.parametrize("size", [0, 31, 33])
def test_no_such_key(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        verifier_key("log.example", bytes(size))
