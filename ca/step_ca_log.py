"""Reads the log of a step-ca: which certificates it says it signed. It judges none of them.

step-ca writes one JSON object per request (`"logger": {"format": "json"}`), from 0.19 on with the
whole certificate of whatever it signed, renewed or rekeyed. A log is a stranger's text: what cannot
be read is counted and passed over.
"""

from base64 import b64decode
from binascii import Error as Base64Error
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from cryptography import x509

from ca.csr import PARSER_ERRORS

_LONGEST_LINE: Final = 256 * 1024  # characters; a line with a certificate has 4 KiB
_MAKING: Final = ("/sign", "/renew", "/rekey")
_SSH: Final = "/ssh/"


@dataclass(frozen=True, slots=True)
class Signed:
    """A certificate that was signed. `serial`: lower-case hex; `der` None: the log has no more.

    `when`, `path`: as the log says, for people.
    """

    serial: str
    der: bytes | None
    when: str
    path: str


def signed_in(lines: Iterable[str], seen: Counter[str]) -> Iterator[Signed]:
    """Yield what was signed according to a log's lines, in their order.

    `seen` counts `lines` and `unreadable` (one that speaks of a certificate and shows none).
    """
    for line in lines:
        seen["lines"] += 1
        if '"serial"' not in line and '"certificate"' not in line:
            continue
        entry = _object(line)
        if not _made(entry):
            continue
        found = _signed(entry)
        if found is None:
            seen["unreadable"] += 1
        else:
            yield found


def _object(line: str) -> Mapping[str, Any]:
    try:
        # Whatever stands before the object is of the program that carries the log.
        found = orjson.loads(line[line.find("{") : _LONGEST_LINE])
    except orjson.JSONDecodeError:
        return {"certificate": None}
    return found if isinstance(found, dict) else {}


def _made(entry: Mapping[str, Any]) -> bool:
    """Whether it tells of a certificate that was made, and not of a revocation or an error."""
    path = str(entry.get("path", ""))
    if _SSH in path:
        return False  # no X.509
    return "certificate" in entry or ("serial" in entry and path.endswith(_MAKING))


def _signed(entry: Mapping[str, Any]) -> Signed | None:
    der: bytes | None = None
    try:
        if isinstance(entry.get("certificate"), str):
            der = b64decode(entry["certificate"], validate=True)
            number = x509.load_der_x509_certificate(der).serial_number
        else:
            number = int(str(entry["serial"]), 10)
    except (KeyError, Base64Error, *PARSER_ERRORS):
        return None
    serial = format(number, "x")
    if not 0 < number < 1 << 256:
        return None
    return Signed(
        serial.zfill(2), der, str(entry.get("time", ""))[:40], str(entry.get("path", ""))[:100]
    )
