"""The verifier key of a C2SP signed note, as text. It neither signs nor verifies."""

import base64
from hashlib import sha256
from typing import Final

_ED25519: Final = b"\x01"  # the signature type, c2sp.org/signed-note


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
