"""The commands about enrollment tokens, certificates and the authorities that sign them.

Enrolling and renewing are not here: they need an authority, so `ca/issuance.py` composes them of
`decide` and the rules. See `ledger/enrollment.py`, `ledger/certificates.py`,
`ledger/authorities.py` for the rules.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from ledger import authorities, bearer, certificates, enrollment
from ledger.authorities import Authority
from ledger.commands import Commands, permit, policy_in, put
from ledger.events import EnrollmentTokenIssued, Event, Fact, RevocationReason
from ledger.grant_state import Grant
from ledger.peers import Peer
from ledger.reading import Call, Reading
from ledger.store import Recorded


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """An enrollment token. `text` is the secret, shown once: None when the call is a repeat."""

    text: str | None = field(repr=False)
    accessor: str
    expires_at: datetime
    grant: Grant


class CertificateCommands(Commands):
    """Issue, cancel and lock tokens, revoke certificates, adopt and retire authorities."""

    def issue_enrollment_token(
        self,
        call: Call,
        grant_id: UUID,
        *,
        ttl: timedelta | None = None,
        key_digest: str | None = None,
    ) -> Recorded[IssuedToken]:
        """See `enrollment.issue_token`. The secret is in the answer and nowhere else."""
        minted = bearer.mint(bearer.BearerKind.ENROLLMENT, self.randomness)

        def decide(reading: Reading) -> IssuedToken:
            permit(reading, call, "issue-enrollment-token")
            grant = reading.target(Grant, grant_id)
            facts = enrollment.issue_token(
                grant,
                reading.state(Peer, grant.peer_id),
                policy_in(reading),
                minted,
                ttl,
                key_digest,
                reading.at,
            )
            after = reading.append(Grant, grant_id, *facts)
            end = after.tokens[minted.accessor].expires_at
            return IssuedToken(minted.text, minted.accessor, end, after)

        def again(events: tuple[Event, ...]) -> IssuedToken:
            fact = next(e.data for e in events if isinstance(e.data, EnrollmentTokenIssued))
            after = self.left_by(Grant, events)
            return IssuedToken(None, fact.accessor, fact.expires_at, after)

        return self.decide(call, decide, again=again)

    def cancel_enrollment_token(self, call: Call, grant_id: UUID, accessor: str) -> Recorded[Grant]:
        """See `enrollment.cancel_token`."""
        return self.change(
            call,
            "cancel-enrollment-token",
            Grant,
            grant_id,
            lambda reading, grant: enrollment.cancel_token(grant, accessor, reading.at),
        )

    def lock_enrollment_token(
        self, call: Call, grant_id: UUID, accessor: str, failures: int
    ) -> Recorded[Grant]:
        """See `enrollment.lock_token`; for a `system` actor."""
        return self.change(
            call,
            "lock-enrollment-token",
            Grant,
            grant_id,
            lambda reading, grant: enrollment.lock_token(grant, accessor, failures, reading.at),
        )

    def revoke_certificate(
        self,
        call: Call,
        grant_id: UUID,
        serial: str,
        revocation_reason: RevocationReason,
        detail: str,
    ) -> Recorded[Grant]:
        """See `certificates.revoke`."""
        return self.change(
            call,
            "revoke-certificate",
            Grant,
            grant_id,
            lambda _, grant: certificates.revoke(
                grant, [serial], revocation_reason, detail, call.reason
            ),
        )

    def revoke_certificates(
        self,
        call: Call,
        serials: Mapping[UUID, Sequence[str]],
        revocation_reason: RevocationReason,
        detail: str,
    ) -> Recorded[tuple[UUID, ...]]:
        """Revoke certificates of several grants (id → serials) in one append, all or none.

        For revocation by key, peer or subject user. The value names the grants that changed.
        """

        def decide(reading: Reading) -> tuple[UUID, ...]:
            permit(reading, call, "revoke-certificate")
            for grant_id, some in serials.items():
                grant = reading.state(Grant, grant_id)
                facts = certificates.revoke(grant, some, revocation_reason, detail, call.reason)
                put(reading, grant, Grant, grant_id, facts)
            return _streams(reading.events)

        return self.decide(call, decide, again=_streams)

    def tell_authority(
        self,
        call: Call,
        grant_id: UUID,
        serial: str,
        answer: Literal["confirmed", "already-revoked", "unsupported", "failed"],
        status: int | None,
    ) -> Recorded[Grant]:
        """See `certificates.tell_authority`; the reconciler's."""

        def rule(reading: Reading, grant: Grant) -> Sequence[Fact]:
            peer = reading.state(Peer, grant.peer_id)
            return certificates.tell_authority(grant, peer, serial, answer, status, reading.at)

        return self.change(call, "tell-authority", Grant, grant_id, rule)

    # ---- authorities ----------------------------------------------------------------------

    def adopt_authority(
        self,
        call: Call,
        authority_id: UUID,
        kind: Literal["local", "step-ca"],
        chain: Sequence[bytes],
        not_after: datetime,
    ) -> Recorded[Authority]:
        """See `authorities.adopt`."""

        def decide(reading: Reading) -> Authority:
            permit(reading, call, "adopt-authority")
            existing = reading.maybe(Authority, authority_id)
            facts = authorities.adopt(existing, kind, chain, not_after)
            return put(reading, existing, Authority, authority_id, facts)

        return self.decide(call, decide)

    def retire_authority(self, call: Call, authority_id: UUID) -> Recorded[Authority]:
        """See `authorities.retire`."""
        return self.change(
            call,
            "retire-authority",
            Authority,
            authority_id,
            lambda _, authority: authorities.retire(authority),
        )

    def publish_crl(
        self,
        call: Call,
        authority_id: UUID,
        this_update: datetime,
        next_update: datetime,
        entries: int,
    ) -> Recorded[Authority]:
        """See `authorities.publish_crl`; the position of the answer is the CRL number."""
        return self.change(
            call,
            "publish-crl",
            Authority,
            authority_id,
            lambda _, authority: authorities.publish_crl(
                authority, this_update, next_update, entries
            ),
        )

    def find_unknown_certificate(
        self,
        call: Call,
        authority_id: UUID,
        serial: str,
        certificate: bytes | None,
        found_in: str,
    ) -> Recorded[Authority]:
        """See `authorities.find_unknown`."""
        return self.change(
            call,
            "find-unknown-certificate",
            Authority,
            authority_id,
            lambda _, authority: authorities.find_unknown(authority, serial, certificate, found_in),
        )


def _streams(events: Iterable[Event]) -> tuple[UUID, ...]:
    return tuple(dict.fromkeys(event.originator_id for event in events))
