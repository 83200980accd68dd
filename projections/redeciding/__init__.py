"""Decides a recorded command again, by the rules of `ledger/`, on other states than it was decided on. Pure.

A command is told by the first of its facts: whoever gave it, when, and with what is in the events; the
states are those of a history in which something is different. The answer is what the command would have
recorded then, or nothing. What the rules read but no event keeps (that a peer's revocation was told to
take its grants along, the failures a lock counted) is taken as it was.
"""

from typing import Final

from projections.redeciding import certificates, grants, others
from projections.redeciding.command import Command, Facts, Rules

__all__ = ["Command", "decide"]

_RULES: Final[Rules] = {**others.RULES, **grants.RULES, **certificates.RULES}


def decide(command: Command) -> Facts:
    """Return the facts that the command would record.

    Raises:
        LedgerError: the rules would refuse it, or there would be nothing it could be about.
    """
    rule = _RULES.get(type(command.first.data))
    if rule:
        return rule(command)
    # What has no rule (notes, the ledger's own stream) is no one's decision: it stands where it
    # stood, but not in a stream that would never have begun.
    if command.first.originator_version > 1:
        command.own(object)
    return [event.data for event in command.events]
