"""How grants of a made-up past begin: proposed, amended, approved or not.

Every step asks the rule; where the rule refuses, because a peer is suspended or a grant has ended
meanwhile, the life waits or ends, as its people would.
"""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Final
from uuid import UUID

from ledger import alarms, grants
from ledger.alarms import Alarm
from ledger.errors import LedgerError
from ledger.events import Fact
from ledger.grant_state import TERMINAL, Grant, GrantStatus, Issuance, IssuanceState
from ledger.peers import Peer
from ledger.scope import Scope, scope_from_stored
from support.past_world import ISSUANCE, Life, World

MINUTE: Final = timedelta(minutes=1)
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
SECOND: Final = timedelta(seconds=1)
_DAYS: Final = (7, 30, 30, 30, 30, 60, 60, 90, 90, 180)
_WAITING: Final = ("never-approved", "suspended-for-good")  # long enough to be found so
_PLAIN: Final = ("tasks", "notes", "memory")
_SENSITIVE: Final = ("credentials", "api_keys")

Told = Iterator[timedelta]


def scopes() -> tuple[list[Scope], list[Scope]]:
    """All the scopes people ask for here: harmless ones, and sensitive ones."""

    def made(*resources: str, rows: int, teams: tuple[str, ...] = ()) -> Scope:
        filters = {resources[0]: {"include_teams": teams, "include_personal": True}}
        return scope_from_stored(
            {
                "resources": resources,
                "excluded_resources": (),
                "filters": filters if teams else {},
                "max_rows_per_query": rows,
            }
        )

    plain = [
        made(*_PLAIN[:count], rows=rows, teams=teams)
        for count in (1, 2, 3)
        for rows in (50, 100, 1000)
        for teams in ((), ("sales",), ("sales", "support"))
    ]
    return plain, [made("tasks", name, rows=rows) for name in _SENSITIVE for rows in (10, 100)]


class Proposed:
    """One grant. `twist` names what makes it unlike the others, if anything does."""

    def __init__(self, world: World, peer: int, wanted: Scope, user: str, twist: str) -> None:
        self.world = world
        self._peer = peer
        self._wanted = wanted
        self._user = user
        self._twist = twist
        self._id: UUID | None = None

    # ---- how it stands ----

    @property
    def grant(self) -> Grant:
        assert self._id is not None
        return self.world.grants[self._id]

    @property
    def peer(self) -> Peer:
        return self.world.peers[self._peer]

    @property
    def ended(self) -> bool:
        return self._id not in self.world.grants or self.grant.status in TERMINAL

    def _admin(self, facts: tuple[Fact, ...]) -> Grant:
        world = self.world
        if not facts:
            return self.grant
        return world.grant(self.grant, facts, world.any("admin"), reason=world.reason())

    def _alarm(self, kind: str, about: list[str], detail: str) -> Life:
        """Raised now, acknowledged by somebody within days, or never."""
        world = self.world
        alarm = world.alarm(kind, about, detail, ISSUANCE)
        if world.chance(0.8):
            yield world.between(HOUR, 5 * DAY)
            by, reason = world.any("operator"), "looked into, see the ticket"
            facts = alarms.acknowledge(alarm, reason)
            world.book.append(Alarm, alarm, alarm.id, facts, world.now, by, reason=reason)

    def _try(self, step: Callable[[], object], tries: int = 8) -> Told:
        """Take a step; where it is refused, wait and try again, some times."""
        for _ in range(tries):
            if self.ended:
                return
            try:
                step()
            except LedgerError:
                yield self.world.between(DAY, 8 * DAY)
            else:
                return

    @property
    def current(self) -> Issuance | None:
        """The certificate in use, if there is one."""
        if self.ended or not self.grant.issuances:
            return None
        last = next(reversed(self.grant.issuances.values()))
        good = last.state is IssuanceState.ISSUED and last.revocation is None
        return last if good and self.world.now <= last.not_after else None

    # ---- its terms ----

    def _propose(self) -> None:
        world, now = self.world, self.world.now
        days = world.one_of(_DAYS) if not world.chance(0.04) else 365
        if self._twist in _WAITING:
            days = 180
        start = now + 2 * DAY if world.chance(0.05) else None
        reason = world.reason() if self._wanted.sensitive or world.chance(0.3) else None
        facts = grants.propose(
            self.peer,
            world.policy,
            self._user,
            self._wanted,
            start,
            now + min(timedelta(days=days), timedelta(days=world.policy.max_grant_days)),
            reason,
            now,
        )
        self._id = world.grant(None, facts, world.any("admin"), reason=reason).id

    def _terms(self) -> Told:
        world = self.world
        if self._twist == "amended":
            yield world.between(HOUR, DAY)
            yield from self._try(self._amend, tries=1)
        if not self._wanted.sensitive:
            return
        yield world.between(MINUTE, 2 * DAY)
        if self._twist == "rejected" and self.grant.status is GrantStatus.PENDING_APPROVAL:
            facts = grants.reject(self.grant, world.reason(), world.now)
            world.grant(self.grant, facts, world.any("approver"), reason=world.reason())
            return
        if self._twist == "never-approved":
            return
        yield from self._approvals()
        if self._twist == "lapsed":
            yield timedelta(days=world.policy.approval_days, hours=3)
            yield from self._approvals()

    def _amend(self) -> None:
        grant = self.grant
        end = grant.expires_at - (grant.expires_at - self.world.now) / 4
        self._admin(
            grants.amend(
                grant,
                self.peer,
                self.world.policy,
                scope=None,
                not_before=None,
                expires_at=end,
                reason="a shorter time will do",
                at=self.world.now,
            )
        )

    def _approvals(self) -> Told:
        for approver in list(self.world.people["approver"]):
            yield from self._try(lambda by=approver: self._approve(by.id), tries=1)
            if self.ended or self.grant.status is not GrantStatus.PENDING_APPROVAL:
                break
            yield self.world.between(MINUTE, 5 * HOUR)

    def _approve(self, approver_id: str) -> None:
        world, grant = self.world, self.grant
        by = next((one for one in world.people["approver"] if one.id == approver_id), None)
        if by is None:
            return
        reason = world.reason()
        facts = grants.approve(
            grant,
            self.peer,
            world.policy,
            world.approvers(grant),
            grant.terms_digest,
            by,
            reason,
            world.now,
        )
        world.grant(grant, facts, by, reason=reason)
