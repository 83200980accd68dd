"""The private half of the ledger's log key, in the home that `init` made: it signs what leaves here.

It makes no key and chooses no text.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from ledger.errors import UnavailableError
from ledger.identity import Identity
from ledger.tlog.note import VerifierKey, sign

LOG_KEY: Final = Path("keys") / "log.key"
"""Where it is in the home."""


@dataclass(frozen=True, slots=True)
class LogKey:
    """The key in `path`, read anew for each use: it may be put back while the service runs."""

    path: Path

    def sign(self, text: str, identity: Identity) -> str:
        """Return the text as a note signed in the ledger's name.

        Raises:
            UnavailableError: `log-key-unusable`: the file is missing, or no key of this ledger's.
        """
        private = self._private()
        key = VerifierKey(identity.origin, _public(private))
        if key.text != identity.log_key:
            raise UnavailableError("the log key here is another ledger's", code="log-key-unusable")
        return sign(text, key, private.sign)

    def check(self, identity: Identity) -> None:
        """Raise what `sign` would, before there is anything to sign."""
        self.sign("check\n", identity)

    def verifier(self, origin: str) -> VerifierKey:
        """The public half, for the ledger of this home. Raises as `sign`."""
        return VerifierKey(origin, _public(self._private()))

    def _private(self) -> Ed25519PrivateKey:
        try:
            key = load_pem_private_key(self.path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise UnavailableError("the log key cannot be read", code="log-key-unusable")
        return key


def _public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
