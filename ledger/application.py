"""`Ledger`: every command there is, one method each: load, ask the rules, append.

No rule stands here but who may ask at all. Enrolling and renewing are composed in `ca/issuance.py`.
Ids that only a table can find (a peer's grants, the other admins) are handed in.
"""

from collections.abc import Sequence
from uuid import UUID, uuid4

from ledger import alarms, identity, policy
from ledger.alarms import Alarm
from ledger.certificate_commands import CertificateCommands, IssuedToken
from ledger.commands import approvers_in, permit, policy_in
from ledger.errors import StaleError
from ledger.events import LEDGER_ID, POLICY_ID, Fact
from ledger.grant_commands import GrantCommands
from ledger.identity import Identity
from ledger.notes import Note
from ledger.operator_commands import FindHolders, IssuedCredential, OperatorCommands
from ledger.peer_commands import FindIds, PeerCommands
from ledger.policy import Policy
from ledger.reading import Call, Reading
from ledger.store import Recorded

__all__ = [
    "FindHolders",
    "FindIds",
    "IssuedCredential",
    "IssuedToken",
    "Ledger",
    "approvers_in",
    "permit",
    "policy_in",
]


class Ledger(PeerCommands, GrantCommands, CertificateCommands, OperatorCommands):
    """The ledger's commands. Each may raise what its rule names, and what `Store.decide` names."""

    def change_policy(self, call: Call, **changes: object) -> Recorded[Policy]:
        """See `policy.change`. Before the first change the version for If-Match is 0."""

        def decide(reading: Reading) -> Policy:
            permit(reading, call, "change-policy")
            current = policy_in(reading)
            if call.expected_version not in (None, current.version):
                raise StaleError(
                    "the policy has changed since it was read; read it again",
                    version=current.version,
                )
            facts = policy.change(current, changes)
            return reading.append(Policy, POLICY_ID, *facts) if facts else current

        return self.decide(call, decide)

    def raise_alarm(
        self, call: Call, kind: str, about: Sequence[str], detail: str
    ) -> Recorded[Alarm]:
        """See `alarms.raise_alarm`. Our own doing, so no role is asked for, whoever the actor is."""
        alarm_id = uuid4()
        facts = alarms.raise_alarm(kind, about, detail)
        return self.decide(call, lambda reading: reading.append(Alarm, alarm_id, *facts))

    def acknowledge_alarm(self, call: Call, alarm_id: UUID) -> Recorded[Alarm]:
        """See `alarms.acknowledge`."""
        return self.change(
            call,
            "acknowledge-alarm",
            Alarm,
            alarm_id,
            lambda _, alarm: alarms.acknowledge(alarm, call.reason),
        )

    def note(self, call: Call, fact: Fact) -> Recorded[Note]:
        """Write a note to a stream of its own, so that writers never conflict."""
        note_id = uuid4()
        return self.decide(call, lambda reading: reading.append(Note, note_id, fact))

    def create_ledger(
        self, call: Call, origin: str, log_key: str, product_version: str
    ) -> Recorded[Identity]:
        """See `identity.create`."""

        def decide(reading: Reading) -> Identity:
            permit(reading, call, "create-ledger")
            existing = reading.maybe(Identity, LEDGER_ID)
            facts = identity.create(existing, origin, log_key, product_version)
            return reading.append(Identity, LEDGER_ID, *facts)

        return self.decide(call, decide)

    def rotate_log_key(self, call: Call, log_key: str) -> Recorded[Identity]:
        """See `identity.rotate_log_key`."""
        return self.change(
            call,
            "rotate-log-key",
            Identity,
            LEDGER_ID,
            lambda _, current: identity.rotate_log_key(current, log_key),
        )

    def checkpoint_access(self, call: Call, size: int, root: str) -> Recorded[Identity]:
        """See `identity.checkpoint_access`."""
        return self.change(
            call,
            "checkpoint-access",
            Identity,
            LEDGER_ID,
            lambda _, current: identity.checkpoint_access(current, size, root),
        )
