"""A copy of what the rules made in a past is as right as the original, and shares no name with it."""

from collections import defaultdict
from collections.abc import Iterator
from functools import reduce
from hashlib import sha256
from random import Random
from typing import Any
from uuid import UUID

import pytest
from cryptography import x509

from ledger import grants
from ledger.appends import InlineProjection
from ledger.claims import claims_of
from ledger.events import CertificateIssued, Event, GrantAmended, GrantProposed, IssuanceAuthorized
from ledger.folds import FOLDS
from ledger.grant_state import Grant
from ledger.mapper import body_of, read_event
from ledger.packing import INT8, packed
from projections.registry import INLINE
from support import past
from support.past_book import Book, only_once
from support.past_forms import BEFORE_POINT, point_of
from support.past_mould import Mould
from support.past_names import MOULD, copies
from support.past_press import _CLAIMS, _EVENTS
from support.past_stencils import Cut, Line, Stencil
from support.past_world import World

KINDS = {fold.stream_type: kind for kind, fold in FOLDS.items()}
Streams = dict[UUID, list[Cut]]
EVENTS = 4000  # in all; the rules make half of them


@pytest.fixture(scope="module")
def book() -> Book:
    return Book(Random(1))


@pytest.fixture(scope="module")
def mould(book: Book) -> Iterator[Mould]:
    founding = past._founding(past.START)
    world = World(book, founding.forms, founding.authority_id, past.START)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(past, "_MOULD", EVENTS // 2)
        yield past.cast(world, EVENTS, founding)


@pytest.fixture(scope="module")
def streams(book: Book, mould: Mould) -> Streams:
    return dict(mould.cut(book, past._founding(past.START).forms))


@pytest.fixture(scope="module")
def copied(mould: Mould, streams: Streams) -> list[list[Line]]:
    (copy,) = mould.copies
    return [
        lines
        for cuts in streams.values()
        if not only_once(events_of(lines := list(Stencil(cuts).stamp(copy)))[0].data)
    ]


def events_of(lines: list[Line]) -> list[Event]:
    return [read_event(UUID(one.stream_id), one.version, one.fact.TOPIC, one.body) for one in lines]


def assert_is_recorded(lines: list[Line], events: list[Event]) -> None:
    """That these lines are these events of a stream and, in any order, the rows of its end."""
    seen: set[tuple[str, str]] = set()
    for line, event in zip(lines, events, strict=True):
        stream_id, body = event.originator_id, body_of(event)
        row = (stream_id, event.originator_version, event.data.TOPIC, body, 1, event.at, b"")
        assert (line.fact, line.stream_id) == (type(event.data), str(stream_id))
        assert (line.version, line.body) == (event.originator_version, body)
        assert packed(_EVENTS.kinds, row).startswith(line.event + INT8.item(1))
        new = [claim for claim in claims_of(event) if claim not in seen]
        claims = [packed(_CLAIMS.kinds, (*claim, stream_id, 1)) for claim in new]
        assert [claim + INT8.item(1) for claim in line.claims] == claims
        seen.update(new)
    kind = KINDS[events[0].data.STREAM]
    state: Any = reduce(FOLDS[kind].evolve, events, None)
    tables: list[InlineProjection] = [one for one in INLINE if one.state is kind]
    rows = [(one.table, packed(one.kinds, row)) for one in tables for row in one.rows(state)]
    assert sorted(row for line in lines for row in line.rows) == sorted(rows)


def test_stamped_under_its_own_names_a_life_is_what_the_rules_made(
    book: Book, streams: Streams
) -> None:
    assert len(streams) > EVENTS / 20
    made: dict[UUID, list[Event]] = defaultdict(list)
    for append in book.appends:
        made[append.events[0].originator_id] += append.events
    assert made.keys() == streams.keys()
    for id_, cuts in streams.items():
        assert_is_recorded(list(Stencil(cuts).stamp(MOULD)), made[id_])


def test_a_copy_holds_canonical_bodies_a_valid_life_and_the_rows_of_its_end(
    copied: list[list[Line]],
) -> None:
    assert len(copied) > EVENTS / 20
    for lines in copied:
        assert_is_recorded(lines, events_of(lines))


def test_what_follows_from_other_values_is_computed_again(copied: list[list[Line]]) -> None:
    seen = {Grant: 0, IssuanceAuthorized: 0, CertificateIssued: 0}
    for lines in copied:
        orders = {}
        for event in events_of(lines):
            fact = event.data
            if isinstance(fact, GrantProposed):
                proposed = fact
            if isinstance(fact, GrantProposed | GrantAmended):
                seen[Grant] += 1
                assert fact.terms_digest == grants.terms_digest(
                    proposed.peer_id, proposed.subject_user_id, fact.scope, fact.not_before,
                    fact.expires_at,
                )  # fmt: skip
            if isinstance(fact, IssuanceAuthorized):
                seen[IssuanceAuthorized] += 1
                orders[fact.issuance_id] = fact
                assert fact.csr_sha256 == sha256(fact.csr).hexdigest()
                spki = BEFORE_POINT + point_of(fact.csr)
                assert fact.key_digest == sha256(spki).hexdigest()
                assert fact.authority_id == past._AUTHORITY
                assert fact.san == (f"urn:uuid:{event.originator_id}",)
            if isinstance(fact, CertificateIssued):
                seen[CertificateIssued] += 1
                assert_is_of(fact, orders[fact.issuance_id])
    assert min(seen.values()) > 100


def assert_is_of(fact: CertificateIssued, order: IssuanceAuthorized) -> None:
    """That the certificate is the one that was ordered, all but its signature."""
    certificate = x509.load_der_x509_certificate(fact.certificate)
    assert fact.certificate_sha256 == sha256(fact.certificate).hexdigest()
    assert fact.tbs_sha256 == sha256(certificate.tbs_certificate_bytes).hexdigest()
    assert f"{certificate.serial_number:032x}" == order.serial == fact.serial
    assert certificate.not_valid_before_utc == order.not_before
    assert certificate.not_valid_after_utc == order.not_after
    assert certificate.subject.rfc4514_string() == f"CN={order.subject}"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == list(order.san)
    for wanted in order.extensions:
        found = certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier(wanted.oid))
        assert found.value.public_bytes() == wanted.value
    assert BEFORE_POINT + point_of(order.csr) in fact.certificate


def test_no_two_of_many_copies_have_an_id_in_common() -> None:
    dice = Random(1)
    ids = [UUID(int=dice.getrandbits(128), version=4) for _ in range(500)]
    found = {copy.uuid(id_) for copy in copies(dice, range(150)) for id_ in ids}
    assert len(found) == 150 * len(ids)
    assert {id_.version for id_ in found} == {4}


def test_no_copy_has_an_id_of_another_and_all_are_told_in_order(mould: Mould) -> None:
    told = list(mould.told())
    assert told == sorted(told, key=lambda one: (one.at, one.copy))
    lines = [line for one in told for line in one.lines]
    assert EVENTS <= len(lines) < EVENTS + 50
    ids = {line.body[line.body.index(b'"id":"', line.body.index(b'"data":')) :] for line in lines}
    assert len(ids) == len(lines)
    claims = [claim for line in lines for claim in line.claims]
    assert len(set(claims)) == len(claims)
    owners = {(one.copy, line.stream_id) for one in told for line in one.lines}
    assert {number for number, _ in owners} == {0, 1}
    assert len({id_ for _, id_ in owners}) == len(owners)
