"""The current-state tables read back: filters, pages, look-ups, and the effective status in SQL."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import Connection

from ledger.alarms import Alarm
from ledger.authorities import Authority
from ledger.events import POLICY_ID, EnrollmentRejected, IssuanceAuthorized
from ledger.grant_state import (
    TERMINAL,
    Approval,
    Grant,
    GrantStatus,
    Issuance,
    IssuanceState,
    Revocation,
    Token,
    TokenState,
)
from ledger.grant_status import effective_status
from ledger.notes import Note
from ledger.operators import Credential, Operator
from ledger.peers import Peer, PeerState
from ledger.policy import DEFAULT, Policy
from ledger.scope import parse_scope
from projections import (
    alarms,
    authorities,
    certificates,
    grants,
    operators,
    peers,
    policy,
    rejections,
    tokens,
)
from support.databases import Database
from support.rows import insert

pytestmark = pytest.mark.postgres

NOW = datetime(2026, 11, 23, 15, 7, 8, 123456, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DIGEST = "ab" * 32


def some_id(number: int) -> UUID:
    return UUID(int=number, version=4)


@pytest.fixture
def connection(database: Database) -> Iterator[Connection[Any]]:
    """A connection of the service's role, as the product reads."""
    with psycopg.connect(database.service_dsn, autocommit=True) as connection:
        yield connection


def peer(number: int = 1, **changes: Any) -> Peer:
    plain = Peer(
        some_id(number), 1, f"Peer {number}", "https://peer.example", PeerState.ACTIVE, NOW, NOW
    )
    return replace(plain, **changes)


def grant(number: int = 1, **changes: Any) -> Grant:
    plain = Grant(
        id=some_id(number),
        version=1,
        peer_id=some_id(1),
        subject_user_id="u:1",
        scope=parse_scope({"resources": ["tasks"], "max_rows_per_query": 10}),
        sensitive=False,
        not_before=NOW,
        expires_at=NOW + 60 * MINUTE,
        terms_digest=DIGEST,
        proposed_by="p",
        proposed_at=NOW + number * MINUTE,
        changed_at=NOW,
        status=GrantStatus.ACTIVE,
    )
    return replace(plain, **changes)


# ---- the effective status, twice -------------------------------------------------------------

# Few moments, so that "at the same instant" comes up as often as "before" and "after".
moments = st.integers(-2, 2).map(lambda steps: NOW + steps * MINUTE)


@st.composite
def peers_of_any_state(draw: st.DrawFn) -> Peer:
    state = draw(st.sampled_from(PeerState))
    return peer(state=state, revoked_at=draw(moments) if state is PeerState.REVOKED else None)


@st.composite
def grants_of_any_state(draw: st.DrawFn) -> Grant:
    lapses = draw(st.lists(moments, max_size=3))
    return grant(
        status=draw(st.sampled_from(GrantStatus)),
        sensitive=draw(st.booleans()),
        expires_at=draw(moments),
        approvals=tuple(Approval(f"person-{n}", NOW, one) for n, one in enumerate(lapses)),
    )


policies = st.none() | st.builds(
    lambda required: Policy(version=1, required_approvals=required, changed_at=NOW),
    st.integers(0, 3),
)


def test_the_effective_status_in_sql_is_that_of_the_rule(connection: Connection[Any]) -> None:
    seen: set[GrantStatus] = set()

    def compare(one_peer: Peer, one: Grant, chosen: Policy | None, at: datetime) -> None:
        with connection.transaction(force_rollback=True):
            insert(connection, one_peer, one, *([chosen] if chosen else []))
            row = grants.by_id(connection, one.id, at)
            expected = effective_status(one, one_peer, chosen or DEFAULT, at)
            seen.add(expected)
            assert row is not None
            assert (row.status, row.stored_status) == (expected.value, one.status.value)
            assert grants.count_by_status(connection, at) == {expected.value: 1}
            for status in GrantStatus:
                found = grants.page(connection, at, status=status.value, limit=2)
                assert [each.id for each in found] == ([one.id] if status is expected else [])
            unfinished = one_peer.revoked_at is not None and one_peer.revoked_at < one.expires_at
            assert grants.peers_with_unfinished_revocation(connection) == (
                [one_peer.id] if unfinished and one.status not in TERMINAL else []
            )
            assert grants.ended_by_the_clock(connection, at, 2) == (
                [one.id] if expected is GrantStatus.EXPIRED and one.status not in TERMINAL else []
            )

    for status in GrantStatus:  # each at least once, whatever chance gives below
        one = grant(status=status, sensitive=False, expires_at=NOW + MINUTE)
        compare(peer(state=PeerState.ACTIVE), one, None, NOW)
    assert seen == set(GrantStatus), "the examples reached every status"
    by_chance = given(peers_of_any_state(), grants_of_any_state(), policies, moments)(compare)
    settings(
        max_examples=400, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )(by_chance)()


# ---- grants ----------------------------------------------------------------------------------


def test_a_grant_is_read_back_as_it_was_recorded(connection: Connection[Any]) -> None:
    scope = parse_scope(
        {
            "resources": ["tasks", "credentials"],
            "filters": {"tasks": {"include_teams": ["b", "a"], "include_personal": False}},
            "max_rows_per_query": 10,
        }
    )
    one = grant(
        scope=scope,
        sensitive=True,
        approvals=(Approval("person", NOW, NOW + MINUTE),),
        clone_suspected=True,
        activated_at=NOW,
        ended_at=NOW,
    )
    insert(connection, peer(name="Example"), one)
    row = grants.by_id(connection, one.id, NOW)
    assert row is not None
    assert row.scope == scope.canonical()
    assert row.approvals == [
        {
            "approver": "person",
            "at": "2026-11-23T15:07:08.123456Z",
            "lapses_at": "2026-11-23T15:08:08.123456Z",
        }
    ]
    same = ("version", "peer_id", "subject_user_id", "sensitive", "not_before", "expires_at")
    more = ("terms_digest", "proposed_by", "proposed_at", "clone_suspected", "activated_at")
    for name in (*same, *more, "ended_at", "changed_at"):
        assert getattr(row, name) == getattr(one, name), name
    assert row.peer_name == "Example"
    assert grants.by_id(connection, some_id(99), NOW) is None


def _many_grants(connection: Connection[Any]) -> list[Grant]:
    number = count(1)
    made = [
        grant(
            next(number),
            peer_id=some_id(1 + turn % 2),
            subject_user_id=f"u:{turn % 3}",
            sensitive=bool(turn % 2),
            scope=parse_scope({"resources": [name], "max_rows_per_query": 1}),
            expires_at=NOW + (turn % 4) * MINUTE,
            proposed_at=NOW - (10 - turn // 3) * MINUTE,
        )
        for turn, name in enumerate(["tasks", "notes", "credentials"] * 4)
    ]
    insert(connection, peer(1), peer(2), *made)
    return made


FILTERS: dict[str, tuple[dict[str, Any], Callable[[Grant], bool]]] = {
    "none": ({}, lambda one: True),
    "peer": ({"peer_id": some_id(2)}, lambda one: one.peer_id == some_id(2)),
    "subject": ({"subject_user_id": "u:1"}, lambda one: one.subject_user_id == "u:1"),
    "sensitive": ({"sensitive": True}, lambda one: one.sensitive),
    "not sensitive": ({"sensitive": False}, lambda one: not one.sensitive),
    "resource": ({"resource": "notes"}, lambda one: one.scope.resources == ("notes",)),
    "expires before": (
        {"expires_before": NOW + 2 * MINUTE},
        lambda one: one.expires_at < NOW + 2 * MINUTE,
    ),
    "status": ({"status": "expired"}, lambda one: one.expires_at <= NOW),
    "two": (
        {"status": "active", "sensitive": True},
        lambda one: one.expires_at > NOW and one.sensitive,
    ),
}


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("limit", [1, 5, 100])
def test_grants_are_filtered_and_paged(connection: Connection[Any], name: str, limit: int) -> None:
    chosen, wanted = FILTERS[name]
    made = _many_grants(connection)
    found: list[UUID] = []
    after = None
    while page := grants.page(connection, NOW, **chosen, after=after, limit=limit):
        assert len(page) <= limit
        found += [row.id for row in page]
        after = page[-1].id
    newest_first = sorted(made, key=lambda one: (one.proposed_at, one.id), reverse=True)
    assert found == [one.id for one in newest_first if wanted(one)]


def test_a_page_behind_an_unknown_grant_is_empty(connection: Connection[Any]) -> None:
    _many_grants(connection)
    assert grants.page(connection, NOW, after=some_id(99), limit=5) == []


def test_a_grant_proposed_between_two_pages_moves_nothing(connection: Connection[Any]) -> None:
    made = _many_grants(connection)
    first = grants.page(connection, NOW, limit=6)
    insert(connection, grant(50, proposed_at=NOW + 60 * MINUTE))
    second = grants.page(connection, NOW, after=first[-1].id, limit=100)
    assert {row.id for row in (*first, *second)} == {one.id for one in made}
    assert len(first) + len(second) == len(made)


def test_the_live_grants_of_a_peer_are_those_without_an_end_on_record(
    connection: Connection[Any],
) -> None:
    made = [grant(number, status=status) for number, status in enumerate(GrantStatus, 1)]
    insert(connection, peer(1), *made, grant(20, peer_id=some_id(2)))
    assert grants.live_of_peer(connection, some_id(1)) == [
        one.id for one in made if one.status not in TERMINAL
    ]


# ---- the other tables ------------------------------------------------------------------------


def test_peers_are_found_by_id_by_folded_name_and_in_pages(connection: Connection[Any]) -> None:
    names = ["alpha", "Beta", "gamma", "Delta"]
    made = [
        peer(n, name=name, state=PeerState.ACTIVE if n % 2 else PeerState.PENDING)
        for n, name in enumerate(names, 1)
    ]
    insert(connection, *made)
    row = peers.by_id(connection, some_id(2))
    assert row is not None
    assert (row.name, row.state, row.registered_at) == ("Beta", "pending", NOW)
    assert peers.by_name(connection, "bETA") == row
    assert peers.by_name(connection, "beta 2") is None
    first = peers.page(connection, limit=3)
    rest = peers.page(connection, after=first[-1].id, limit=3)
    assert [one.name for one in (*first, *rest)] == ["alpha", "Beta", "Delta", "gamma"]
    assert [one.name for one in peers.page(connection, state="pending", limit=9)] == [
        "Beta",
        "Delta",
    ]
    assert [one.name for one in peers.page(connection, name="DELTA", limit=9)] == ["Delta"]


def test_tokens_are_found_by_accessor_and_by_grant(connection: Connection[Any]) -> None:
    made = [
        Token(f"{n:016d}", DIGEST, TokenState.ISSUED, NOW + n * MINUTE, NOW, "cd" * 32, NOW)
        for n in range(3)
    ]
    insert(connection, grant(tokens={one.accessor: one for one in made}))
    row = tokens.by_accessor(connection, made[1].accessor)
    assert row is not None
    assert (row.grant_id, row.token_sha256, row.state, row.key_digest) == (
        some_id(1),
        DIGEST,
        "issued",
        "cd" * 32,
    )
    assert tokens.by_accessor(connection, "z" * 16) is None
    found = tokens.of_grant(connection, some_id(1))
    assert [one.accessor for one in found] == [one.accessor for one in reversed(made)]


def _issuance(number: int, state: IssuanceState, **changes: Any) -> Issuance:
    fact = IssuanceAuthorized(
        issuance_id=some_id(number),
        kind="enrollment",
        generation=1,
        accessor="a" * 16,
        predecessor=None,
        csr=b"csr",
        csr_sha256=DIGEST,
        key_digest=f"{number:064x}",
        serial=f"4{number:031x}",
        not_before=NOW,
        not_after=NOW + number * MINUTE,
        subject="Example",
        san=(),
        extensions=(),
        authority_id=some_id(70),
        profile_version=1,
    )
    plain = Issuance(fact, state, authorized_at=NOW + number * MINUTE)
    return replace(plain, **changes)


def _certificates(connection: Connection[Any]) -> dict[str, Issuance]:
    issued = {
        "closed_at": NOW,
        "certificate": b"\x30\x00",
        "certificate_sha256": DIGEST,
        "tbs_sha256": "cd" * 32,
    }
    made = {
        "open": _issuance(1, IssuanceState.AUTHORIZED),
        "issued": _issuance(2, IssuanceState.ISSUED, **issued),
        "revoked": _issuance(
            3,
            IssuanceState.ISSUED,
            **(issued | {"tbs_sha256": "ef" * 32}),
            revocation=Revocation(NOW, "superseded", "a reason"),
        ),
        "failed": _issuance(4, IssuanceState.FAILED, closed_at=NOW, failure="no"),
        "abandoned": _issuance(5, IssuanceState.ABANDONED, closed_at=NOW, failure="too late"),
    }
    insert(
        connection,
        grant(1, subject_user_id="u:1", issuances={one.id: one for one in made.values()}),
        grant(
            2,
            peer_id=some_id(2),
            subject_user_id="u:2",
            issuances={some_id(6): _issuance(6, IssuanceState.AUTHORIZED)},
        ),
    )
    return made


def test_certificates_are_found_by_serial_key_and_tbs(connection: Connection[Any]) -> None:
    made = _certificates(connection)
    row = certificates.by_serial(connection, made["revoked"].serial)
    assert row is not None
    assert (row.state, row.certificate, row.revocation_reason) == (
        "issued",
        b"\x30\x00",
        "superseded",
    )
    assert certificates.by_tbs_sha256(connection, "ef" * 32) == row
    assert certificates.by_key_digest(connection, made["revoked"].key_digest) == [row]
    assert certificates.by_serial(connection, "4" + "f" * 31) is None
    assert certificates.by_tbs_sha256(connection, DIGEST) is None


def test_open_issuances_are_found_by_age(connection: Connection[Any]) -> None:
    _certificates(connection)
    none = certificates.open_since(connection, NOW)
    one = certificates.open_since(connection, NOW + MINUTE)
    both = certificates.open_since(connection, NOW + 9 * MINUTE)
    assert [[row.issuance_id.int & 0xFF for row in rows] for rows in (none, one, both)] == [
        [],
        [1],
        [1, 6],
    ]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, [6, 5, 4, 3, 2, 1]),
        ({"grant_id": some_id(1)}, [5, 4, 3, 2, 1]),
        ({"peer_id": some_id(2)}, [6]),
        ({"subject_user_id": "u:2"}, [6]),
        ({"subject_user_id": "u:2", "peer_id": some_id(1)}, []),
        ({"state": "authorized"}, [6, 1]),
        ({"state": "authorized", "peer_id": some_id(1)}, [1]),
        ({"peer_id": some_id(1), "state": "issued", "sensitive": False}, [2]),
        ({"peer_id": some_id(1), "sensitive": True}, []),
        ({"state": "issued"}, [2]),
        ({"state": "revoked"}, [3]),
        ({"state": "failed"}, [4]),
        ({"state": "abandoned"}, [5]),
        ({"expires_before": NOW + 3 * MINUTE}, [2, 1]),
    ],
)
@pytest.mark.parametrize("fetched", [2000, 0])
def test_certificates_are_filtered_and_paged(
    connection: Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    chosen: dict[str, Any],
    expected: list[int],
    fetched: int,
) -> None:
    # Whether the grants of a peer are few enough to be asked for one by one, or walked for.
    monkeypatch.setattr(certificates, "_MOST_GRANTS", fetched)
    _certificates(connection)
    found: list[int] = []
    after = None
    while page := certificates.page(connection, **chosen, after=after, limit=2):
        found += [int(row.serial[1:], 16) for row in page]
        after = page[-1].serial
    assert found == expected


def test_a_credential_comes_with_its_operator(connection: Connection[Any]) -> None:
    one = Operator(
        some_id(1),
        3,
        "person",
        frozenset({"auditor", "admin"}),
        True,
        NOW,
        NOW,
        {"a" * 16: Credential("a" * 16, DIGEST, NOW, NOW + MINUTE)},
    )
    other = replace(one, id=some_id(2), enabled=False, roles=frozenset({"gateway"}), credentials={})
    insert(connection, one, other)
    found = operators.credential(connection, "a" * 16)
    assert found is not None
    assert (found.operator_id, found.roles, found.enabled) == (one.id, ["admin", "auditor"], True)
    assert found.live(NOW)
    assert not found.live(NOW + MINUTE)
    assert not replace(found, enabled=False).live(NOW)
    assert not replace(found, revoked_at=NOW).live(NOW)
    assert operators.credential(connection, "b" * 16) is None
    assert [row.id for row in operators.page(connection, limit=9)] == [one.id, other.id]
    assert [row.id for row in operators.page(connection, after=one.id, limit=9)] == [other.id]
    assert [row.id for row in operators.page(connection, role="gateway", limit=9)] == [other.id]
    assert [row.id for row in operators.page(connection, enabled=True, limit=9)] == [one.id]
    assert [row.id for row in operators.enabled_with_role(connection, "admin")] == [one.id]
    assert operators.enabled_with_role(connection, "gateway") == []
    assert len(operators.credentials_of(connection, one.id)) == 1


def test_the_policy_is_the_default_until_it_is_changed(connection: Connection[Any]) -> None:
    assert policy.current(connection) == DEFAULT
    changed = Policy(POLICY_ID, 4, False, 2, 3, 30, 3600, 600, NOW)
    insert(connection, changed)
    assert policy.current(connection) == changed


def test_an_authority_keeps_its_chain(connection: Connection[Any]) -> None:
    one = Authority(some_id(1), 1, "local", (b"\x00\xff", b"root"), NOW, NOW)
    insert(connection, one)
    (row,) = authorities.everything(connection)
    assert (row.id, row.kind, row.chain, row.not_after) == (one.id, "local", one.chain, NOW)


def test_open_alarms_are_counted_and_listed(connection: Connection[Any]) -> None:
    made = [
        Alarm(some_id(n), 1, f"kind-{n}", ("x", "y"), "why", NOW + n * MINUTE, "system")
        for n in (1, 2, 3)
    ]
    insert(connection, *made[:2], replace(made[2], acknowledged_at=NOW, acknowledged_by="p"))
    assert alarms.count_open(connection) == 2
    assert [row.kind for row in alarms.page(connection, limit=9)] == ["kind-3", "kind-2", "kind-1"]
    assert [row.kind for row in alarms.page(connection, open_only=True, limit=1)] == ["kind-2"]
    assert [row.kind for row in alarms.page(connection, after=some_id(2), limit=9)] == ["kind-1"]
    assert [row.kind for row in alarms.page(connection, kind="kind-1", limit=9)] == ["kind-1"]
    row = alarms.by_id(connection, some_id(1))
    assert row is not None
    assert row.about == ["x", "y"]
    assert alarms.is_open_about(connection, "kind-1", "y")
    assert not alarms.is_open_about(connection, "kind-1", "z")
    assert not alarms.is_open_about(connection, "kind-3", "x"), "acknowledged"


def test_failures_of_a_token_are_summed_by_cause(connection: Connection[Any]) -> None:
    for number, (cause, times) in enumerate([("csr-key", 1), ("csr-key", 3), ("wrong", 50)]):
        fact = EnrollmentRejected(
            cause=cause,
            count=times,
            accessor="a" * 16,
            grant_id=some_id(1),
            csr_sha256=None,
            key_digest=None,
        )
        insert(connection, Note(some_id(number), 1, fact, NOW, "192.0.2.1"))
    assert rejections.failures_by_cause(connection, "a" * 16) == {"csr-key": 4, "wrong": 50}
    assert rejections.failures_by_cause(connection, "b" * 16) == {}
