"""What the statement is given: every parameter its value, one row as it is and several as arrays."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from ledger.appends import Append, Claim, Draft, Idempotency, prepare
from ledger.events import PeerRegistered, stream_type
from ledger.peers import evolve
from ledger.plan import Head, Plan, plan
from ledger.statement import EVENTS, FIXED, MOST_READS
from ledger.tlog.merkle import Frontier
from projections.peers import PROJECTION
from support.appending import event_of

NOW = datetime(2026, 11, 27, 12, 0, 0, 123, tzinfo=UTC)


NORTH = evolve(
    None, event_of(uuid4(), 1, PeerRegistered(name="North", base_url="https://peer.example"))
)


def append(*, reads: int = 0, whole: bool = True) -> Append:
    stream = uuid4()
    return prepare(
        [Draft(stream, 1, "peer.registered.v1", b"{}")],
        reads={UUID(int=number): number for number in range(reads)},
        claims=[Claim("peer-name", stream.hex, 0)] if whole else [],
        rows={PROJECTION: PROJECTION.changed(None, NORTH)} if whole else {},
        idempotency=Idempotency("c", "POST", "/", stream.hex, "0" * 64) if whole else None,
    )


def planned(*appends: Append, size: int = 0) -> Plan:
    frontier = Frontier()
    for number in range(size):
        frontier.append(number.to_bytes(32))
    return plan(Head(frontier, None), appends, NOW, stream_type)


@pytest.mark.parametrize(
    ("appends", "size"),
    [
        ([append()], 0),
        ([append(reads=3)], 0),
        ([append(reads=9)], 0),
        ([append(whole=False)], 0),
        ([append()], 255),  # completes a subtree, which is stored
        ([append(), append(whole=False, reads=1)], 300),
    ],
    ids=["single", "reads", "many reads", "bare", "node", "several"],
)
def test_every_parameter_has_a_value(appends: Sequence[Append], size: int) -> None:
    made = planned(*appends, size=size)
    numbers = {int(number) for number in re.findall(rb"\$(\d+)", made.statement)}
    assert numbers == set(range(1, len(FIXED) + len(made.values) + 1))


def test_one_row_of_each_travels_without_arrays() -> None:
    single, several = planned(append(reads=1)), planned(append(reads=1), append(reads=1))
    assert b"unnest" not in single.statement
    assert None in single.values  # the row's NULLs
    assert several.statement.count(b"unnest") > 20
    assert None not in several.values
    assert len(single.values) == len(several.values)


def test_of_one_append_each_part_of_one_row_travels_without_arrays() -> None:
    one = append()
    second = Draft(one.events[0].stream_id, 2, "peer.activated.v1", b"{}")
    two = prepare(
        [*one.events, second],
        reads={},
        claims=one.claims,
        rows={PROJECTION: PROJECTION.changed(None, NORTH)},
        idempotency=None,
    )
    assert planned(two).statement.count(b"unnest") == len(EVENTS)
    assert planned(two, two).statement.count(b"unnest") > 20


@pytest.mark.parametrize("reads", range(7))
def test_few_reads_are_conditions_and_many_are_arrays(reads: int) -> None:
    made = planned(append(reads=reads))
    conditions, arrays = (reads, 0) if reads <= MOST_READS else (1, 2)
    assert made.statement.count(b"NOT EXISTS") == conditions
    assert made.statement.count(b"unnest") == arrays
