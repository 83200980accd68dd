"""Rows as pure functions of states: their shape, what they keep out, and that they are values."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import orjson
import pytest

from ledger.alarms import Alarm
from ledger.appends import InlineProjection
from ledger.authorities import Authority
from ledger.events import CallDenied, EnrollmentRejected, IssuanceAuthorized
from ledger.grant_state import (
    Approval,
    Grant,
    GrantStatus,
    Issuance,
    IssuanceState,
    Revocation,
    Token,
    TokenState,
)
from ledger.notes import Note
from ledger.operators import Credential, Operator
from ledger.peers import Peer, PeerState
from ledger.policy import Policy
from ledger.scope import Scope, parse_scope
from projections import certificates, grants, operators, rejections, tokens
from projections.registry import INLINE

NOW = datetime(2026, 11, 23, 15, 7, 8, 123456, tzinfo=UTC)
HOUR = timedelta(hours=1)
SOME = UUID("11111111-1111-4111-8111-111111111111")
OTHER = UUID("22222222-2222-4222-8222-222222222222")
SERIAL = "4" + "0" * 31
DIGEST = "ab" * 32


def scope() -> Scope:
    return parse_scope({"resources": ["tasks", "notes"], "max_rows_per_query": 10})


def issuance(state: IssuanceState, **changes: object) -> Issuance:
    fact = IssuanceAuthorized(
        issuance_id=SOME,
        kind="enrollment",
        generation=1,
        accessor="a" * 16,
        predecessor=None,
        csr=b"csr",
        csr_sha256=DIGEST,
        key_digest=DIGEST,
        serial=SERIAL,
        not_before=NOW,
        not_after=NOW + HOUR,
        subject="Example",
        san=(f"urn:uuid:{SOME}",),
        extensions=(),
        authority_id=OTHER,
        profile_version=1,
    )
    return replace(Issuance(fact, state, authorized_at=NOW), **changes)  # type: ignore[arg-type]


def grant(**changes: object) -> Grant:
    token = Token("a" * 16, DIGEST, TokenState.ISSUED, NOW, NOW + HOUR, None, NOW)
    plain = Grant(
        id=SOME,
        version=3,
        peer_id=OTHER,
        subject_user_id="u:1",
        scope=scope(),
        sensitive=False,
        not_before=NOW,
        expires_at=NOW + HOUR,
        terms_digest=DIGEST,
        proposed_by=str(OTHER),
        proposed_at=NOW,
        changed_at=NOW,
        status=GrantStatus.ACTIVE,
        approvals=(Approval(str(OTHER), NOW, NOW + HOUR),),
        tokens={token.accessor: token},
        issuances={SOME: issuance(IssuanceState.AUTHORIZED)},
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def rejected(**changes: object) -> Note:
    fact = EnrollmentRejected(
        cause="unknown-token",
        count=1,
        accessor=None,
        grant_id=None,
        csr_sha256=None,
        key_digest=None,
    )
    return Note(SOME, 1, fact, NOW, "192.0.2.1")


STATES = {
    Alarm: Alarm(SOME, 1, "mis-issued", ("x",), "detail", NOW, "system"),
    Authority: Authority(SOME, 1, "local", (b"\x00", b"\xff"), NOW, NOW),
    Grant: grant(),
    Note: rejected(),
    Operator: Operator(
        SOME,
        2,
        "person",
        frozenset({"auditor", "admin"}),
        True,
        NOW,
        NOW,
        {"a" * 16: Credential("a" * 16, DIGEST, NOW, NOW + HOUR)},
    ),
    Peer: Peer(SOME, 1, "Example", "https://peer.example", PeerState.PENDING, NOW, NOW),
    Policy: Policy(version=1, changed_at=NOW),
}

NAMES = [projection.table for projection in INLINE]


def test_every_table_stands_in_the_registry_once() -> None:
    assert sorted(NAMES) == [
        "federation_alarms",
        "federation_authorities",
        "federation_certificates",
        "federation_credentials",
        "federation_enrollment_rejections",
        "federation_enrollment_tokens",
        "federation_grants",
        "federation_operators",
        "federation_peers",
        "federation_policy",
    ]


@pytest.mark.parametrize("projection", INLINE, ids=NAMES)
def test_a_row_has_a_value_per_column_and_is_hashable(projection: InlineProjection) -> None:
    state = STATES[projection.state]
    (row,) = projection.rows(state)
    assert len(row) == len(projection.columns)
    assert {row} == set(projection.rows(state)), "the same state gives an equal row"
    for value, (name, kind) in zip(row, projection.columns, strict=True):
        if value is None:
            continue
        expected = {
            "uuid": UUID,
            "text": str,
            "bigint": int,
            "integer": int,
            "boolean": bool,
            "timestamptz": datetime,
            "jsonb": str,
            "bytea": bytes,
        }.get(kind, str)
        assert type(value) is expected, name
        if kind == "jsonb":
            assert isinstance(value, str)
            orjson.loads(value)


@pytest.mark.parametrize("projection", INLINE, ids=NAMES)
def test_the_key_identifies_the_row(projection: InlineProjection) -> None:
    assert projection.key[0] == projection.columns[0][0]
    assert len(projection.key) == 1


def _certificate(one: Issuance) -> dict[str, object]:
    (row,) = certificates.rows(grant(issuances={one.id: one}))
    return dict(zip(certificates.PROJECTION.names, row, strict=True))


def test_what_came_back_wrong_is_in_no_row() -> None:
    wrong = issuance(
        IssuanceState.FAILED,
        certificate=b"not what was ordered",
        mis_issued=True,
        failure="key: not the ordered one",
        closed_at=NOW,
    )
    row = _certificate(wrong)
    assert row["certificate"] is None
    assert (row["state"], row["mis_issued"]) == ("failed", True)


def test_an_issued_and_revoked_certificate_keeps_both_facts() -> None:
    row = _certificate(
        issuance(
            IssuanceState.ISSUED,
            certificate=b"der",
            certificate_sha256=DIGEST,
            tbs_sha256=DIGEST,
            closed_at=NOW,
            revocation=Revocation(NOW + HOUR, "keyCompromise", "told by phone"),
        )
    )
    assert (row["state"], row["certificate"], row["closed_at"]) == ("issued", b"der", NOW)
    assert (row["revoked_at"], row["revocation_reason"]) == (NOW + HOUR, "keyCompromise")


def test_no_row_holds_a_certificate_signing_request_or_a_token() -> None:
    for projection in (grants.PROJECTION, certificates.PROJECTION, tokens.PROJECTION):
        for row in projection.rows(grant()):
            assert b"csr" not in row


def test_a_changed_token_changes_its_row_only() -> None:
    before = grant(tokens={name: replace(_token(), accessor=name) for name in ("a" * 16, "b" * 16)})
    cancelled = replace(before.tokens["b" * 16], state=TokenState.CANCELLED)
    after = replace(before, tokens={**before.tokens, "b" * 16: cancelled})
    (changed,) = tokens.PROJECTION.changed(before, after)
    assert changed[0] == "b" * 16
    assert grants.PROJECTION.changed(before, after) == set(), "the grant's own row is the same"


def test_a_table_makes_rows_of_what_is_new_and_finds_what_comparing_all_of_them_would() -> None:
    first = issuance(IssuanceState.AUTHORIZED)
    second = issuance(IssuanceState.ISSUED, certificate=b"der")
    before = grant(issuances={SOME: first, OTHER: second})
    twin = replace(first)  # equal, and made anew
    closed = replace(second, closed_at=NOW)
    after = replace(before, issuances={SOME: twin, OTHER: closed, UUID(int=3): second})
    table = certificates.PROJECTION
    assert table.changed(before, after) == set(table.rows(after)) - set(table.rows(before))
    later = replace(after, issuances={**after.issuances, OTHER: second})
    (row,) = table.touched(after, later)
    assert row in table.rows(later)
    assert list(table.touched(None, after)) == list(table.rows(after))


def _token() -> Token:
    return Token("a" * 16, DIGEST, TokenState.ISSUED, NOW, NOW + HOUR, None, NOW)


def test_roles_are_sorted_so_that_equal_sets_are_equal_rows() -> None:
    (row,) = operators.rows(STATES[Operator])  # type: ignore[arg-type]
    assert '["admin","auditor"]' in row


def test_only_rejections_among_the_notes_have_a_row() -> None:
    other = Note(SOME, 1, CallDenied(operation="x", problem="y", count=1), NOW, None)
    assert list(rejections.rows(other)) == []
    assert len(list(rejections.rows(rejected()))) == 1
