"""Alarms, authorities, the ledger's own stream and notes: the streams with little to decide."""

from datetime import timedelta
from uuid import uuid4

import pytest

from ledger import alarms, authorities, identity, notes
from ledger.alarms import Alarm
from ledger.authorities import Authority
from ledger.errors import InvalidError, RefusedError
from ledger.events import LEDGER_ID, Actor, CallDenied, Event, Fact
from ledger.folds import FOLDS
from ledger.identity import Identity
from support.given import REASON, START, World, refused

LOG_KEY = "example.org/log+1234abcd+AQID"


def event(fact: Fact, version: int = 1) -> Event:
    actor = Actor(kind="system", id="test", auth="system", source="192.0.2.1")
    return Event(LEDGER_ID, version, uuid4(), START, actor, "test", None, None, fact)


def test_an_alarm_is_open_until_acknowledged_with_a_reason() -> None:
    world = World()
    raised = world.record(Alarm, uuid4(), alarms.raise_alarm("mis-issued", ["a", "", "b"], ""))
    assert raised.open
    assert (raised.about, raised.detail) == (("a", "b"), "mis-issued")
    with refused("reason-required", InvalidError):
        alarms.acknowledge(raised, None)
    closed = world.record(Alarm, raised.id, alarms.acknowledge(raised, REASON), by=world.admin)
    assert not closed.open
    assert (closed.acknowledged_by, closed.acknowledged_because) == (world.admin.id, REASON)
    with refused("alarm-acknowledged", RefusedError):
        alarms.acknowledge(closed, REASON)


def test_a_long_story_does_not_keep_an_alarm_from_being_raised() -> None:
    [fact] = alarms.raise_alarm("x", [], "y" * 5000)
    assert len(fact.detail) == 2000  # type: ignore[attr-defined]
    with refused("alarm-kind", InvalidError):
        alarms.raise_alarm("No Kind", [], "")


def test_an_authority_is_adopted_once_under_one_id() -> None:
    world = World()
    same = world.authority
    assert authorities.adopt(same, "local", [b"issuer", b"root"], same.not_after) == ()
    for kind, chain in (("local", [b"issuer"]), ("step-ca", [b"issuer", b"root"])):
        with refused("authority-differs", RefusedError):
            authorities.adopt(same, kind, chain, same.not_after)  # type: ignore[arg-type]
    with refused("authority-chain", InvalidError):
        authorities.adopt(None, "local", [], same.not_after)
    retired = world.record(Authority, same.id, authorities.retire(same))
    assert retired.retired_at == world.now
    assert authorities.retire(retired) == ()
    with refused("authority-differs", RefusedError):
        authorities.adopt(retired, "local", [b"issuer", b"root"], same.not_after)


def test_an_authority_keeps_its_last_list_and_what_was_found() -> None:
    world = World()
    later = world.now + timedelta(hours=1)
    facts = (
        *authorities.publish_crl(world.authority, world.now, later, 3),
        *authorities.find_unknown(world.authority, "0abc", b"DER", "the authority's database"),
    )
    now = world.record(Authority, world.authority.id, facts)
    assert (now.crl_this_update, now.crl_next_update) == (world.now, later)
    assert now.unknown == {"0abc"}
    assert authorities.find_unknown(now, "0abc", None, "again") == ()


def test_the_ledger_is_created_once_and_its_keys_follow_each_other() -> None:
    [created] = identity.create(None, "example.org/log", LOG_KEY, "0.1.0")
    state = identity.evolve(None, event(created))
    with refused("already-created", RefusedError):
        identity.create(state, "example.org/log", LOG_KEY, "0.1.0")
    assert identity.rotate_log_key(state, LOG_KEY) == ()
    [rotated] = identity.rotate_log_key(state, LOG_KEY + "BA")
    state = identity.evolve(state, event(rotated, 2))
    assert state.log_keys == (LOG_KEY, LOG_KEY + "BA")
    assert state.log_key == LOG_KEY + "BA"
    assert isinstance(state, Identity)


def test_the_access_log_only_grows() -> None:
    [created] = identity.create(None, "example.org/log", LOG_KEY, "0.1.0")
    state = identity.evolve(None, event(created))
    [first] = identity.checkpoint_access(state, 5, "a" * 64)
    state = identity.evolve(state, event(first, 2))
    assert identity.checkpoint_access(state, 5, "a" * 64) == ()
    with refused("access-log-shrunk", RefusedError):
        identity.checkpoint_access(state, 4, "a" * 64)
    # The same size with another root is an access log that was rewritten.
    with refused("access-log-shrunk", RefusedError):
        identity.checkpoint_access(state, 5, "b" * 64)


def test_a_note_is_one_event() -> None:
    fact = CallDenied(operation="propose-grant", problem="forbidden", count=1)
    note = notes.evolve(None, event(fact))
    assert (note.fact, note.source, note.at) == (fact, "192.0.2.1", START)
    with pytest.raises(ValueError, match="cannot hold"):
        notes.evolve(note, event(fact, 2))


def test_every_stream_type_has_a_fold_that_refuses_what_is_not_its_own() -> None:
    assert {fold.stream_type for fold in FOLDS.values()} == {
        "peer", "grant", "operator", "policy", "ledger", "authority", "alarm", "note"
    }  # fmt: skip
    world = World()
    world.peer()
    foreign = {"alarm", "authority", "ledger", "policy", "grant", "operator", "note"}
    for fold in FOLDS.values():
        if fold.stream_type in foreign:
            with pytest.raises(ValueError, match="cannot"):
                fold.evolve(None, world.events[-1])
