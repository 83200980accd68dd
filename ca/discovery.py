"""Finds certificates that an authority signed and the ledger never authorized.

Whoever has a provisioner's key can have them made. They open nothing: what is presented and not on
record is refused. But somebody has the key, and that is an alarm, once per serial. Nothing is
revoked here: the ledger has no certificate of theirs to revoke.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from psycopg import Connection

from ca.csr import PARSER_ERRORS
from ca.profile import tbs_sha256
from ca.rejections import add_alarm, log_alarm
from ca.step_ca_log import Signed, signed_in
from ledger import authorities as rules
from ledger.application import Ledger
from ledger.authorities import Authority
from ledger.reading import Call, Reading
from projections import authorities, certificates
from projections.authorities import AuthorityRow

FOUND_UNKNOWN: Final = "found-unknown"
"""The alarm's kind."""

_LONGEST_KEPT: Final = 24 * 1024  # bytes of a stranger's certificate: its event must fit 60 KiB


@dataclass(frozen=True, slots=True)
class Unknown:
    """A certificate that was never authorized. `new`: it was not on record as such before."""

    authority_id: UUID
    signed: Signed
    new: bool


@dataclass(slots=True)
class Discovery:
    """What was found. `seen` counts lines, unreadable, certificates, known, and foreign ones: of
    an issuer that this ledger never adopted."""

    unknown: list[Unknown] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)


def discover(
    ledger: Ledger,
    read: Callable[[], AbstractContextManager[Connection[Any]]],
    call: Callable[[], Call],
    lines: Iterable[str],
    name: str,
) -> Discovery:
    """Compare a step-ca's log with the record; put on record, with an alarm, what is only in one.

    `name`: of the log, for people. It may be repeated with the same lines.

    Raises:
        LedgerError: it cannot be recorded now.
    """
    found = Discovery()
    with read() as connection:
        adopted = [row for row in authorities.everything(connection) if row.kind == "step-ca"]
        for signed in signed_in(lines, found.seen):
            found.seen["certificates"] += 1
            authority_id = _issuer(signed, adopted)
            if authority_id is None:
                found.seen["foreign"] += 1
            elif _is_known(connection, authority_id, signed):
                found.seen["known"] += 1
            else:
                new = _record(ledger, call(), authority_id, signed, name)
                found.unknown.append(Unknown(authority_id, signed, new))
    return found


def _issuer(signed: Signed, adopted: list[AuthorityRow]) -> UUID | None:
    """Which of our authorities signed it; without its bytes, the one that issues now."""
    if signed.der is None:
        return adopted[-1].id if adopted else None
    certificate = x509.load_der_x509_certificate(signed.der)
    for row in reversed(adopted):
        try:
            certificate.verify_directly_issued_by(x509.load_der_x509_certificate(row.chain[0]))
        except (*PARSER_ERRORS, InvalidSignature):
            continue
        return row.id
    return None


def _is_known(connection: Connection[Any], authority_id: UUID, signed: Signed) -> bool:
    """Whether the ledger ordered this serial, and, where it has the certificate, this very one."""
    row = certificates.by_serial(connection, signed.serial)
    if row is None or row.authority_id != authority_id:
        return False
    # A thief may well choose a serial of ours. What is open, failed or abandoned has no bytes on
    # record; its serial delivers nothing, or counts as revoked.
    if signed.der is None or row.tbs_sha256 is None:
        return True
    return tbs_sha256(signed.der) == row.tbs_sha256


def _record(ledger: Ledger, call: Call, authority_id: UUID, signed: Signed, name: str) -> bool:
    kept = signed.der if signed.der and len(signed.der) <= _LONGEST_KEPT else None
    found_in = f"{name}: {signed.path} at {signed.when}"

    def decide(reading: Reading) -> bool:
        authority = reading.state(Authority, authority_id)
        facts = rules.find_unknown(authority, signed.serial, kept, found_in)
        if facts:
            reading.append(Authority, authority_id, *facts)
            detail = (
                "the authority signed a certificate that this ledger never authorized: whoever "
                "asked has the provisioner's key; replace it"
            )
            add_alarm(reading, FOUND_UNKNOWN, (str(authority_id), signed.serial), detail)
        return bool(facts)

    new = ledger.decide(call, decide).value
    if new:
        log_alarm(FOUND_UNKNOWN, signed.serial)
    return new
