"""Facts that arrive between a decision's last read and its append: none is ever overtaken.

Each decision is held up exactly there, another process's ledger writes the fact, and the decision
goes on. What was read has moved, so it is decided anew, and the fact wins.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from uuid import UUID

import pytest

from ca.issuance import Step
from ledger.errors import LedgerError, RefusedError
from ledger.events import (
    CertificateIssued,
    CertificateRevoked,
    Event,
    GrantApproved,
    GrantProposed,
    GrantRevoked,
    PeerRevoked,
)
from ledger.grant_state import TERMINAL, Grant, GrantStatus
from ledger.peers import Peer, PeerState
from support import csrs
from support.databases import Database
from support.given import SENSITIVE_SCOPE
from support.live import Interruptible, Live, all_at_once, open_ledger

pytestmark = pytest.mark.postgres

CSR = csrs.request(csrs.ec_key())


@pytest.fixture
def live(database: Database, tmp_path: Path) -> Iterator[Live]:
    with Live.open(database, tmp_path) as live:
        yield live


@pytest.fixture
def elsewhere(live: Live) -> Iterator[Interruptible]:
    """The same ledger, as another process has it open."""
    ledger = open_ledger(live.database.service_dsn, live.clock)
    yield ledger
    ledger.close()


Fact = Callable[[Live, Interruptible, Peer], None]


def peer_revoked(live: Live, ledger: Interruptible, peer: Peer) -> None:
    ledger.revoke_peer(
        live.call(live.admin), peer.id, revoke_grants=True, grants_of=live.live_grants
    )


def peer_revoked_alone(live: Live, ledger: Interruptible, peer: Peer) -> None:
    """As by a process that dies before the bookkeeping: no grant's stream moves."""
    ledger.revoke_peer(live.call(live.admin), peer.id, revoke_grants=True, grants_of=lambda _: ())


def peer_suspended(live: Live, ledger: Interruptible, peer: Peer) -> None:
    ledger.suspend_peer(live.call(live.admin), peer.id)


def policy_changed(live: Live, ledger: Interruptible, peer: Peer) -> None:
    ledger.change_policy(live.call(live.approver), required_approvals=2, max_grant_days=1)


def role_removed(name: str) -> Fact:
    def remove(live: Live, ledger: Interruptible, peer: Peer) -> None:
        actor = live.admin if name == "admin" else live.approver
        live.person(name)  # the last one cannot be relieved
        ledger.change_roles(live.call(), UUID(actor.id), ["auditor"], holders_of=live.holders)

    return remove


def outcome_of(act: Callable[[], object]) -> str:
    """`done`, or the code of the refusal."""
    try:
        act()
    except LedgerError as error:
        return error.code
    return "done"


PROPOSE: dict[str, tuple[Fact, str]] = {
    "peer revoked": (peer_revoked, "peer-not-active"),
    "peer suspended": (peer_suspended, "peer-not-active"),
    "policy changed": (policy_changed, "expires-too-late"),
    "role removed": (role_removed("admin"), "unauthorized"),
}


@pytest.mark.parametrize("name", PROPOSE)
def test_propose(live: Live, elsewhere: Interruptible, name: str) -> None:
    fact, expected = PROPOSE[name]
    peer = live.peer()
    live.ledger.before_append = partial(fact, live, elsewhere, peer)
    assert outcome_of(lambda: live.grant(peer)) == expected
    assert not live.events("grant.proposed")


APPROVE: dict[str, tuple[Fact, str]] = {
    "peer revoked": (peer_revoked, "grant-revoked"),
    "peer revoked alone": (peer_revoked_alone, "grant-revoked"),
    "peer suspended": (peer_suspended, "grant-suspended"),
    "policy changed": (policy_changed, "done"),
    "role removed": (role_removed("approver"), "unauthorized"),
}


@pytest.mark.parametrize("name", APPROVE)
def test_approve(live: Live, elsewhere: Interruptible, name: str) -> None:
    fact, expected = APPROVE[name]
    peer = live.peer()
    grant = live.grant(peer, SENSITIVE_SCOPE, approved=False)
    live.ledger.before_append = partial(fact, live, elsewhere, peer)
    call = live.call(live.approver)
    done = partial(live.ledger.approve_grant, call, grant.id, grant.terms_digest)
    assert outcome_of(done) == expected
    assert live.state(grant).status is not GrantStatus.PENDING_ENROLLMENT
    for event in live.events("grant.approved"):
        assert isinstance(event.data, GrantApproved)
        assert not event.data.sufficient, "two are required by now"


REDEEM: dict[str, tuple[Fact, str]] = {
    "peer revoked": (peer_revoked, "grant-revoked"),
    "peer revoked alone": (peer_revoked_alone, "grant-revoked"),
    "peer suspended": (peer_suspended, "grant-suspended"),
    "policy changed": (policy_changed, "grant-pending-approval"),
    "role removed": (role_removed("approver"), "grant-pending-approval"),
}


@pytest.mark.parametrize("name", REDEEM)
def test_redeem(live: Live, elsewhere: Interruptible, name: str) -> None:
    fact, expected = REDEEM[name]
    peer = live.peer()
    grant = live.grant(peer, SENSITIVE_SCOPE)
    token = live.token(grant)
    live.ledger.before_append = partial(fact, live, elsewhere, peer)
    outcome = outcome_of(lambda: live.redeem(token, CSR))
    # The fan-out of a revocation cancels the token: then that is the stranger's answer.
    assert outcome == ("unauthorized" if fact is peer_revoked else expected)
    assert not live.events("enrollment-token.redeemed", "issuance.authorized")


ISSUE: dict[str, tuple[Fact, str]] = {
    "peer revoked": (peer_revoked, "revoked-in-flight"),
    "peer revoked alone": (peer_revoked_alone, "revoked-in-flight"),
    "peer suspended": (peer_suspended, "grant-suspended"),
    "policy changed": (policy_changed, "revoked-in-flight"),
    "role removed": (role_removed("approver"), "revoked-in-flight"),
}


@pytest.mark.parametrize("name", ISSUE)
def test_issue(live: Live, elsewhere: Interruptible, name: str) -> None:
    fact, expected = ISSUE[name]
    peer = live.peer()
    grant = live.grant(peer, SENSITIVE_SCOPE)
    token = live.token(grant)

    def hold_up(step: Step) -> None:
        if step == "3-checked":
            live.ledger.before_append = partial(fact, live, elsewhere, peer)

    cycle = live.cycle(at_step=hold_up)
    assert outcome_of(lambda: cycle.redeem(live.stranger(), token, CSR)) == expected
    (issuance,) = live.state(grant).issuances.values()
    assert issuance.revocation is not None, "what was signed is on record, and revoked"
    assert live.state(grant).status is not GrantStatus.ACTIVE
    stands_after_nothing_that_forbids_it(live.events())


def stands_after_nothing_that_forbids_it(events: list[Event]) -> None:
    """After a peer's revocation: no grant of it, and no certificate but one revoked at once."""
    revoked: set[str] = set()
    peer_of: dict[str, str] = {}
    for number, event in enumerate(events):
        stream, fact = str(event.originator_id), event.data
        if isinstance(fact, PeerRevoked):
            revoked.add(stream)
        if isinstance(fact, GrantProposed):
            assert str(fact.peer_id) not in revoked
            peer_of[stream] = str(fact.peer_id)
        if isinstance(fact, CertificateIssued) and peer_of[stream] in revoked:
            following = events[number + 1].data
            assert isinstance(following, CertificateRevoked)
            assert following.serial == fact.serial


# ---- a peer's revocation and its grants ------------------------------------------------------


def assert_nothing_is_left(live: Live, peer: Peer) -> None:
    found = live.ledger.load(Peer, peer.id)
    assert found is not None
    assert found.state is PeerState.REVOKED
    assert live.live_grants(peer.id) == []
    causes = {
        event.originator_id: event.causation_id
        for event in live.events()
        if isinstance(event.data, GrantRevoked)
    }
    for event in live.events("grant.proposed"):
        grant = live.ledger.load(Grant, event.originator_id)
        assert grant is not None
        assert grant.status in TERMINAL
        assert causes[grant.id] == found.revocation_event
    stands_after_nothing_that_forbids_it(live.events())


def test_a_grant_proposed_just_before_the_revocation_is_revoked_with_it(
    live: Live, elsewhere: Interruptible
) -> None:
    peer = live.peer()
    live.grant(peer)

    def propose() -> None:
        live.grant(peer)

    elsewhere.before_append = propose
    peer_revoked(live, elsewhere, peer)
    assert len(live.events("grant.revoked")) == 2
    assert_nothing_is_left(live, peer)


def test_live_grants_are_named_when_nobody_said_to_revoke_them(
    live: Live, elsewhere: Interruptible
) -> None:
    peer = live.peer()
    grant = live.grant(peer)
    with pytest.raises(RefusedError) as caught:
        elsewhere.revoke_peer(
            live.call(live.admin), peer.id, revoke_grants=False, grants_of=live.live_grants
        )
    assert caught.value.code == "peer-has-live-grants"
    assert caught.value.facts["grants"] == [str(grant.id)]


@pytest.mark.parametrize("proposers", [7])
def test_many_propose_while_the_peer_is_revoked(
    live: Live, elsewhere: Interruptible, proposers: int
) -> None:
    peer = live.peer()
    acts: list[Callable[[], object]] = [partial(live.grant, peer) for _ in range(proposers)]
    acts.append(partial(peer_revoked, live, elsewhere, peer))
    refused = [one for one in all_at_once(acts) if isinstance(one, LedgerError)]
    assert {one.code for one in refused} <= {"peer-not-active"}
    assert len(live.events("grant.proposed")) == proposers - len(refused)
    assert_nothing_is_left(live, peer)


class Killed(BaseException):
    """The process ends here; nothing catches it."""


def test_a_fan_out_that_was_killed_is_finished_by_the_reconciler(
    live: Live, elsewhere: Interruptible
) -> None:
    peer = live.peer()
    made = [live.grant(peer) for _ in range(4)]
    enrolled = live.redeem(live.token(made[3]), CSR)

    def die() -> None:
        raise Killed

    def at_third_append() -> None:
        elsewhere.before_append = lambda: setattr(elsewhere, "before_append", die)

    elsewhere.before_append = at_third_append
    with pytest.raises(Killed):
        peer_revoked(live, elsewhere, peer)
    assert len(live.live_grants(peer.id)) == 3, "the bookkeeping stopped half-way"
    with pytest.raises(LedgerError):
        live.redeem(live.token(made[2]), csrs.request(csrs.ec_key(1)))
    report = live.reconciler().run_once(live.clock())
    assert report.done == {"peers": 1}
    assert live.state(made[3]).issuances[enrolled.issuance_id].revocation is not None
    assert_nothing_is_left(live, peer)
    assert live.reconciler().run_once(live.clock()).done == {}
