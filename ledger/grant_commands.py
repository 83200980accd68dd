"""The commands about grants: see `ledger/grants.py` for their rules."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID, uuid4

from ledger import grants
from ledger.commands import Commands, approvers_in, permit, policy_in, put
from ledger.events import Fact
from ledger.grant_state import Grant
from ledger.peers import Peer
from ledger.reading import Call, Reading
from ledger.scope import Scope
from ledger.store import Recorded


class GrantCommands(Commands):
    """Propose, approve, reject, amend, narrow, suspend, resume, revoke, expire."""

    def propose_grant(
        self,
        call: Call,
        peer_id: UUID,
        subject_user_id: str,
        scope: Scope,
        not_before: datetime | None,
        expires_at: datetime,
    ) -> Recorded[Grant]:
        """See `grants.propose`."""
        grant_id = uuid4()

        def decide(reading: Reading) -> Grant:
            permit(reading, call, "propose-grant")
            peer, current = reading.state(Peer, peer_id), policy_in(reading)
            facts = grants.propose(
                peer,
                current,
                subject_user_id,
                scope,
                not_before,
                expires_at,
                call.reason,
                reading.at,
            )
            return reading.append(Grant, grant_id, *facts)

        return self.decide(call, decide)

    def approve_grant(self, call: Call, grant_id: UUID, terms_digest: str) -> Recorded[Grant]:
        """See `grants.approve`."""

        def decide(reading: Reading) -> Grant:
            current = policy_in(reading)
            relaxed = "" if current.four_eyes else "-without-four-eyes"
            permit(reading, call, f"approve-grant{relaxed}")
            grant = reading.target(Grant, grant_id)
            facts = grants.approve(
                grant,
                reading.state(Peer, grant.peer_id),
                current,
                approvers_in(reading, grant),
                terms_digest,
                call.actor,
                call.reason,
                reading.at,
            )
            return put(reading, grant, Grant, grant_id, facts)

        return self.decide(call, decide)

    def reject_grant(self, call: Call, grant_id: UUID) -> Recorded[Grant]:
        """See `grants.reject`."""
        return self.change(
            call,
            "reject-grant",
            Grant,
            grant_id,
            lambda reading, grant: grants.reject(grant, call.reason, reading.at),
        )

    def amend_grant(
        self,
        call: Call,
        grant_id: UUID,
        *,
        scope: Scope | None = None,
        not_before: datetime | None = None,
        expires_at: datetime | None = None,
    ) -> Recorded[Grant]:
        """See `grants.amend`."""

        def rule(reading: Reading, grant: Grant) -> Sequence[Fact]:
            return grants.amend(
                grant,
                reading.state(Peer, grant.peer_id),
                policy_in(reading),
                scope=scope,
                not_before=not_before,
                expires_at=expires_at,
                reason=call.reason,
                at=reading.at,
            )

        return self.change(call, "amend-grant", Grant, grant_id, rule)

    def narrow_grant(
        self,
        call: Call,
        grant_id: UUID,
        *,
        scope: Scope | None = None,
        expires_at: datetime | None = None,
    ) -> Recorded[Grant]:
        """See `grants.narrow`."""

        def rule(reading: Reading, grant: Grant) -> Sequence[Fact]:
            return grants.narrow(
                grant, scope=scope, expires_at=expires_at, reason=call.reason, at=reading.at
            )

        return self.change(call, "narrow-grant", Grant, grant_id, rule)

    def suspend_grant(self, call: Call, grant_id: UUID) -> Recorded[Grant]:
        """See `grants.suspend`."""
        return self.change(
            call,
            "suspend-grant",
            Grant,
            grant_id,
            lambda _, grant: grants.suspend(grant, call.reason),
        )

    def resume_grant(self, call: Call, grant_id: UUID) -> Recorded[Grant]:
        """See `grants.resume`: an admin's to do, after a clone alarm an approver's."""

        def decide(reading: Reading) -> Grant:
            suspected = reading.maybe(Grant, grant_id)
            after_clone = suspected is not None and suspected.clone_suspected
            permit(reading, call, "resume-grant-after-clone" if after_clone else "resume-grant")
            grant = reading.target(Grant, grant_id)
            facts = grants.resume(
                grant,
                reading.state(Peer, grant.peer_id),
                policy_in(reading),
                call.reason,
                reading.at,
            )
            return put(reading, grant, Grant, grant_id, facts)

        return self.decide(call, decide)

    def revoke_grant(self, call: Call, grant_id: UUID) -> Recorded[Grant]:
        """See `grants.revoke`."""
        return self.change(
            call,
            "revoke-grant",
            Grant,
            grant_id,
            lambda reading, grant: grants.revoke(grant, call.reason, reading.at),
        )

    def expire_grant(self, call: Call, grant_id: UUID) -> Recorded[Grant]:
        """See `grants.expire`; the sweeper's."""

        def rule(reading: Reading, grant: Grant) -> Sequence[Fact]:
            peer = reading.state(Peer, grant.peer_id)
            return grants.expire(grant, peer, policy_in(reading), reading.at)

        return self.change(call, "expire-grant", Grant, grant_id, rule)
