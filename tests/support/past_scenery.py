"""What goes on around the grants of a made-up past: peers, operators, policy, authorities, notes."""

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from itertools import cycle
from typing import Final

from ledger import authorities, grants, identity, operators, peers
from ledger.authorities import Authority
from ledger.events import (
    LEDGER_ID,
    AuditRead,
    CallDenied,
    EnrollmentRejected,
    ExportMade,
    Fact,
)
from ledger.grant_state import TERMINAL
from ledger.identity import Identity
from ledger.operators import Operator
from support.past_forms import made_up_issuer
from support.past_terms import DAY, HOUR
from support.past_world import LOCAL, RECONCILER, STRANGER, Life, World, as_peer

PEOPLE: Final = (
    ("admin", 4),
    ("approver", 3),
    ("auditor", 2),
    ("operator", 2),
    ("gateway", 1),
)
_ROTATION: Final = timedelta(days=330)


def employ(world: World) -> None:
    """Register the operators; each gets a new credential before the old one ends."""
    for role, count in PEOPLE:
        for _ in range(count):
            kind = "machine" if role == "gateway" else "person"
            operator = world.register_operator(role, kind)  # type: ignore[arg-type]
            world.begin(_employed(world, str(operator.id)))


def _employed(world: World, id_: str) -> Life:
    while world.operators[id_].enabled:
        yield _ROTATION
        operator = world.operators[id_]
        if operator.enabled:
            world.give_credential(operator)


def staff_changes(world: World, span: timedelta) -> Life:
    """Somebody comes, somebody goes, an auditor becomes an operator; the policy is changed."""
    yield span / 4
    newcomer = world.register_operator("approver")
    world.begin(_employed(world, str(newcomer.id)))
    yield span / 8
    world.leave(world.operators[world.people["admin"][0].id])
    yield span / 16
    auditor = world.operators[world.people["auditor"][0].id]
    others = {"admin", "approver"}
    facts = operators.change_roles(auditor, ["operator"], LOCAL, world.now, others=others)
    auditor = world.keep(Operator, auditor, auditor.id, facts, LOCAL)
    world.operators[str(auditor.id)] = auditor
    world.people["auditor"].pop(0)
    yield span / 16
    world.change_policy(world.any("approver"), required_approvals=2)
    yield span / 4
    world.change_policy(world.any("approver"), required_approvals=1, approval_days=5)


def peer_life(world: World, number: int) -> Life:
    """Activated soon, at times suspended, now and then revoked for good."""
    yield world.between(HOUR, 2 * DAY)
    peer = world.peer(number)
    world.change_peer(number, peers.activate(peer, "contract and call-back on file"))
    revoked = number % 40 == 7  # some of every forty
    while True:
        yield world.between(60 * DAY, 400 * DAY)
        if world.chance(0.3):
            peer = world.peer(number)
            url = f"https://{peer.name}.example/v{world.now:%Y%m}"
            world.change_peer(number, peers.update(peer, url))
            continue
        world.change_peer(number, peers.suspend(world.peer(number), world.reason()))
        yield world.between(HOUR, 20 * DAY)
        if revoked:
            yield from _peer_revoked(world, number)
            return
        world.change_peer(number, peers.resume(world.peer(number), world.reason()))


def _peer_revoked(world: World, number: int) -> Iterator[timedelta]:
    facts = peers.revoke(world.peer(number), world.reason(), live_grants=(), revoke_grants=True)
    peer = world.change_peer(number, facts)
    for id_ in sorted(world.of_peer.get(peer.id, ())):
        yield timedelta(milliseconds=3)
        grant = world.grants.get(id_)
        if grant is None or grant.status in TERMINAL or world.now >= grant.expires_at:
            continue
        facts = grants.revoke(grant, peer.revocation_reason, world.now, detail="peer-revoked")
        cause = peer.revocation_event
        reason = peer.revocation_reason
        world.grant(grant, facts, RECONCILER, reason=reason, causation_id=cause)


def authority_life(world: World, span: timedelta, log_key: str) -> Life:
    """Lists are published; once an unknown certificate is found; an old authority is retired."""
    old = world.book.uuid()
    world.adopt(old, made_up_issuer(world.now - DAY))
    for number in range(1000):
        yield max(span / 200, DAY)
        facts = authorities.publish_crl(
            world.authority, world.now, world.now + 2 * DAY, entries=number
        )
        _authority(world, world.authority, facts)
        if number == 20:
            serial = world.book.dice.randbytes(16).hex()
            _authority(
                world,
                world.authority,
                authorities.find_unknown(world.authority, serial, None, "the authority's list"),
            )
        if number == 60:
            _authority(world, world.authorities[old], authorities.retire(world.authorities[old]))
        if number == 80:
            assert world.identity is not None
            facts = identity.rotate_log_key(world.identity, log_key)
            world.identity = world.keep(Identity, world.identity, LEDGER_ID, facts, LOCAL)


def _authority(world: World, authority: Authority, facts: tuple[Fact, ...]) -> None:
    if facts:
        world.authorities[authority.id] = world.keep(
            Authority, authority, authority.id, facts, RECONCILER
        )


def access_log(world: World, span: timedelta) -> Life:
    """The access log grows, and its tree head is recorded."""
    size = 0
    while True:
        yield max(span / 100, DAY)
        assert world.identity is not None
        size += 1 + world.book.dice.getrandbits(12)
        root = world.book.dice.randbytes(32).hex()
        facts = identity.checkpoint_access(world.identity, size, root)
        world.identity = world.keep(Identity, world.identity, LEDGER_ID, facts, RECONCILER)


def strangers(world: World, every: timedelta) -> Life:
    """Denied calls and tokens that open nothing, about one in each `every`."""
    return _notes(world, every, (_denied, _rejected))


def readers(world: World, every: timedelta) -> Life:
    """Reads of the trail and exports, about one in each `every`."""
    return _notes(world, every, (_read, _read, _exported))


def _notes(world: World, every: timedelta, kinds: Sequence[Callable[[World], None]]) -> Life:
    for note in cycle(kinds):
        yield world.between(every / 10, every * 1.9)
        note(world)


def _denied(world: World) -> None:
    by = world.any("auditor") if world.chance(0.5) else STRANGER
    operation = world.one_of(("POST /v1/grants", "GET /v1/events", "POST /v1/peers"))
    problem = "forbidden" if by is not STRANGER else "unauthorized"
    world.note(CallDenied(operation=operation, problem=problem, count=1), by)


def _rejected(world: World) -> None:
    known = world.peers and world.chance(0.3)
    by = as_peer(world.one_of(world.peers)) if known else STRANGER
    cause = world.one_of(("unknown-token", "wrong-secret", "token-expired", "token-replayed"))
    note = EnrollmentRejected(
        cause=cause, count=1, accessor=None, grant_id=None, csr_sha256=None, key_digest=None
    )
    world.note(note, by)


def _read(world: World) -> None:
    asked = (("topic", "certificate.revoked.v1"),)
    fact = AuditRead(operation="GET /v1/events", filter=asked, count=1 + int(world.chance(0.5)))
    world.note(fact, world.any("auditor"))


def _exported(world: World) -> None:
    size = world.book.size
    fact = ExportMade(
        format="jsonl",
        filter=(("first", "1"),),
        first_position=1,
        last_position=size,
        count=size,
        sha256=world.book.dice.randbytes(32).hex(),
    )
    world.note(fact, world.any("auditor"))
