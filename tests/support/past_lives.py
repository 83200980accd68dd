"""How grants live in a made-up past: most in peace, some through everything there is."""

from typing import Final

from ledger import certificates, grants, issuance
from ledger.errors import LedgerError
from ledger.grant_state import Grant, Issuance
from ledger.scope import scope_from_stored
from support import past_forms as forms
from support.past_enrollment import Enrolled
from support.past_terms import DAY, HOUR, MINUTE, SECOND, Told
from support.past_world import RECONCILER, Life, as_peer

TWISTS: Final = {
    # What happens once in the life of some grants, and to how many of a thousand.
    "amended": 25,
    "rejected": 12,
    "never-approved": 15,
    "lapsed": 6,
    "never-enrolled": 30,
    "replaced-token": 40,
    "cancelled-token": 15,
    "locked-token": 3,
    "failed": 6,
    "abandoned": 3,
    "mis-issued": 1,
    "suspended": 40,
    "suspended-for-good": 20,
    "narrowed": 30,
    "revoked": 80,
    "certificate-revoked": 15,
    "key-compromised": 5,
    "cloned": 4,
    "cloned-and-revoked": 2,
}
SENSITIVE_TWISTS: Final = frozenset({"rejected", "never-approved", "lapsed"})
_RETRY: Final = 2 * DAY


class GrantLife(Enrolled):
    """One grant, from its proposal to its end."""

    def live(self) -> Life:
        world = self.world
        while True:
            try:
                self._propose()
            except LedgerError:  # the peer is suspended or revoked
                if self.peer.revoked_at:
                    return
                yield world.between(DAY, 20 * DAY)
            else:
                break
        for chapter in (self._terms, self._enrollment, self._use, self._end):
            if not self.ended:
                yield from chapter()
        if self._id in world.grants:
            world.over(self.grant)

    def _use(self) -> Told:
        """Renew while there is something to renew; what its twist says comes in between."""
        while not self.ended:
            certificate = self.current
            if certificate is None:
                if self.world.now + 3 * DAY > self.grant.expires_at or self.world.chance(0.4):
                    return
                yield self.world.between(HOUR, 2 * DAY)
                yield from self._try(self._token, tries=3)
                yield self.world.between(MINUTE, HOUR)
                yield from self._enroll()
                if self.current is None:
                    return
                continue
            yield from self._twist_comes(certificate)
            if certificate.not_after + HOUR > self.grant.expires_at:
                return
            life = certificate.not_after - certificate.not_before
            due = certificate.not_before + life * self.world.share(0.68, 0.95)
            yield max(due - self.world.now, SECOND)
            yield from self._renew()

    def _renew(self) -> Told:
        before = self.current
        if before is None:
            return
        asked = forms.request(self.world.book.dice)
        yield from self._try(lambda: self._ask_for_successor(before.serial, asked), tries=2)
        if not self.ended:
            yield from self._close()
        if self._twist.startswith("cloned") and self.current is not before and not self.ended:
            yield self.world.between(MINUTE, DAY)
            yield from self._clone(before.serial)

    def _ask_for_successor(self, serial: str, asked: issuance.Request) -> object:
        world, grant = self.world, self.grant
        found = certificates.renew(
            grant,
            self.peer,
            world.policy,
            world.authority,
            serial,
            asked,
            self._order(),
            world.now,
        )
        if isinstance(found, issuance.Authorized | certificates.CloneSuspected):
            world.grant(grant, found.facts, as_peer(self.peer, certificate=serial))
        return found

    # ---- twists ----

    def _twist_comes(self, certificate: Issuance) -> Told:
        world, twist = self.world, self._twist
        steps = {
            "suspended": self._suspended,
            "suspended-for-good": self._suspended,
            "narrowed": self._narrowed,
            "revoked": self._revoked,
            "certificate-revoked": self._certificate_revoked,
            "key-compromised": self._certificate_revoked,
        }
        left = certificate.not_after - world.now
        if twist not in steps or left < HOUR or world.chance(0.3):
            return
        self._twist = ""
        yield left * world.share(0.05, 0.6)
        if not self.ended:
            yield from steps[twist](twist)

    def _suspended(self, twist: str) -> Told:
        yield from self._try(lambda: self._admin(grants.suspend(self.grant, "an open question")), 1)
        if twist != "suspended-for-good":
            yield self.world.between(HOUR, 15 * DAY)
            yield from self._try(self._resume, tries=4)

    def _resume(self) -> Grant:
        world, grant = self.world, self.grant
        by = world.any("approver" if grant.clone_suspected else "admin")
        facts = grants.resume(grant, self.peer, world.policy, "answered", world.now)
        return world.grant(grant, facts, by, reason="answered")

    def _narrowed(self, twist: str) -> Told:
        grant, rows = self.grant, self.grant.scope.max_rows_per_query
        smaller = scope_from_stored(grant.scope.canonical() | {"max_rows_per_query": rows // 2})
        yield from self._try(
            lambda: self._admin(
                grants.narrow(
                    self.grant, scope=smaller, expires_at=None, reason="less", at=self.world.now
                )
            ),
            tries=1,
        )

    def _revoked(self, twist: str) -> Told:
        reason = self.world.reason()
        self._admin(grants.revoke(self.grant, reason, self.world.now))
        yield self.world.between(SECOND, MINUTE)
        yield from self._tell_authority()

    def _certificate_revoked(self, twist: str) -> Told:
        certificate = self.current
        if certificate is None:
            return
        compromised = twist == "key-compromised"
        self._admin(
            certificates.revoke(
                self.grant,
                [certificate.serial],
                "keyCompromise" if compromised else "superseded",
                twist,
                self.world.reason(),
            )
        )
        yield self.world.between(SECOND, MINUTE)
        yield from self._tell_authority()

    def _clone(self, serial: str) -> Told:
        """Somebody else renews the predecessor."""
        world, stolen = self.world, forms.request(self.world.book.dice)
        try:
            found = self._ask_for_successor(serial, stolen)
        except LedgerError:
            return
        if not isinstance(found, certificates.CloneSuspected):
            return
        about = [str(self._id), serial]
        world.begin(self._alarm("clone-suspected", about, "two keys for one predecessor"))
        twist, self._twist = self._twist, ""
        yield world.between(HOUR, 3 * DAY)
        if twist == "cloned-and-revoked" and not self.ended:
            yield from self._revoked(twist)
        yield from self._try(self._resume, tries=4)

    def _tell_authority(self) -> Told:
        world = self.world
        for serial in [one.serial for one in self.grant.issuances.values() if one.revocation]:
            grant = self.grant
            facts = certificates.tell_authority(
                grant, self.peer, serial, "confirmed", None, world.now
            )
            if facts:
                world.grant(grant, facts, RECONCILER)
                yield SECOND / 10

    # ---- its end ----

    def _end(self) -> Told:
        world = self.world
        while not self.ended and world.now < self.grant.expires_at:
            yield self.grant.expires_at - world.now + world.between(SECOND, 5 * MINUTE)
        if not self.ended:
            facts = grants.expire(self.grant, self.peer, world.policy, world.now)
            if facts:
                world.grant(self.grant, facts, RECONCILER)
