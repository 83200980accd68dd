"""The commands of `Ledger` on a real database: who may, what is read, what a repeat answers."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from threading import Barrier, Thread
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from msgspec import structs

from ledger.appends import Idempotency
from ledger.application import Ledger
from ledger.errors import (
    ForbiddenError,
    LedgerError,
    NotFoundError,
    RefusedError,
    StaleError,
    UnauthorizedError,
    UnavailableError,
)
from ledger.events import Actor, CallDenied, CertificateCloneSuspected, GrantSuspended
from ledger.grant_state import Grant, GrantStatus, TokenState
from ledger.operators import Operator
from ledger.peers import Peer, PeerState
from ledger.reading import Call
from ledger.store import Recorded, Store
from projections import grants, operators
from projections.verify import check_ledger
from support.databases import Database
from support.given import PLAIN_SCOPE, REASON, SENSITIVE_SCOPE, digest, refused, scope
from support.live import Clock, Interruptible, open_ledger

pytestmark = pytest.mark.postgres

LOCAL = Actor(kind="local", id="uid:0", auth="local")
SYSTEM = Actor(kind="system", id="sweeper", auth="system")


class House:
    """A ledger with two admins and two approvers, and the look-ups its callers make."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = Clock()
        self.ledger: Interruptible = open_ledger(database.service_dsn, self.clock)
        self.reader = psycopg.connect(database.service_dsn, autocommit=True)
        self.admin = self.person("admin")
        self.admin_2 = self.person("admin")
        self.approver = self.person("approver")
        self.approver_2 = self.person("approver")

    def close(self) -> None:
        self.reader.close()
        self.ledger.close()
        report = check_ledger(self.database.owner_dsn)
        assert report.ok, str(report)

    def person(self, *roles: str) -> Actor:
        operator = self.ledger.register_operator(call(LOCAL), "person", roles).value
        issued = self.ledger.issue_credential(call(LOCAL), operator.id, ttl=timedelta(days=30))
        return Actor(
            kind="operator",
            id=str(operator.id),
            roles=roles,
            auth="bearer",
            credential=issued.value.accessor,
        )

    def peer(self, name: str = "Example Org") -> Peer:
        peer = self.ledger.register_peer(call(self.admin), name, "https://peer.example").value
        return self.ledger.activate_peer(call(self.admin), peer.id, "saw the contract").value

    def grant(self, peer: Peer, wanted: Any = PLAIN_SCOPE, days: float = 30) -> Grant:
        return self.ledger.propose_grant(
            call(self.admin),
            peer.id,
            "user-7",
            wanted,
            None,
            self.clock.now + timedelta(days=days),
        ).value

    def grants_of(self, peer_id: UUID) -> list[UUID]:
        return grants.live_of_peer(self.reader, peer_id)

    def holders_of(self, role: str) -> list[UUID]:
        return [row.id for row in operators.enabled_with_role(self.reader, role)]

    def now(self, grant: Grant) -> Grant:
        found = self.ledger.load(Grant, grant.id)
        assert found is not None
        return found


def call(actor: Actor, **more: Any) -> Call:
    return Call(actor, "test-request", **({"reason": REASON} | more))


def key(name: str = "k", body: str = "b") -> Idempotency:
    return Idempotency("accessor", "POST", "/v1/x", name, digest(body))


@pytest.fixture
def house(database: Database) -> Iterator[House]:
    house = House(database)
    try:
        yield house
    finally:
        house.close()


# ---- who may ----------------------------------------------------------------------------------


def test_every_command_asks_for_its_role(house: House) -> None:
    ledger, peer = house.ledger, house.peer()
    grant = house.grant(peer, SENSITIVE_SCOPE)
    alarm = ledger.raise_alarm(call(SYSTEM), "test", [str(grant.id)], "a detail").value
    some_id, soon = uuid4(), house.clock.now + timedelta(days=1)
    commands: dict[str, Callable[[Call], object]] = {
        "register_peer": lambda c: ledger.register_peer(c, "Other", "https://x.example"),
        "activate_peer": lambda c: ledger.activate_peer(c, peer.id, "seen"),
        "update_peer": lambda c: ledger.update_peer(c, peer.id, "https://x.example"),
        "suspend_peer": lambda c: ledger.suspend_peer(c, peer.id),
        "resume_peer": lambda c: ledger.resume_peer(c, peer.id),
        "revoke_peer": lambda c: ledger.revoke_peer(
            c, peer.id, revoke_grants=True, grants_of=house.grants_of
        ),
        "propose_grant": lambda c: ledger.propose_grant(c, peer.id, "u", PLAIN_SCOPE, None, soon),
        "approve_grant": lambda c: ledger.approve_grant(c, grant.id, grant.terms_digest),
        "reject_grant": lambda c: ledger.reject_grant(c, grant.id),
        "amend_grant": lambda c: ledger.amend_grant(c, grant.id, expires_at=soon),
        "narrow_grant": lambda c: ledger.narrow_grant(c, grant.id, expires_at=soon),
        "suspend_grant": lambda c: ledger.suspend_grant(c, grant.id),
        "resume_grant": lambda c: ledger.resume_grant(c, grant.id),
        "revoke_grant": lambda c: ledger.revoke_grant(c, grant.id),
        "expire_grant": lambda c: ledger.expire_grant(c, grant.id),
        "issue_enrollment_token": lambda c: ledger.issue_enrollment_token(c, grant.id),
        "cancel_enrollment_token": lambda c: ledger.cancel_enrollment_token(c, grant.id, "0" * 16),
        "lock_enrollment_token": lambda c: ledger.lock_enrollment_token(c, grant.id, "0" * 16, 10),
        "revoke_certificate": lambda c: ledger.revoke_certificate(
            c, grant.id, "4" + "0" * 31, "superseded", "x"
        ),
        "revoke_certificates": lambda c: ledger.revoke_certificates(c, {}, "superseded", "x"),
        "tell_authority": lambda c: ledger.tell_authority(
            c, grant.id, "4" + "0" * 31, "confirmed", 200
        ),
        "register_operator": lambda c: ledger.register_operator(c, "person", ["auditor"]),
        "change_roles": lambda c: ledger.change_roles(
            c, UUID(house.admin.id), ["auditor"], holders_of=house.holders_of
        ),
        "disable_operator": lambda c: ledger.disable_operator(
            c, UUID(house.admin.id), holders_of=house.holders_of
        ),
        "issue_credential": lambda c: ledger.issue_credential(
            c, UUID(house.admin.id), ttl=timedelta(days=1)
        ),
        "revoke_credential": lambda c: ledger.revoke_credential(c, UUID(house.admin.id), "x"),
        "change_policy": lambda c: ledger.change_policy(c, approval_days=3),
        "acknowledge_alarm": lambda c: ledger.acknowledge_alarm(c, alarm.id),
        "create_ledger": lambda c: ledger.create_ledger(c, "example.org/log", "key", "0.1.0"),
        "rotate_log_key": lambda c: ledger.rotate_log_key(c, "key"),
        "checkpoint_access": lambda c: ledger.checkpoint_access(c, 1, "a" * 64),
        "adopt_authority": lambda c: ledger.adopt_authority(c, some_id, "local", [b"x"], soon),
        "retire_authority": lambda c: ledger.retire_authority(c, some_id),
        "publish_crl": lambda c: ledger.publish_crl(c, some_id, soon, soon, 0),
        "find_unknown_certificate": lambda c: ledger.find_unknown_certificate(
            c, some_id, "0a", None, "somewhere"
        ),
    }
    before = ledger.record.head().size
    auditor = house.person("auditor")
    for name, command in commands.items():
        assert refusal(lambda: command(call(auditor))) is ForbiddenError, name  # noqa: B023
        dead = structs.replace(auditor, credential="0" * 16)
        assert refusal(lambda: command(call(dead))) is UnauthorizedError, name  # noqa: B023
    assert ledger.record.head().size == before + 2  # the auditor and its credential
    ours = Ledger.__mro__[: Ledger.__mro__.index(Store)]
    public = {name for one in ours for name in vars(one) if not name.startswith("_")}
    # The last two are our own doing, whoever the actor is.
    others = {"name", "randomness", "change", "left_by", "finish_peer_revocation"}
    assert public - others - {"raise_alarm", "note"} == set(commands)


def refusal(command: Callable[[], object]) -> type[LedgerError] | None:
    try:
        command()
    except LedgerError as error:
        return type(error)
    return None


def test_a_role_lost_between_reading_and_writing_stops_the_command(house: House) -> None:
    peer = house.peer()
    grant = house.grant(peer, SENSITIVE_SCOPE)
    approver = UUID(house.approver.id)
    other = open_ledger(house.database.service_dsn, house.clock)

    def demote() -> None:
        other.change_roles(call(LOCAL), approver, ["auditor"], holders_of=house.holders_of)

    house.ledger.before_append = demote
    with pytest.raises(UnauthorizedError):
        house.ledger.approve_grant(call(house.approver), grant.id, grant.terms_digest)
    other.close()
    assert house.now(grant).approvals == ()


def test_a_policy_tightened_between_reading_and_writing_counts(house: House) -> None:
    grant = house.grant(house.peer(), SENSITIVE_SCOPE)
    other = open_ledger(house.database.service_dsn, house.clock)

    def tighten() -> None:
        other.change_policy(call(house.approver_2), required_approvals=2)

    house.ledger.before_append = tighten
    approved = house.ledger.approve_grant(call(house.approver), grant.id, grant.terms_digest)
    other.close()
    assert approved.value.status is GrantStatus.PENDING_APPROVAL


def test_resuming_after_a_clone_alarm_is_the_approvers_alone(house: House) -> None:
    grant = house.grant(house.peer())
    house.ledger.suspend_grant(call(house.admin), grant.id)
    with pytest.raises(ForbiddenError):
        house.ledger.resume_grant(call(house.approver), grant.id)
    house.ledger.resume_grant(call(house.admin), grant.id)
    serial = "4" + "0" * 31
    suspected = CertificateCloneSuspected(
        serial=serial, successor=serial, csr_sha256=digest("a"), key_digest=digest("b")
    )
    house.ledger.decide(
        call(SYSTEM), lambda r: r.append(Grant, _loaded(r, grant), suspected, GrantSuspended())
    )
    with pytest.raises(ForbiddenError):
        house.ledger.resume_grant(call(house.admin), grant.id)
    resumed = house.ledger.resume_grant(call(house.approver), grant.id).value
    assert resumed.status is GrantStatus.PENDING_ENROLLMENT


def _loaded(reading: Any, grant: Grant) -> UUID:
    reading.state(Grant, grant.id)
    return grant.id


def test_without_four_eyes_an_admin_approves(house: House) -> None:
    grant = house.grant(house.peer(), SENSITIVE_SCOPE)
    with pytest.raises(ForbiddenError):
        house.ledger.approve_grant(call(house.admin), grant.id, grant.terms_digest)
    house.ledger.change_policy(call(house.approver), four_eyes=False)
    house.ledger.approve_grant(call(house.admin), grant.id, grant.terms_digest)


# ---- conditions, repeats ----------------------------------------------------------------------


def test_a_name_is_registered_once_for_ever(house: House) -> None:
    peer = house.peer("Example Org")
    house.ledger.revoke_peer(
        call(house.admin), peer.id, revoke_grants=False, grants_of=house.grants_of
    )
    with refused("peer-name-taken", RefusedError):
        house.peer("EXAMPLE ORG")


def test_an_older_version_is_stale_for_the_policy_too(house: House) -> None:
    grant = house.grant(house.peer())
    with pytest.raises(StaleError):
        house.ledger.suspend_grant(call(house.admin, expected_version=2), grant.id)
    house.ledger.suspend_grant(call(house.admin, expected_version=1), grant.id)
    change = house.ledger.change_policy
    change(call(house.approver, expected_version=0), approval_days=3)
    with pytest.raises(StaleError):
        change(call(house.approver, expected_version=0), approval_days=4)
    assert change(call(house.approver, expected_version=1), approval_days=4).value.version == 2


def test_a_repeat_gets_the_answer_but_not_the_secret(house: House) -> None:
    grant = house.grant(house.peer())
    again = call(house.admin, idempotency=key())
    first = house.ledger.issue_enrollment_token(again, grant.id)
    house.ledger.issue_enrollment_token(call(house.admin), grant.id)
    second = house.ledger.issue_enrollment_token(again, grant.id)
    assert first.value.text is not None
    assert first.value.text not in repr(first)
    assert second.replayed
    assert second.value == replace(first.value, text=None)
    assert second.position == first.position

    mine = UUID(house.admin_2.id)
    again = call(house.admin, idempotency=key("other"))
    one = house.ledger.issue_credential(again, mine, ttl=timedelta(days=1))
    two = house.ledger.issue_credential(again, mine, ttl=timedelta(days=1))
    assert one.value.text is not None
    assert (two.value.text, two.value.accessor) == (None, one.value.accessor)

    proposal = call(house.admin, idempotency=key("third"))
    soon, peer_id = house.clock.now + timedelta(days=1), grant.peer_id
    ids = {
        house.ledger.propose_grant(proposal, peer_id, "u", PLAIN_SCOPE, None, soon).value.id
        for _ in range(3)
    }
    assert len(ids) == 1


def test_a_dry_run_shows_the_events_and_appends_none(house: House) -> None:
    peer = house.peer()
    grant = house.grant(peer)
    before = house.ledger.record.head().size
    dry = call(house.admin, dry_run=True)
    revoked = house.ledger.revoke_peer(dry, peer.id, revoke_grants=True, grants_of=house.grants_of)
    assert [one.data.TOPIC for one in revoked.events] == ["peer.revoked.v1", "grant.revoked.v1"]
    assert house.ledger.record.head().size == before
    assert house.now(grant).status is GrantStatus.PENDING_ENROLLMENT


def test_a_command_that_changes_nothing_appends_nothing(house: House) -> None:
    grant = house.grant(house.peer())
    first = house.ledger.revoke_grant(call(house.admin), grant.id)
    second = house.ledger.revoke_grant(call(house.admin), grant.id)
    assert (second.value, second.events) == (first.value, ())
    assert house.ledger.expire_grant(call(SYSTEM), grant.id).events == ()


# ---- a peer's revocation ----------------------------------------------------------------------


def test_a_peer_goes_first_and_its_grants_follow_with_their_cause(house: House) -> None:
    peer, bystander = house.peer(), house.peer("Bystander")
    kept = house.grant(bystander)
    two = [house.grant(peer), house.grant(peer, SENSITIVE_SCOPE)]
    token = house.ledger.issue_enrollment_token(call(house.admin), two[0].id).value
    with refused("peer-has-live-grants", RefusedError) as caught:
        house.ledger.revoke_peer(
            call(house.admin), peer.id, revoke_grants=False, grants_of=house.grants_of
        )
    assert set(caught.value.facts["grants"]) == {str(one.id) for one in two}  # type: ignore[call-overload]
    recorded = house.ledger.revoke_peer(
        call(house.admin), peer.id, revoke_grants=True, grants_of=house.grants_of
    )
    assert recorded.value.state is PeerState.REVOKED
    assert recorded.position == house.ledger.record.head().size
    cause = recorded.events[0].id
    for event in recorded.events[1:]:
        assert event.data.TOPIC in ("grant.revoked.v1", "enrollment-token.cancelled.v1")
    assert [e.causation_id for e in recorded.events if e.data.TOPIC == "grant.revoked.v1"] == [
        cause,
        cause,
    ]
    assert {one.reason for one in recorded.events} == {REASON}
    assert house.now(two[0]).tokens[token.accessor].state is TokenState.CANCELLED
    assert house.now(kept).status is GrantStatus.PENDING_ENROLLMENT


def test_what_a_crash_left_undone_is_finished_later(house: House) -> None:
    peer = house.peer()
    three = [house.grant(peer) for _ in range(3)]

    def fails_half_way(peer_id: UUID) -> Any:
        yield house.grants_of(peer_id)[0]
        raise UnavailableError("the database went away", code="storage-unavailable")

    recorded = house.ledger.revoke_peer(
        call(house.admin), peer.id, revoke_grants=True, grants_of=fails_half_way
    )
    # The answer is a success: the revocation is on record and holds for all three.
    assert recorded.value.state is PeerState.REVOKED
    left = [one for one in three if house.now(one).status is not GrantStatus.REVOKED]
    assert len(left) == 2
    assert grants.peers_with_unfinished_revocation(house.reader) == [peer.id]
    late = call(SYSTEM, reason=None)
    assert house.ledger.finish_peer_revocation(late, peer.id, house.grants_of) > 0
    assert house.ledger.finish_peer_revocation(late, peer.id, house.grants_of) == 0
    assert {house.now(one).status for one in three} == {GrantStatus.REVOKED}
    [*_, last] = house.ledger.record.range(1, 1000, limit=1000)
    assert last.event.causation_id == recorded.events[0].id
    assert last.event.reason == REASON
    assert house.ledger.finish_peer_revocation(late, uuid4(), house.grants_of) == 0


def test_a_proposal_cannot_slip_in_behind_a_revocation(house: House) -> None:
    peer = house.peer()
    other = open_ledger(house.database.service_dsn, house.clock)

    def revoke() -> None:
        other.revoke_peer(
            call(house.admin_2), peer.id, revoke_grants=True, grants_of=house.grants_of
        )

    house.ledger.before_append = revoke
    with refused("peer-not-active", RefusedError):
        house.grant(peer)
    other.close()


def test_a_grant_that_expired_before_its_peers_revocation_stays_expired(house: House) -> None:
    peer = house.peer()
    grant = house.grant(peer, days=1)
    house.clock.later(days=2)
    house.ledger.revoke_peer(
        call(house.admin), peer.id, revoke_grants=False, grants_of=house.grants_of
    )
    assert house.now(grant).status is GrantStatus.PENDING_ENROLLMENT
    expired = house.ledger.expire_grant(call(SYSTEM), grant.id).value
    assert expired.status is GrantStatus.EXPIRED


# ---- operators --------------------------------------------------------------------------------


def test_each_side_writes_its_own_operators(house: House) -> None:
    ledger = house.ledger
    admin, approver = call(house.admin), call(house.approver)
    ledger.register_operator(admin, "machine", ["gateway"])
    ledger.register_operator(approver, "person", ["approver", "auditor"])
    for wrong, roles in ((admin, ["approver"]), (approver, ["auditor"]), (approver, ["admin"])):
        with pytest.raises(ForbiddenError):
            ledger.register_operator(wrong, "person", roles)
    for wrong, whose in ((admin, house.approver_2), (approver, house.admin_2)):
        with pytest.raises(ForbiddenError):
            ledger.issue_credential(wrong, UUID(whose.id), ttl=timedelta(days=1))
        with pytest.raises(ForbiddenError):
            ledger.disable_operator(wrong, UUID(whose.id), holders_of=house.holders_of)
    with pytest.raises(NotFoundError):
        ledger.disable_operator(admin, uuid4(), holders_of=house.holders_of)


def test_two_admins_who_disable_each_other_do_not_both_succeed(house: House) -> None:
    barrier = Barrier(2)
    results: list[Recorded[Operator] | LedgerError] = []

    def disable(who: Actor, whom: Actor) -> None:
        barrier.wait()
        try:
            results.append(
                house.ledger.disable_operator(
                    call(who), UUID(whom.id), holders_of=lambda _: [UUID(who.id)]
                )
            )
        except LedgerError as error:
            results.append(error)

    pairs = [(house.admin, house.admin_2), (house.admin_2, house.admin)]
    threads = [Thread(target=disable, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(isinstance(one, Recorded) for one in results) == [False, True]
    assert len(house.holders_of("admin")) == 1


def test_who_is_left_is_part_of_what_was_read(house: House) -> None:
    """Two admins disabled at once by somebody who is neither: each counted on the other."""
    other = open_ledger(house.database.service_dsn, house.clock)

    def disable(ledger: Ledger, whom: Actor) -> None:
        ledger.disable_operator(call(LOCAL), UUID(whom.id), holders_of=house.holders_of)

    house.ledger.before_append = lambda: disable(other, house.admin_2)
    with refused("last-holder", RefusedError):
        disable(house.ledger, house.admin)
    other.close()
    assert house.holders_of("admin") == [UUID(house.admin.id)]


def test_the_last_approver_stays(house: House) -> None:
    ledger = house.ledger
    ledger.disable_operator(
        call(house.approver), UUID(house.approver_2.id), holders_of=house.holders_of
    )
    with refused("last-holder", RefusedError):
        ledger.disable_operator(call(LOCAL), UUID(house.approver.id), holders_of=house.holders_of)
    with refused("last-holder", RefusedError):
        ledger.change_roles(
            call(LOCAL), UUID(house.approver.id), ["auditor"], holders_of=house.holders_of
        )


# ---- the rest ---------------------------------------------------------------------------------


def test_the_ledger_is_created_once(house: House) -> None:
    made = house.ledger.create_ledger(call(LOCAL), "example.org/log", "key", "0.1.0").value
    assert made.origin == "example.org/log"
    with refused("already-created", RefusedError):
        house.ledger.create_ledger(call(LOCAL), "example.org/log", "key", "0.1.0")
    assert house.ledger.rotate_log_key(call(LOCAL), "key 2").value.log_key == "key 2"
    assert house.ledger.checkpoint_access(call(SYSTEM), 3, "a" * 64).value.access_size == 3


def test_an_authority_is_adopted_once_and_retired(house: House) -> None:
    authority_id, end = uuid4(), house.clock.now + timedelta(days=365)
    versions = [
        house.ledger.adopt_authority(call(LOCAL), authority_id, "local", [b"c"], end).value.version
        for _ in range(2)
    ]
    assert versions == [1, 1]
    found = house.ledger.find_unknown_certificate(
        call(SYSTEM), authority_id, "0a", b"DER", "its database"
    )
    assert found.value.unknown == {"0a"}
    assert house.ledger.retire_authority(call(LOCAL), authority_id).value.retired_at


def test_alarms_and_notes(house: House) -> None:
    alarm = house.ledger.raise_alarm(call(SYSTEM), "mis-issued", ["x"], "a detail").value
    watcher = house.person("operator")
    closed = house.ledger.acknowledge_alarm(call(watcher), alarm.id).value
    assert closed.acknowledged_by == watcher.id
    fact = CallDenied(operation="propose-grant", problem="forbidden", count=1)
    assert house.ledger.note(call(house.admin), fact).value.fact == fact


def test_certificates_of_several_grants_are_revoked_all_or_none(house: House) -> None:
    grant = house.grant(house.peer())
    with pytest.raises(NotFoundError):
        house.ledger.revoke_certificates(
            call(house.admin), {grant.id: ["4" + "0" * 31]}, "keyCompromise", "stolen"
        )
    nothing = house.ledger.revoke_certificates(call(house.admin), {}, "keyCompromise", "stolen")
    assert nothing.value == ()


def test_narrowing_amending_and_rejecting_travel_through(house: House) -> None:
    peer = house.peer()
    grant = house.grant(peer)
    amended = house.ledger.amend_grant(call(house.admin), grant.id, scope=scope("tasks")).value
    assert amended.scope == scope("tasks")
    house.ledger.suspend_grant(call(house.admin), grant.id)
    narrowed = house.ledger.narrow_grant(call(house.admin), grant.id, scope=scope("tasks", rows=1))
    assert narrowed.value.scope.max_rows_per_query == 1
    sensitive = house.grant(peer, SENSITIVE_SCOPE)
    rejected = house.ledger.reject_grant(call(house.approver), sensitive.id).value
    assert rejected.status is GrantStatus.REJECTED
    token = house.ledger.issue_enrollment_token(call(house.admin), house.grant(peer).id).value
    cancelled = house.ledger.cancel_enrollment_token(
        call(house.admin), token.grant.id, token.accessor
    ).value
    assert cancelled.tokens[token.accessor].state is TokenState.CANCELLED
