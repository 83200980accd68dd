"""The past as the tables tell it is the past as the events tell it, at any position."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from random import Random
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import sql

from ledger.events import POLICY_ID
from ledger.folds import FOLDS
from ledger.grant_state import Grant
from ledger.grant_status import effective_status
from ledger.mapper import read_event
from ledger.peers import Peer
from ledger.policy import DEFAULT, Policy
from projections import certificates, grants, operators, peers, policy
from projections.comparing import comparable
from projections.follower import Follower
from projections.registry import FOLLOWED, INLINE
from support.databases import Database
from support.past import generate

EVENTS = 2500
POSITIONS = 200
_EVENTS = """SELECT stream_id, version, topic, body, recorded_at FROM ledger_events
    ORDER BY position"""
KINDS = {fold.stream_type: (kind, fold) for kind, fold in FOLDS.items()}


@pytest.fixture
def told(database: Database) -> Iterator[psycopg.Connection[Any]]:
    """A made-up past whose histories are told; a connection of the service."""
    generate(database.owner_dsn, events=EVENTS, seed=3)
    follower = Follower(database.service_dsn, FOLLOWED)
    follower.follow()
    follower.close()
    with psycopg.connect(database.service_dsn) as connection:
        connection.execute("SET timezone = 'UTC'")
        yield connection


@contextmanager
def at(connection: psycopg.Connection[Any], position: int) -> Iterator[None]:
    with connection.transaction():
        connection.execute("SET LOCAL search_path = as_of, public")
        connection.execute("SELECT set_config('fedledger.position', %s, true)", [str(position)])
        yield


class Fold:
    """All streams, folded from the events alone."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._events = connection.execute(_EVENTS).fetchall()
        self.states: dict[type, dict[UUID, Any]] = {kind: {} for kind in FOLDS}
        self.position = 0
        self.now: datetime | None = None

    def go(self, position: int) -> None:
        for stream_id, version, topic, body, recorded_at in self._events[self.position : position]:
            event = read_event(stream_id, version, topic, body)
            kind, fold = KINDS[event.data.STREAM]
            states = self.states[kind]
            states[stream_id] = fold.evolve(states.get(stream_id), event)
            self.now = recorded_at
        self.position = position

    def statuses(self) -> dict[UUID, str]:
        current = self.states[Policy].get(POLICY_ID, DEFAULT)
        assert self.now is not None
        return {
            grant.id: effective_status(
                grant, self.states[Peer][grant.peer_id], current, self.now
            ).value
            for grant in self.states[Grant].values()
        }


def test_every_table_at_random_positions_is_what_a_fold_up_to_there_gives(
    told: psycopg.Connection[Any],
) -> None:
    fold = Fold(told)
    positions = sorted(Random(5).sample(range(1, EVENTS + 1), POSITIONS - 2))
    for position in [1, *positions, EVENTS]:
        fold.go(position)
        with at(told, position):
            for table in INLINE:
                query = sql.SQL("SELECT {} FROM {}").format(
                    sql.SQL(", ").join(map(sql.Identifier, table.names)),
                    sql.Identifier(table.table),
                )
                found = [comparable(table, row, stored=True) for row in told.execute(query)]
                expected = {
                    comparable(table, row)
                    for state in fold.states[table.state].values()
                    for row in table.rows(state)
                }
                assert len(found) == len(expected), (position, table.table)
                assert set(found) == expected, (position, table.table)


def test_every_query_of_the_present_reads_the_past(told: psycopg.Connection[Any]) -> None:
    fold = Fold(told)
    for position in sorted(Random(7).sample(range(100, EVENTS), 40)):
        fold.go(position)
        statuses, now = fold.statuses(), fold.now
        assert now is not None
        with at(told, position):
            listed = grants.page(told, now, limit=EVENTS)
            assert {row.id: row.status for row in listed} == statuses
            assert sum(grants.count_by_status(told, now).values()) == len(statuses)
            for status in set(statuses.values()):
                page = grants.page(told, now, status=status, limit=EVENTS)
                assert [row for row in listed if row.status == status] == page, status
            assert policy.current(told) == fold.states[Policy].get(POLICY_ID, DEFAULT)
            assert len(peers.page(told, limit=EVENTS)) == len(fold.states[Peer])
            issued = sum(len(grant.issuances) for grant in fold.states[Grant].values())
            every = certificates.page(told, limit=EVENTS)
            assert len(every) == issued
            _narrowed(told, every, {row.id: row for row in listed})
            approvers = {row.id for row in operators.enabled_with_role(told, "approver")}
            assert approvers == {one.id for one in operators_of(fold) if one.holds("approver")}


def _narrowed(
    told: psycopg.Connection[Any],
    every: list[certificates.CertificateRow],
    of: dict[UUID, grants.GrantRow],
) -> None:
    """What few have and what their grants are is looked for in ways of their own."""
    ways: list[tuple[dict[str, Any], Callable[[certificates.CertificateRow], bool]]] = [
        ({"state": "authorized"}, lambda row: row.state == "authorized"),
        ({"sensitive": True}, lambda row: of[row.grant_id].sensitive),
        ({"resource": "notes"}, lambda row: "notes" in of[row.grant_id].scope["resources"]),
    ]
    if every:
        peer_id, user = of[every[0].grant_id].peer_id, of[every[-1].grant_id].subject_user_id
        key = every[0].key_digest
        ways += [
            ({"peer_id": peer_id}, lambda row: of[row.grant_id].peer_id == peer_id),
            ({"subject_user_id": user}, lambda row: of[row.grant_id].subject_user_id == user),
            ({"key_digest": key}, lambda row: row.key_digest == key),
        ]
    for chosen, holds in ways:
        found = certificates.page(told, **chosen, limit=EVENTS)
        assert found == [row for row in every if holds(row)], chosen


def operators_of(fold: Fold) -> list[Any]:
    from ledger.operators import Operator

    return list(fold.states[Operator].values())
