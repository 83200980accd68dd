"""C2SP signed notes: text with Ed25519 signatures under it, and the verifier keys that check them.

https://c2sp.org/signed-note. It knows no checkpoint and no other text that is signed, and keeps no
key: who signs hands in a function that does.
"""

import base64
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MAX_NOTE: Final = 64 * 1024
"""Bytes. Ours have some hundred; whoever sends more is not understood."""

_ED25519: Final = b"\x01"  # the signature type
_SEPARATOR: Final = "\n\n"
_SIGNATURE: Final = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/]+={0,2})")
_KEY: Final = re.compile(r"([^\s+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]+={0,2})")


class NoteError(ValueError):
    """This is no signed note, no verifier key, or no signature that counts."""


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """Whose signatures are believed. `public_key`: the 32 bytes of an Ed25519 key."""

    name: str
    public_key: bytes

    @property
    def hash(self) -> bytes:
        """The 4 bytes by which a signature names this key."""
        return key_hash(self.name, self.public_key)

    @property
    def text(self) -> str:
        """As it is handed to others."""
        return verifier_key(self.name, self.public_key)


@dataclass(frozen=True, slots=True)
class Note:
    """What was signed, ending in a newline, and the names of the keys whose signatures are right."""

    text: str
    signers: tuple[str, ...]


def verifier_key(name: str, public_key: bytes) -> str:
    """Return `<name>+<8 hex>+<base64>`: the name, the key's hash, its type and 32 bytes.

    Raises:
        ValueError: the name is empty or holds a space or a plus, or it is no Ed25519 key.
    """
    if not name or "+" in name or any(char.isspace() for char in name):
        raise ValueError("a key name is not empty and has neither spaces nor a plus")
    if len(public_key) != 32:
        raise ValueError("an Ed25519 public key has 32 bytes")
    typed = _ED25519 + public_key
    return f"{name}+{key_hash(name, public_key).hex()}+{base64.b64encode(typed).decode('ascii')}"


def key_hash(name: str, public_key: bytes) -> bytes:
    """Return the 4 bytes by which a signature names its Ed25519 key."""
    return sha256(name.encode() + b"\n" + _ED25519 + public_key).digest()[:4]


def parse_verifier_key(text: str) -> VerifierKey:
    """Read back what `verifier_key` writes.

    Raises:
        NoteError: another form, another kind of key, or a hash that is not this key's.
    """
    found = _KEY.fullmatch(text)
    typed = _decoded(found[3]) if found else b""
    if found is None or typed[:1] != _ED25519 or len(typed) != 33:
        raise NoteError("not the verifier key of an Ed25519 key")
    key = VerifierKey(found[1], typed[1:])
    if key.hash.hex() != found[2]:
        raise NoteError("the verifier key's hash is not that of its key")
    return key


def sign(text: str, key: VerifierKey, signature: Callable[[bytes], bytes]) -> str:
    """Return the note of a text. `signature(bytes)`: Ed25519, by the key's private half.

    Raises:
        NoteError: the text is empty, does not end in a newline, or holds another control character.
    """
    if not _is_text(text):
        raise NoteError("a note's text has whole lines, and no other control characters")
    signed = base64.b64encode(key.hash + signature(text.encode())).decode("ascii")
    return f"{text}\n— {key.name} {signed}\n"


def open_note(note: bytes, keys: Iterable[VerifierKey]) -> Note:
    """Return the text of a note that one of the keys has signed.

    Signatures of other keys are passed over; a wrong one in the name of a known key is not.

    Raises:
        NoteError: it is no note, or no known key has signed it, or one has not though it says so.
    """
    text, signatures = _parted(note)
    known = {(key.name, key.hash): key for key in keys}
    signers: list[str] = []
    for name, signature in signatures:
        key = known.get((name, signature[:4]))
        if key is None:
            continue
        try:
            Ed25519PublicKey.from_public_bytes(key.public_key).verify(signature[4:], text.encode())
        except (InvalidSignature, ValueError):
            raise NoteError("a signature in the name of a known key is not its own") from None
        signers.append(name)
    if not signers:
        raise NoteError("no known key has signed this")
    return Note(text, tuple(signers))


def text_of(note: bytes) -> str:
    """Return a note's text, whoever signed it: for showing what it claims, never for believing it.

    Raises:
        NoteError: it is no note.
    """
    return _parted(note)[0]


def _parted(note: bytes) -> tuple[str, list[tuple[str, bytes]]]:
    try:
        whole = note.decode("utf-8") if len(note) <= MAX_NOTE else ""
    except UnicodeDecodeError:
        whole = ""
    # The last empty line counts: the text may hold others.
    text, separator, below = whole.rpartition(_SEPARATOR)
    text += "\n"
    if not separator or not _is_text(text) or not below.endswith("\n"):
        raise NoteError("not a signed note")
    return text, [_signature(line) for line in below[:-1].split("\n")]


def _signature(line: str) -> tuple[str, bytes]:
    found = _SIGNATURE.fullmatch(line)
    signature = _decoded(found[2]) if found else b""
    if found is None or len(signature) < 5:
        raise NoteError("not a signature line of a note")
    return found[1], signature


def _is_text(text: str) -> bool:
    return (
        text.endswith("\n") and text != "\n" and all(char == "\n" or char >= " " for char in text)
    )


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""
