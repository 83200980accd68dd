"""How an issuance closes: by a certificate as ordered, by another one, or by a final refusal.

Each way is a function of the states at the moment of the append (step 4 of `ca/issuance.py`); the
rules in `ledger/issuance.py` decide, and `append_closing` puts it in the append.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from ca.authority import AuthorityRefused
from ca.profile import certificate_sha256, tbs_sha256
from ca.rejections import add_alarm
from ledger import authorities, issuance
from ledger.commands import approvers_in, policy_in
from ledger.errors import LedgerError
from ledger.grant_state import Grant, Issuance
from ledger.issuance import AlreadyClosed, Closed, Signed
from ledger.peers import Peer
from ledger.reading import Reading

Close = Callable[[Reading, Grant, Peer], Closed | AlreadyClosed]

MIS_ISSUED: Final = "mis-issued"
"""The alarm's kind."""

_LONGEST_KEPT: Final = 24 * 1024  # bytes of a stranger's certificate: its event must fit 60 KiB


@dataclass(frozen=True, slots=True)
class Wrong:
    """What an authority returned instead of the certificate ordered, and how it differs."""

    der: bytes
    findings: tuple[str, ...]

    def record(self, reading: Reading, closed: Issuance) -> None:
        """Put on record what came after the issuance was closed otherwise, once per serial."""
        authority_id = closed.authorization.authority_id
        authority = reading.state(authorities.Authority, authority_id)
        kept = self.der if len(self.der) <= _LONGEST_KEPT else None
        found_in = f"an answer to issuance {closed.id} that was closed before"
        facts = authorities.find_unknown(authority, closed.serial, kept, found_in)
        if facts:
            reading.append(authorities.Authority, authority_id, *facts)


def refused(issuance_id: UUID, error: AuthorityRefused) -> Close:
    """By the authority's final no."""
    status, detail = error.status, error.detail
    return lambda _, grant, __: issuance.fail(grant, issuance_id, status, detail)


def mismatched(issuance_id: UUID, wrong: Wrong) -> Close:
    """By what is not the certificate ordered, revoked in the same append."""
    return lambda _, grant, __: issuance.mis_issued(grant, issuance_id, wrong.der, wrong.findings)


def as_ordered(issuance_id: UUID, der: bytes) -> Close:
    """By the certificate ordered; whether it may be delivered is decided anew."""
    signed = Signed(der, certificate_sha256(der), tbs_sha256(der))
    return lambda reading, grant, peer: issuance.complete(
        grant,
        peer,
        policy_in(reading),
        approvers_in(reading, grant),
        issuance_id,
        signed,
        reading.at,
    )


def append_closing(
    reading: Reading, grant_id: UUID, issuance_id: UUID, close: Close, wrong: Wrong | None
) -> LedgerError | None:
    """Append how an issuance closes, unless somebody was first; return the error it closes with.

    `wrong`: what came back instead of the certificate; alarming whoever was first.
    """
    grant = reading.state(Grant, grant_id)
    outcome = close(reading, grant, reading.state(Peer, grant.peer_id))
    if isinstance(outcome, Closed):
        reading.append(Grant, grant_id, *outcome.facts)
    elif wrong is not None:
        wrong.record(reading, outcome.issuance)
    if wrong is not None:
        about = (str(grant_id), str(issuance_id), grant.issuances[issuance_id].serial)
        add_alarm(reading, MIS_ISSUED, about, "; ".join(wrong.findings))
    return outcome.error if isinstance(outcome, Closed) else None
