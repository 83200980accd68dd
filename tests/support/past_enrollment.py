"""How peers of a made-up past enroll: tokens, redemptions, and what the authority answers."""

from ca.orders import PROFILE_VERSION
from ca.profile import order_extensions
from ledger import bearer, enrollment, issuance
from ledger.events import CertificateExtension, EnrollmentRejected, IssuanceAuthorized
from ledger.grant_state import Token
from ledger.issuance import Order, Request
from support import past_forms as forms
from support.past_terms import DAY, HOUR, MINUTE, SECOND, Proposed, Told
from support.past_world import ISSUANCE, RECONCILER, STRANGER, as_peer


class Enrolled(Proposed):
    """One grant, from its proposal to its first certificate, and to any later one by token."""

    # ---- enrollment ----

    def _enrollment(self) -> Told:
        world = self.world
        if self._twist == "never-enrolled":
            return
        yield world.between(MINUTE, DAY)
        yield from self._try(self._token)
        if self._twist == "replaced-token" and not self.ended:
            yield world.between(MINUTE, DAY)
            yield from self._try(self._token)
        if self._twist == "cancelled-token" and not self.ended:
            yield HOUR
            self._cancel_token()
            yield from self._try(self._token)
        if self._twist == "locked-token" and not self.ended:
            yield from self._lock()
            yield from self._try(self._token)
        yield world.between(MINUTE, 20 * HOUR)
        yield from self._enroll()

    def _token(self) -> None:
        world = self.world
        minted = bearer.mint(bearer.BearerKind.ENROLLMENT, world.book.dice.randbytes)
        facts = enrollment.issue_token(
            self.grant, self.peer, world.policy, minted, None, None, world.now
        )
        self._admin(facts)

    @property
    def _last_token(self) -> Token | None:
        return next(reversed(self.grant.tokens.values()), None)

    def _cancel_token(self) -> None:
        if self._last_token is not None:
            self._admin(
                enrollment.cancel_token(self.grant, self._last_token.accessor, self.world.now)
            )

    def _lock(self) -> Told:
        world, token = self.world, self._last_token
        if token is None:
            return
        for _ in range(enrollment.FAILURES_TO_LOCK):
            yield 5 * SECOND
            asked = forms.request(world.book.dice)
            note = EnrollmentRejected(
                cause="csr-names",
                count=1,
                accessor=token.accessor,
                grant_id=self._id,
                csr_sha256=asked.csr_sha256,
                key_digest=asked.key_digest,
            )
            world.note(note, STRANGER)
        if self.ended:
            return
        facts = enrollment.lock_token(
            self.grant, token.accessor, enrollment.FAILURES_TO_LOCK, world.now
        )
        if facts:
            world.grant(self.grant, facts, ISSUANCE)
            about = [str(self._id), token.accessor]
            self.world.begin(self._alarm("token-locked", about, "ten failures"))
        yield DAY

    def _enroll(self) -> Told:
        asked = forms.request(self.world.book.dice)
        for _ in range(3):
            if self.ended:
                return
            yield from self._try(lambda: self._redeem(asked))
            if self.ended:
                return
            yield from self._close()
            if self.current is not None:
                return
            yield self.world.between(MINUTE, HOUR)

    def _redeem(self, asked: Request) -> None:
        world, grant, token = self.world, self.grant, self._last_token
        if token is None:
            return
        facts = enrollment.redeem(
            grant,
            self.peer,
            world.policy,
            world.approvers(grant),
            world.authority,
            enrollment.Presented(token.accessor, token.token_sha256),
            asked,
            self._order(),
            world.now,
        )
        if isinstance(facts, issuance.Authorized):
            world.grant(grant, facts.facts, as_peer(self.peer))

    def _order(self) -> Order:
        world, grant = self.world, self.grant
        end = min(world.now + world.policy.certificate_life, grant.expires_at)
        return Order(
            issuance_id=world.book.uuid(),
            serial=f"{0x40 | world.book.dice.getrandbits(6):02x}{world.book.dice.randbytes(15).hex()}",
            not_before=(world.now - MINUTE).replace(microsecond=0),
            not_after=end.replace(microsecond=0),
            subject=self.peer.name,
            san=(f"urn:uuid:{grant.id}",),
            extensions=tuple(
                CertificateExtension(oid=oid, critical=False, value=value)
                for oid, value in order_extensions(str(grant.id), grant.subject_user_id)
            ),
            authority_id=world.authority_id,
            profile_version=PROFILE_VERSION,
        )

    def _close(self) -> Told:
        """Let the authority answer what is still open."""
        opened = next((one for one in self.grant.issuances.values() if one.open), None)
        if opened is None:
            return
        yield self.world.between(SECOND / 50, SECOND)
        if self._id not in self.world.grants:
            return
        self._answer(opened.authorization)

    def _answer(self, order: IssuanceAuthorized) -> None:
        world, grant, by = self.world, self.grant, as_peer(self.peer)
        closed: issuance.Closed | issuance.AlreadyClosed
        signed = world.forms.certificate(order, grant.subject_user_id, world.book.dice)
        if self._once("failed"):
            closed = issuance.fail(grant, order.issuance_id, 403, "the provisioner is disabled")
        elif self._once("abandoned"):
            closed, by = issuance.abandon(grant, order.issuance_id, "no answer"), RECONCILER
        elif self._once("mis-issued"):
            findings = ["not-after: later than ordered"]
            closed = issuance.mis_issued(grant, order.issuance_id, signed.der, findings)
            about = [str(grant.id), order.serial]
            world.begin(self._alarm("mis-issued", about, findings[0]))
        else:
            closed = issuance.complete(
                grant,
                self.peer,
                world.policy,
                world.approvers(grant),
                order.issuance_id,
                signed,
                world.now,
            )
        if isinstance(closed, issuance.Closed):
            world.grant(grant, closed.facts, by)

    def _once(self, twist: str) -> bool:
        found, self._twist = self._twist == twist, "" if self._twist == twist else self._twist
        return found
