"""Random histories, played against the rules and against a model that is written another way.

The model keeps a diary of what was done and derives every answer by reading it from the start: it
has no state to go wrong. It predicts which commands are refused, and every status, usability, live
token and valid certificate after each step.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from ledger import grant_status, issuance, operators
from ledger.certificates import CloneSuspected
from ledger.errors import LedgerError
from ledger.events import (
    CertificateIssued,
    CertificateMisIssued,
    CertificateRevoked,
    EnrollmentTokenCancelled,
    GrantApproved,
    IssuanceAbandoned,
    IssuanceFailed,
)
from ledger.grant_state import TERMINAL, Grant
from ledger.issuance import Authorized, Closed
from ledger.peers import Peer, activate
from support.given import PLAIN_SCOPE, SENSITIVE_SCOPE, START, World, request

ENDS = ("rejected", "revoked", "expired")
AFTER_THE_END = (
    EnrollmentTokenCancelled,
    CertificateIssued,
    CertificateMisIssued,
    CertificateRevoked,
    IssuanceFailed,
    IssuanceAbandoned,
)


@dataclass(frozen=True)
class Did:
    """One line of the diary. `about` is a peer, a grant, a person, a token, a serial or nothing."""

    at: datetime
    what: str
    about: Any = None
    with_: dict[str, Any] = field(default_factory=dict)


class Model:
    """What follows from the diary up to its `n`-th line, always read from the beginning."""

    def __init__(self) -> None:
        self.diary: list[Did] = []

    def lines(self, *what: str, about: Any = None, n: int | None = None) -> list[Did]:
        return [
            line
            for line in self.diary[:n]
            if line.what in what and (about is None or line.about == about)
        ]

    # ---- policy and people ----

    def policy(self, name: str, n: int | None = None) -> Any:
        default: dict[str, Any] = {"four_eyes": True, "required_approvals": 1, "approval_days": 7}
        for line in self.lines("policy", n=n):
            default.update(line.with_)
        return default[name]

    def needed(self, n: int | None = None) -> int:
        return self.policy("required_approvals", n) or 1

    def role(self, person: str, n: int | None = None) -> str:
        return self.lines("role", about=person, n=n)[-1].with_["role"]  # type: ignore[no-any-return]

    # ---- grants ----

    def term(self, grant: UUID, name: str, n: int | None = None) -> Any:
        changes = self.lines("proposed", "amended", "narrowed", about=grant, n=n)
        return [line.with_[name] for line in changes if name in line.with_][-1]

    def authors(self, grant: UUID, n: int | None = None) -> set[str]:
        return {line.with_["by"] for line in self.lines("proposed", "amended", about=grant, n=n)}

    def approvals(self, grant: UUID, at: datetime, n: int | None = None) -> set[str]:
        people: dict[str, datetime] = {}
        for line in self.lines("amended", "approved", about=grant, n=n):
            if line.what == "amended":
                people.clear()
            else:
                people[line.with_["by"]] = line.with_["lapses"]
        return {person for person, lapses in people.items() if lapses > at}

    def counting(self, grant: UUID, at: datetime, n: int | None = None) -> set[str]:
        strict = self.policy("four_eyes", n)
        return {
            person
            for person in self.approvals(grant, at, n)
            if self.role(person, n) in (["approver"] if strict else ["approver", "admin"])
            and not (strict and person in self.authors(grant, n))
        }

    def stored(self, grant: UUID, n: int | None = None) -> str:
        status, before = "", ""
        for number, line in enumerate(self.diary[:n], 1):
            if line.about != grant:
                continue
            if line.what in ("proposed", "amended"):
                status = "pending_approval" if line.with_["sensitive"] else "pending_enrollment"
            elif line.what == "approved" and status == "pending_approval":
                if len(self.counting(grant, line.at, number)) >= self.needed(number):
                    status = "pending_enrollment"
            elif line.what in ("suspended", "cloned") and status != "suspended":
                status, before = "suspended", status
            elif line.what == "resumed":
                status = before
            elif line.what == "activated":
                status = "active"
            elif line.what in ENDS:
                status = line.what
        return status

    def peer_of(self, grant: UUID) -> UUID:
        return self.lines("proposed", about=grant)[0].with_["peer"]  # type: ignore[no-any-return]

    def peer_state(self, peer: UUID) -> str:
        state = "pending"
        for line in self.lines("activate", "suspend", "resume", "revoke", about=peer):
            state = {"suspend": "suspended", "revoke": "revoked"}.get(line.what, "active")
        return state

    def effective(self, grant: UUID, at: datetime) -> str:
        stored, peer = self.stored(grant), self.peer_of(grant)
        expires = self.term(grant, "expires")
        if stored in ENDS:
            return stored
        if any(line.at < expires for line in self.lines("revoke", about=peer)):
            return "revoked"
        if at >= expires:
            return "expired"
        if "suspended" in (stored, self.peer_state(peer)):
            return "suspended"
        lacking = len(self.approvals(grant, at)) < self.needed()
        if stored == "pending_enrollment" and self.term(grant, "sensitive") and lacking:
            return "pending_approval"
        return stored

    def usable(self, grant: UUID, at: datetime, *, enrolling: bool) -> bool:
        allowed = ["active", "pending_enrollment"] if enrolling else ["active"]
        return (
            self.effective(grant, at) in allowed
            and self.peer_state(self.peer_of(grant)) == "active"
            and at >= self.term(grant, "starts")
        )

    def approved_enough(self, grant: UUID, at: datetime) -> bool:
        return (
            not self.term(grant, "sensitive")
            or bool(self.lines("activated", about=grant))
            or len(self.counting(grant, at)) >= self.needed()
        )

    # ---- tokens and certificates ----

    def live_tokens(self, grant: UUID, at: datetime) -> list[str]:
        live: list[str] = []
        for line in self.diary:
            if line.what == "token" and line.with_["grant"] == grant:
                live = [line.about]
            elif line.what in ("cancelled", "redeemed") and line.about in live:
                live.remove(line.about)
            elif line.about == grant and line.what in ("amended", *ENDS):
                live = []
        ends = {line.about: line.with_["ends"] for line in self.lines("token")}
        return [one for one in live if at < min(ends[one], self.term(grant, "expires"))]

    def compromised(self, key: str) -> bool:
        keys = {line.about: line.with_["key"] for line in self.lines("authorized")}
        return any(keys[line.about] == key for line in self.lines("compromised"))

    def own_revocation(self, serial: str) -> bool:
        return bool(self.lines("withheld", "compromised", "swept", about=serial))

    def valid(self, grant: UUID, at: datetime) -> set[str]:
        """Serials that were delivered and could be presented with success now."""
        if self.effective(grant, at) != "active":
            return set()
        return {
            line.about
            for line in self.lines("authorized")
            if line.with_["grant"] == grant
            and self.lines("delivered", about=line.about)
            and not self.own_revocation(line.about)
            and at <= line.with_["ends"]
        }


class Rules(RuleBasedStateMachine):
    """Two admins, two approvers, two peers and a few grants; nobody plays by the rules."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.model = Model()
        self.peers: list[Peer] = []
        self.grants: list[UUID] = []

    @initialize(steps=st.integers(0, 6), more=st.integers(0, 6))
    def people(self, steps: int, more: int) -> None:
        """Chance alone rarely gets far: two grants start somewhere on the straight road."""
        world = self.world
        self.staff = [world.admin, world.admin_2, world.approver, world.approver_2]
        for person in self.staff:
            self.did("role", person.id, role=person.roles[0])
        for name in ("One", "Two"):
            self.peers.append(world.peer(name))
        self.peer_changes(0, "activate")
        self.propose(0, 0, False, 40, 0)
        self.propose(0, 1, True, 5, 0)
        for _ in range(steps):
            self.next_step(0)
        for _ in range(more):
            self.next_step(1)

    @precondition(lambda self: self.grants)
    @rule(which=st.integers(0, 3))
    def next_step(self, which: int) -> None:
        """What would come next in a good world: approve, token, redeem, sign, wait, renew, sign."""
        grant, model = self.grant(which), self.model
        unsigned = [one for one in self.open_ones() if one.with_["grant"] == grant.id]
        tokens = [one.about for one in model.lines("token")]
        live = model.live_tokens(grant.id, self.now)
        if unsigned:
            self.close(self.open_ones().index(unsigned[0]), "sign")
        elif model.effective(grant.id, self.now) == "pending_approval":
            self.approve(which, 2)
        elif live:
            self.redeem(tokens.index(live[0]) - len(tokens), "a")
        elif model.valid(grant.id, self.now):
            self.time_passes({"hours": 17})
            delivered = [one.about for one in model.lines("delivered")]
            mine = model.valid(grant.id, self.now) or {delivered[-1]}
            self.renew(delivered.index(max(mine)) - len(delivered), "n")
        else:
            self.token(which)

    def did(self, what: str, about: Any = None, **with_: Any) -> None:
        self.model.diary.append(Did(self.world.now, what, about, with_))

    def attempt(self, allowed: bool, command: Callable[[], Any]) -> Any:
        """Give a command of which the model has said whether the rules will allow it."""
        if allowed:
            return command()
        with pytest.raises(LedgerError):
            command()
        return None

    def grant(self, number: int) -> Grant:
        return self.world.states[self.grants[number % len(self.grants)]]  # type: ignore[no-any-return]

    @property
    def now(self) -> datetime:
        return self.world.now

    # ---- the surroundings ----

    @rule(
        delta=st.sampled_from(
            [{"minutes": 1}, {"hours": 1}, {"hours": 17}, {"days": 2}, {"days": 7}]
        )
    )
    def time_passes(self, delta: dict[str, float]) -> None:
        self.world.later(**delta)

    @rule(
        change=st.sampled_from(
            [
                {"four_eyes": False},
                {"four_eyes": True},
                {"required_approvals": 0},
                {"required_approvals": 2},
                {"required_approvals": 1},
                {"approval_days": 1},
            ]
        )
    )
    def policy_changes(self, change: dict[str, Any]) -> None:
        self.world.change_policy(**change)
        self.did("policy", **change)

    @rule(who=st.integers(2, 3), role=st.sampled_from(["approver", "auditor"]))
    def role_changes(self, who: int, role: str) -> None:
        person = self.staff[who]
        self.world.change_roles(person, role)
        self.did("role", person.id, role=role)

    @rule(which=st.integers(0, 1), what=st.sampled_from(["activate"] * 3 + ["suspend", "resume"]))
    def peer_changes(self, which: int, what: str) -> None:
        peer = self.peers[which]
        needs = {"activate": "pending", "suspend": "active", "resume": "suspended"}[what]

        def command() -> None:
            if what == "activate":
                facts = activate(self.world.again(peer), "seen in a test")
                self.world.record(Peer, peer.id, facts)
            elif what == "suspend":
                self.world.suspend_peer(peer)
            else:
                self.world.resume_peer(peer)

        allowed = self.model.peer_state(peer.id) == needs
        self.attempt(allowed, command)
        if allowed:
            self.did(what, peer.id)

    @rule(which=st.integers(0, 9).map(lambda number: 9 - number))
    def peer_is_revoked(self, which: int) -> None:
        if which >= len(self.peers):
            return  # rarely for real: it ends a good part of the game
        peer = self.peers[which]
        first = self.model.peer_state(peer.id) != "revoked"
        self.world.revoke_peer(peer)
        if first:
            self.did("revoke", peer.id)

    # ---- grants ----

    @precondition(lambda self: len(self.grants) < 4)
    @rule(
        which=st.integers(0, 1),
        who=st.integers(0, 3),
        sensitive=st.booleans(),
        days=st.sampled_from([1, 5, 40]),
        hours=st.sampled_from([0, 0, 2]),
    )
    def propose(self, which: int, who: int, sensitive: bool, days: int, hours: int) -> None:
        peer, starts = self.peers[which], self.now + timedelta(hours=hours)
        allowed = self.model.peer_state(peer.id) in ("pending", "active")
        made = self.attempt(
            allowed,
            lambda: self.world.grant(
                self.world.again(peer),
                SENSITIVE_SCOPE if sensitive else PLAIN_SCOPE,
                days=days,
                not_before=starts,
                by=self.staff[who],
            ),
        )
        if allowed:
            self.grants.append(made.id)
            self.did(
                "proposed",
                made.id,
                peer=peer.id,
                sensitive=sensitive,
                by=self.staff[who].id,
                starts=starts,
                expires=self.now + timedelta(days=days),
            )

    @precondition(lambda self: self.grants)
    @rule(which=st.integers(0, 3), who=st.integers(0, 3))
    def approve(self, which: int, who: int) -> None:
        grant, person, model = self.grant(which), self.staff[who], self.model
        strict = model.policy("four_eyes")
        status, stored = model.effective(grant.id, self.now), model.stored(grant.id)
        counting = model.counting(grant.id, self.now)
        enough = model.needed()
        waiting = stored == "pending_approval" or (
            stored == "pending_enrollment"
            and model.term(grant.id, "sensitive")
            and len(counting) < enough
        )
        allowed = (
            model.role(person.id) in (["approver"] if strict else ["approver", "admin"])
            and status in ("pending_approval", "pending_enrollment")
            and waiting
            and not (strict and person.id in model.authors(grant.id))
            and (person.id not in counting or len(counting) >= enough)
        )

        def command() -> None:
            relaxed = "" if strict else "-without-four-eyes"
            # Without its credential: a change of roles has revoked that.
            if not self.world.operator(person).holds(*operators.WHO_MAY[f"approve-grant{relaxed}"]):
                raise LedgerError("the role is missing", code="forbidden")
            self.world.approve(grant, by=person)

        self.attempt(allowed, command)
        if allowed:
            days = model.policy("approval_days")
            lapses = self.now + timedelta(days=days)
            self.did("approved", grant.id, by=person.id, lapses=lapses)

    @precondition(lambda self: self.grants)
    @rule(
        which=st.integers(0, 3),
        what=st.sampled_from(["rejected", "suspended", "resumed", "revoked"]),
    )
    def one_word_commands(self, which: int, what: str) -> None:
        grant, model = self.grant(which), self.model
        stored, status = model.stored(grant.id), model.effective(grant.id, self.now)
        peer = model.peer_state(model.peer_of(grant.id))
        allowed = {
            "rejected": stored == "pending_approval",
            "suspended": stored in ("pending_enrollment", "active"),
            "resumed": stored == "suspended" and status not in ENDS and peer != "suspended",
            "revoked": stored not in ("rejected", "expired"),
        }[what]
        command: Callable[[Grant], Grant] = {
            "rejected": self.world.reject,
            "suspended": self.world.suspend,
            "resumed": self.world.resume,
            "revoked": self.world.revoke,
        }[what]
        self.attempt(allowed, lambda: command(grant))
        if allowed and stored != what:
            self.did(what, grant.id)
            if what == "revoked":
                self.sweep(grant.id, self.now)

    def sweep(self, grant: UUID, beyond: datetime) -> None:
        """Note which certificates a revocation, or a narrowing to `beyond`, has revoked."""
        for line in self.model.lines("authorized"):
            serial, ends = line.about, line.with_["ends"]
            delivered = self.model.lines("delivered", about=serial)
            hit = ends > beyond if beyond > self.now else ends >= self.now
            if line.with_["grant"] == grant and delivered and hit and ends >= self.now:
                self.did("swept", serial)

    @precondition(lambda self: self.grants)
    @rule(which=st.integers(0, 3))
    def expire(self, which: int) -> None:
        grant = self.grant(which)
        due = self.model.effective(grant.id, self.now) == "expired"
        if due and self.model.stored(grant.id) != "expired":
            self.did("expired", grant.id)
        self.world.expire(grant)

    @precondition(lambda self: self.grants)
    @rule(
        which=st.integers(0, 3),
        who=st.integers(0, 3),
        sensitive=st.booleans(),
        days=st.sampled_from([1, 7]),
    )
    def amend(self, which: int, who: int, sensitive: bool, days: int) -> None:
        grant, expires = self.grant(which), self.now + timedelta(days=days)
        stored = self.model.stored(grant.id)
        same = sensitive == self.model.term(grant.id, "sensitive")
        allowed = (
            stored in ("pending_approval", "pending_enrollment")
            and self.model.effective(grant.id, self.now) not in ENDS
            and not (same and expires == self.model.term(grant.id, "expires"))
        )
        wanted = SENSITIVE_SCOPE if sensitive else PLAIN_SCOPE
        person = self.staff[who]
        self.attempt(
            allowed,
            lambda: self.world.amend(grant, scope=wanted, expires_at=expires, by=person),
        )
        if allowed:
            self.did("amended", grant.id, sensitive=sensitive, expires=expires, by=person.id)

    @precondition(lambda self: self.grants)
    @rule(which=st.integers(0, 3), hours=st.sampled_from([3, 23, 90]))
    def narrow(self, which: int, hours: int) -> None:
        grant, expires = self.grant(which), self.now + timedelta(hours=hours)
        allowed = (
            self.model.stored(grant.id) in ("active", "suspended")
            and expires < self.model.term(grant.id, "expires")
            and expires > self.model.term(grant.id, "starts")
        )
        self.attempt(allowed, lambda: self.world.narrow(grant, expires_at=expires))
        if allowed:
            self.did("narrowed", grant.id, expires=expires)
            self.sweep(grant.id, expires)

    # ---- enrolling ----

    @precondition(lambda self: self.grants)
    @rule(which=st.integers(0, 3))
    def token(self, which: int) -> None:
        grant = self.grant(which)
        allowed = self.model.effective(grant.id, self.now) in ("pending_enrollment", "active")
        made = self.attempt(allowed, lambda: self.world.token(grant))
        if allowed:
            ends = min(self.now + timedelta(days=1), self.model.term(grant.id, "expires"))
            self.did("token", made.accessor, grant=grant.id, ends=ends)

    @precondition(lambda self: self.model.lines("token"))
    @rule(which=st.integers(-3, -1))
    def cancel(self, which: int) -> None:
        line = self.model.lines("token")[max(which, -len(self.model.lines("token")))]
        grant = self.world.states[line.with_["grant"]]
        used = bool(self.model.lines("redeemed", about=line.about))
        token = grant.tokens[line.about]
        self.attempt(not used, lambda: self.world.cancel_token(grant, token))
        if not used and line.about in self.model.live_tokens(grant.id, self.now):
            self.did("cancelled", line.about)

    @precondition(lambda self: self.model.lines("token"))
    @rule(which=st.integers(-2, -1), name=st.sampled_from(["a", "a", "a", "b"]))
    def redeem(self, which: int, name: str) -> None:
        lines = self.model.lines("token")
        line = lines[max(which, -len(lines))]
        grant = self.world.states[line.with_["grant"]]
        # Mostly every grant's own CSR, sometimes one that another grant may have used as well.
        csr = name if name == "b" else f"{grant.id} {line.about}"
        allowed = self.may_redeem(grant.id, line, csr)
        order = self.world.order(grant)
        made = self.attempt(
            allowed,
            lambda: self.world.redeem(grant, grant.tokens[line.about], csr, order=order),
        )
        if allowed and isinstance(made.outcome, Authorized):
            self.did("redeemed", line.about, csr=csr)
            self.authorized(grant.id, order, csr, token=line.about)

    def authorized(self, grant: UUID, order: issuance.Order, csr: str, **more: Any) -> None:
        key = request(csr).key_digest
        known = {"issuance": order.issuance_id, "ends": order.not_after, "key": key, "csr": csr}
        self.did("authorized", order.serial, grant=grant, **known, **more)

    def may_redeem(self, grant: UUID, token: Did, csr: str) -> bool:
        model, now = self.model, self.now
        if now >= min(token.with_["ends"], model.term(grant, "expires")):
            return False
        redeemed = model.lines("redeemed", about=token.about)
        if redeemed and redeemed[0].with_["csr"] != csr:
            return False
        if not redeemed and token.about not in model.live_tokens(grant, now):
            return False
        tries = [one for one in model.lines("authorized") if one.with_.get("token") == token.about]
        if tries and not self.closed(tries[-1].about):
            return True
        if tries and model.lines("delivered", "withheld", about=tries[-1].about):
            dead = model.own_revocation(tries[-1].about)
            return not dead and model.effective(grant, now) not in ("revoked", "suspended")
        return self.may_be_authorized(grant, csr)

    def closed(self, serial: str) -> bool:
        return bool(self.model.lines("delivered", "withheld", "failed", about=serial))

    def may_be_authorized(self, grant: UUID, csr: str) -> bool:
        model, key = self.model, request(csr).key_digest
        others = [one for one in model.lines("authorized") if one.with_["grant"] != grant]
        end = model.term(grant, "expires").replace(microsecond=0)
        return (
            model.usable(grant, self.now, enrolling=True)
            and model.approved_enough(grant, self.now)
            and not model.compromised(key)
            and all(one.with_["key"] != key for one in others)
            and end - self.now >= timedelta(minutes=5)
        )

    @precondition(lambda self: self.open_ones())
    @rule(which=st.integers(0, 3), how=st.sampled_from(["sign", "sign", "sign", "fail", "give up"]))
    def close(self, which: int, how: str) -> None:
        line = self.open_ones()[which % len(self.open_ones())]
        serial, grant_id = line.about, line.with_["grant"]
        grant, number = self.world.states[grant_id], line.with_["issuance"]
        if how != "sign":
            rule_ = issuance.fail(grant, number, None, "no") if how == "fail" else None
            self.world.close(grant, rule_ or issuance.abandon(grant, number, "gave up"))
            self.did("failed", serial)
            return
        good = self.may_be_delivered(grant_id, line)
        outcome = self.world.complete(grant, number)
        assert isinstance(outcome, Closed)
        assert (outcome.error is None) == good
        self.did("delivered" if good else "withheld", serial)
        if good and self.model.stored(grant_id) == "pending_enrollment":
            self.did("activated", grant_id)

    def open_ones(self) -> list[Did]:
        return [one for one in self.model.lines("authorized") if not self.closed(one.about)]

    def may_be_delivered(self, grant: UUID, line: Did) -> bool:
        model, asked_with = self.model, line.with_.get("predecessor")
        return (
            model.usable(grant, self.now, enrolling=asked_with is None)
            and model.approved_enough(grant, self.now)
            and line.with_["ends"] <= model.term(grant, "expires")
            and not model.own_revocation(line.about)
            and not model.compromised(line.with_["key"])
            and not (asked_with and model.own_revocation(asked_with))
        )

    # ---- renewing and revoking ----

    @precondition(lambda self: self.model.lines("delivered"))
    @rule(which=st.integers(-3, -1), name=st.sampled_from(["n", "n", "m"]))
    def renew(self, which: int, name: str) -> None:
        lines = self.model.lines("delivered")
        serial = lines[max(which, -len(lines))].about
        [line] = self.model.lines("authorized", about=serial)
        grant = self.world.states[line.with_["grant"]]
        csr = f"{serial} {name}"
        expected = self.renewal_expected(grant.id, line, csr)
        order = self.world.order(grant)
        made = self.attempt(
            expected != "refused", lambda: self.world.renew(grant, serial, csr, order=order)
        )
        if expected == "clone":
            assert isinstance(made, CloneSuspected)
            self.did("cloned", grant.id)
        elif expected == "new":
            assert isinstance(made, Authorized)
            self.authorized(grant.id, order, csr, predecessor=serial)
        elif expected == "same":
            assert not isinstance(made, Authorized | CloneSuspected)

    def renewal_expected(self, grant: UUID, line: Did, csr: str) -> str:
        model, serial, now = self.model, line.about, self.now
        status = model.effective(grant, now)
        if status in ENDS or model.own_revocation(serial) or now > line.with_["ends"]:
            return "refused"
        successors = [
            one
            for one in model.lines("authorized")
            if one.with_.get("predecessor") == serial and not model.lines("failed", about=one.about)
        ]
        if successors and successors[0].with_["csr"] != csr:
            return "clone"
        if successors and not self.closed(successors[0].about):
            return "same"
        if successors:
            dead = model.own_revocation(successors[0].about)
            return "refused" if dead or status == "suspended" else "same"
        # Orders last a day or until the grant's end, and start a minute early.
        begun = line.at.replace(microsecond=0) - timedelta(seconds=60)
        due = begun + (line.with_["ends"] - begun) * 2 / 3
        fits = model.term(grant, "expires") - now >= timedelta(minutes=5)
        usable = model.usable(grant, now, enrolling=False)
        usable = usable and not model.compromised(request(csr).key_digest)
        return "new" if usable and now >= due and fits else "refused"

    @precondition(lambda self: self.model.lines("authorized"))
    @rule(which=st.integers(-3, -1))
    def revoke_certificate(self, which: int) -> None:
        lines = self.model.lines("authorized")
        line = lines[max(which, -len(lines))]
        self.world.revoke_certificate(self.world.states[line.with_["grant"]], line.about)
        self.did("compromised", line.about)

    # ---- what holds after every step ----

    @invariant()
    def the_model_agrees(self) -> None:
        for grant_id in self.grants:
            grant = self.world.states[grant_id]
            peer = self.world.states[grant.peer_id]
            assert grant.status == self.model.stored(grant_id)
            assert self.world.status(grant) == self.model.effective(grant_id, self.now)
            for enrolling in (True, False):
                usable = self.world.unusable(grant, enrolling=enrolling) is None
                assert usable == self.model.usable(grant_id, self.now, enrolling=enrolling)
                assert not (usable and peer.state != "active")
            live = [one.accessor for one in grant_status.live_tokens(grant, self.now)]
            assert live == self.model.live_tokens(grant_id, self.now)
            assert len(live) <= 1
            assert self.valid(grant, peer) == self.model.valid(grant_id, self.now)

    def valid(self, grant: Grant, peer: Peer) -> set[str]:
        policy, now = self.world.policy, self.now
        if grant_status.effective_status(grant, peer, policy, now) != "active":
            return set()
        return {
            one.serial
            for one in grant.issuances.values()
            if one.state == "issued"
            and now <= one.not_after
            and issuance.revocation_of(one, grant, peer, now) is None
        }

    @invariant()
    def no_certificate_outlives_its_grant(self) -> None:
        for grant_id in self.grants:
            grant = self.world.states[grant_id]
            for one in grant.issuances.values():
                if one.state == "issued" and one.revocation is None:
                    assert one.not_after <= grant.expires_at

    @invariant()
    def no_two_grants_share_a_key(self) -> None:
        owner: dict[str, UUID] = {}
        for grant_id in self.grants:
            for one in self.world.states[grant_id].issuances.values():
                assert owner.setdefault(one.key_digest, grant_id) == grant_id

    def teardown(self) -> None:
        ended: set[UUID] = set()
        authors: dict[UUID, set[str]] = {}
        strict = True
        for event in self.world.events:
            stream, topic = event.originator_id, event.data.TOPIC
            if stream in ended:
                assert isinstance(event.data, AFTER_THE_END), topic
            if topic in ("grant.revoked.v1", "grant.rejected.v1", "grant.expired.v1"):
                ended.add(stream)
            if topic in ("grant.proposed.v1", "grant.amended.v1"):
                authors.setdefault(stream, set()).add(event.actor.id)
            if topic == "policy.changed.v1":
                strict = event.data.four_eyes  # type: ignore[attr-defined]
            if isinstance(event.data, GrantApproved) and strict:
                assert event.actor.id not in authors[stream]
        for grant_id in self.grants:
            assert (self.world.states[grant_id].status in TERMINAL) == (grant_id in ended)


Rules.TestCase.settings = settings(max_examples=60, stateful_step_count=45, deadline=None)
TestRules = Rules.TestCase


def test_the_machine_reaches_the_states_it_is_about() -> None:
    """The game by hand once, so that a silent precondition cannot empty it."""
    game = Rules()
    game.people(0, 4)
    game.the_model_agrees()
    assert game.model.valid(game.grants[1], START)
    game.next_step(1)
    game.renew(-1, "m")
    game.the_model_agrees()
    assert game.model.stored(game.grants[1]) == "suspended"
    game.one_word_commands(1, "revoked")
    game.close(0, "sign")
    game.the_model_agrees()
    assert not game.model.valid(game.grants[1], game.now)
    game.teardown()
