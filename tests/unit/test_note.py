"""Signed notes and their verifier keys, against those of other programs (c2sp.org/signed-note)."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ledger.tlog.note import (
    Note,
    NoteError,
    VerifierKey,
    key_hash,
    open_note,
    parse_verifier_key,
    sign,
    text_of,
    verifier_key,
)

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


# The example of Go's note package (golang.org/x/mod/sumdb/note): another program's signature.
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
SIGNED = (
    f"{TEXT}\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
).encode()


def test_a_note_of_another_program() -> None:
    assert open_note(SIGNED, [parse_verifier_key(PETER)]) == Note(TEXT, ("PeterNeumann",))
    assert text_of(SIGNED) == TEXT


def _own() -> tuple[VerifierKey, Ed25519PrivateKey]:
    private = Ed25519PrivateKey.from_private_bytes(bytes(32))
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return VerifierKey("log.example/a", public), private


def test_our_own_note() -> None:
    key, private = _own()
    assert parse_verifier_key(key.text) == key
    note = sign("one\n\ntwo\n", key, private.sign).encode()
    assert open_note(note, [key]).text == "one\n\ntwo\n"
    # Other signatures are passed over, whatever they are.
    assert open_note(note + "— witness.example AAAAAAAA\n".encode(), [key]).signers == (key.name,)


@pytest.mark.parametrize("text", ["", "\n", "no end", "a\rb\n", "a\tb\n", "a\0\n"])
def test_no_text_of_a_note(text: str) -> None:
    key, private = _own()
    with pytest.raises(NoteError):
        sign(text, key, private.sign)


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"\n\n",
        b"text\n",
        b"text\n\n",
        b"text\n\nno signature\n",
        "text\n\n— name\n".encode(),
        "text\n\n— name AAAA\n".encode(),
        "text\n\n— name !!!!!!!!\n".encode(),
        SIGNED[:-1],
        SIGNED.replace(b"answer", b"question"),
        SIGNED.replace(b"x08go/Z", b"x08go/A"),
        b"\xff" + SIGNED,
        SIGNED + b"x" * 70_000,
    ],
)
def test_no_note(note: bytes) -> None:
    with pytest.raises(NoteError):
        open_note(note, [parse_verifier_key(PETER)])


def test_a_key_that_nobody_trusts() -> None:
    key, _ = _own()
    with pytest.raises(NoteError, match="no known key"):
        open_note(SIGNED, [key])


@pytest.mark.parametrize(
    "text", ["", "a+b", PETER[:-4], PETER.replace("c74f", "c74e"), PETER + " "]
)
def test_no_verifier_key(text: str) -> None:
    with pytest.raises(NoteError):
        parse_verifier_key(text)
